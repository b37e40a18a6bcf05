"""How long a prediction of few texts takes, as a server makes it.

Of one, 8 and 32 review quotes, the milliseconds of `predict`, beside what a program of
one's own would do with the same estimator: PEFT's model of its saved folder
(`save_pretrained`), and transformers' model of a merged one (`merge_and_save`), each
with the tokenizer, mean pooling and the head; and the pretrained model alone, without
any update, the same way. In float32 and in bfloat16; all take turns. Prints a table, in
about two minutes.

    python -m benchmarks latency
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from safetensors.torch import load_file

from sk_adalora import AdaLoraClassifier

from .data import load_task, split
from .machine import describe_machine
from .results import table
from .timing import median_seconds

COUNTS = [1, 8, 32]
ROUNDS = 40
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main():
    """Fit, write the folders, and measure."""
    warnings.simplefilter("ignore")
    X_train, y_train, texts, _ = split(load_task("quotes"), 200, COUNTS[-1], 0)
    fitted = AdaLoraClassifier(random_state=0, epochs=3, device="cpu")
    fitted.fit(X_train, y_train)
    texts = np.array(texts, dtype=object)
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fitted.save_pretrained(folder / "adapter", include_backbone=True)
        fitted.merge_and_save(folder / "merged")
        for precision in PRECISIONS:
            ways = contestants(fitted, folder, precision)
            agree(ways, texts)
            for count in COUNTS:
                lines.append([precision, str(count), *measure(ways, texts[:count])])
    print(f"{describe_machine()}\n\nMilliseconds of a call, median of {ROUNDS}:\n")
    print(table(["precision", "texts", *ways], lines))


def contestants(fitted, folder, precision):
    """Return by name what predicts labels of texts."""
    dtype = PRECISIONS[precision]
    ours = AdaLoraClassifier.from_pretrained(
        folder / "adapter", device="cpu", precision=precision
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "merged")
    head = load_file(folder / "merged" / "head.safetensors")

    def read(name):
        return transformers.AutoModel.from_pretrained(folder / name, dtype=dtype).eval()

    adapted = peft.PeftModel.from_pretrained(
        read("adapter/backbone"), folder / "adapter", autocast_adapter_dtype=False
    ).eval()
    modules = {
        "PEFT": adapted,
        "merged": read("merged"),
        "no update": read("adapter/backbone"),
    }
    ways = {"`predict`": ours.predict}
    for name, module in modules.items():
        ways[name] = by_hand(module, tokenizer, head, fitted.classes_)
    return ways


def by_hand(module, tokenizer, head, classes):
    """Return a function that predicts with a module of transformers, mean-pooled."""

    def predict(texts):
        with torch.inference_mode():
            batch = tokenizer(
                list(texts),
                padding=True,
                truncation=True,
                max_length=128,
                return_tensors="pt",
            )
            hidden = module(**batch).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(2)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            outputs = pooled @ head["weight"].T + head["bias"]
        return classes[outputs.argmax(1).numpy()]

    return predict


def agree(ways, texts):
    """Check that all but the last, which has no update, predict the same."""
    expected = ways["`predict`"](texts)
    for name in ("PEFT", "merged"):
        same = float((ways[name](texts) == expected).mean())
        if same < 0.95:
            raise RuntimeError(f"{name} agrees on {same:.2f} of the texts only.")


def measure(ways, texts):
    """Return the median milliseconds of each, in turn."""
    calls = {name: partial(predict, texts) for name, predict in ways.items()}
    seconds = median_seconds(calls, torch.device("cpu"), ROUNDS, warm_ups=5)
    return [f"{1000 * seconds[name]:.1f}" for name in ways]


if __name__ == "__main__":
    main()
