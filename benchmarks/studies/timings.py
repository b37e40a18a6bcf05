"""Parts of the library alone: calls that take turns, and how long each takes.

A timing is a declaration, a `Timing`; `run` measures it and prints a table.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.data import load_task, split
from benchmarks.inside import changed, products, resolve_compute
from benchmarks.results import describe_machine, say, table, write
from benchmarks.timing import median_seconds
from benchmarks.training_steps import make_step
from sk_adalora import AdaLoraClassifier

TIMINGS = {}  # by the name that `python -m benchmarks NAME` runs them by
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Timing:
    """Calls that are compared.

    Parameters
    ----------
    question : str
        What is asked, in one line.
    heads : list of str
        What the cases vary.
    cases : list of tuple
        A row of the table each.
    calls : callable
        ``(model, *case) -> dict of str to callable``: what takes turns, on the CPU.
    rounds : int
        Turns of each call.
    """

    question: str
    heads: list
    cases: list
    calls: Callable
    rounds: int = 50


def run(name, timing, options):
    """Let all calls of each case take turns, and print a table of medians."""
    cases, rounds = timing.cases, timing.rounds
    if options.quick:
        cases, rounds = cases[:1], 2
    lines, records = [], []
    for case in cases:
        calls = timing.calls(options.model, *case)
        seconds = median_seconds(calls, _CPU, rounds)
        first = next(iter(seconds.values()))
        shown = [f"{s * 1e3:.4g} ({s / first:.2f})" for s in seconds.values()]
        lines.append([*map(str, case), *shown])
        records.append({"case": case, "seconds": seconds})
        say(*lines[-1])
    about = {"what": name, "machine": describe_machine(), "command": options.command}
    write(options.results / f"{name}-{options.kept_as}.jsonl", about, records)
    print(f"{about['machine']}\n\nMilliseconds, and beside the first, medians:\n")
    print(table([*timing.heads, *calls], lines))


def _product(tokens, width, outputs, dtype):
    """Return an input, a weight and a bias of a layer."""
    torch.manual_seed(0)
    shapes = (tokens, width), (outputs, width), (outputs,)
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def _float32(model, way, tokens, width, outputs):
    x, weight, bias = _product(tokens, width, outputs, torch.float32)
    if way == "backward":
        x, weight, bias = torch.randn(tokens, outputs), weight.t(), None

    def by(is_onednn):
        with changed({"mkl_is_slow": is_onednn}):
            products.linear(x, weight, bias)

    return {"MKL": partial(by, False), "oneDNN": partial(by, True)}


TIMINGS["float32"] = Timing(
    "By which of torch's libraries does a processor multiply faster in float32?",
    ["product", "tokens", "width", "outputs"],
    [
        (way, *shape)
        for shape in (
            *((1024, 384, 384), (1024, 384, 1536)),
            *((1024, 1536, 384), (128, 384, 384)),
        )
        for way in ("forward", "backward")
    ],
    _float32,
)


def _bias(model, tokens, width, outputs):
    product = _product(tokens, width, outputs, torch.bfloat16)
    return {
        "bias first": partial(F.linear, *product),
        "while multiplying": partial(products.linear, *product),
    }


TIMINGS["bias"] = Timing(
    "What does it save in bfloat16 to add a layer's bias while multiplying?",
    ["tokens", "width", "outputs"],
    [
        (tokens, *shape)
        for shape in ((384, 384), (384, 1536), (1536, 384))
        for tokens in (40, 640, 1536)
    ],
    _bias,
)


def _narrow(model, precision, width, rank):
    dtype = getattr(torch, precision)
    x, rows, _ = _product(1024, width, rank, dtype)
    out = torch.randn_like(x)

    def adapt(hidden):
        """Do what a layer does with what it made of its input, forward and backward."""
        out.addmm_(hidden, rows, alpha=1e-6)
        return hidden.T @ x

    return {
        "plain": lambda: adapt(x @ rows.T),
        "transposed": lambda: adapt((rows @ x.T).T),
    }


TIMINGS["narrow"] = Timing(
    "How to lay out the products of an adapter, which have few columns?",
    ["precision", "width", "rank"],
    [
        (precision, width, rank)
        for precision in ("float32", "bfloat16")
        for width in (384, 768, 1536)
        for rank in (2, 4, 8, 12, 16)
    ],
    _narrow,
)


def _parts(model, precision, rows, length):
    step = make_step("ours", rows, length, resolve_compute("cpu", precision), model)

    def limited(tokens):
        with changed({"tokens_to_train": tokens}):
            step()

    limits = {f"{n:,} at once": n for n in (4096, 3072, 2048, 1536, 1024)}
    return {
        name: partial(limited, tokens)
        for name, tokens in {"whole": 10**9, **limits}.items()
    }


TIMINGS["parts"] = Timing(
    "Into how many parts to cut a training batch on a CPU?",
    ["precision", "texts", "tokens"],
    [(p, 32, n) for p in ("bfloat16", "float32") for n in (64, 128, 256)],
    _parts,
    rounds=5,
)

# ---- predictions of few texts, as a server makes them ------------------------


@cache
def _saved(model):
    """Fit 200 quotes; return 32 others, the classifier, and a folder that it is in."""
    X_train, y_train, texts, _ = split(load_task("quotes"), 200, 32, 0)
    fitted = AdaLoraClassifier(model, random_state=0, epochs=3, device="cpu")
    fitted.fit(X_train, y_train)
    folder = tempfile.TemporaryDirectory()  # as long as the process
    root = Path(folder.name)
    fitted.save_pretrained(root / "adapter", include_backbone=True)
    fitted.merge_and_save(root / "merged")
    return np.array(texts, dtype=object), fitted, folder


def _latency(model, precision, count):
    import peft
    from transformers import AutoModel

    texts, fitted, folder = _saved(model)
    root, dtype = Path(folder.name), getattr(torch, precision)

    def read(name):
        return AutoModel.from_pretrained(root / name, dtype=dtype).eval()

    adapted = peft.PeftModel.from_pretrained(
        read("adapter/backbone"), root / "adapter", autocast_adapter_dtype=False
    )
    ours = AdaLoraClassifier.from_pretrained(
        root / "adapter", device="cpu", precision=precision
    )
    by_hand = partial(_by_hand, root / "merged", fitted.classes_)
    ways = {
        "`predict`": ours.predict,
        "PEFT": by_hand(adapted.eval()),
        "merged": by_hand(read("merged")),
        "no update": by_hand(read("adapter/backbone")),
    }
    return {name: partial(way, texts[:count]) for name, way in ways.items()}


def _by_hand(folder, classes, module):
    """Return a function that predicts with a module of transformers, mean-pooled."""
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    head = load_file(folder / "head.safetensors")
    options = {"padding": True, "truncation": True, "max_length": 128}

    @torch.inference_mode()
    def predict(texts):
        batch = tokenizer(list(texts), return_tensors="pt", **options)
        hidden = module(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(2)
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        outputs = pooled @ head["weight"].T + head["bias"]
        return classes[outputs.argmax(1).numpy()]

    return predict


TIMINGS["latency"] = Timing(
    "How long does a prediction of few texts take, beside PEFT's and a merged model?",
    ["precision", "texts"],
    [(p, n) for p in ("float32", "bfloat16") for n in (1, 8, 32)],
    _latency,
    rounds=40,
)
