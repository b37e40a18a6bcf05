"""The model card (README.md) of a saved or exported estimator."""

from __future__ import annotations

import json
import re
from typing import Any

from sk_adalora.training.rank_table import lay_out
from sk_adalora.training.report import FitReport

from .layout import OUR_MARK
from .state import AdapterState


def write_card(estimator: Any, part: str = "") -> str:
    """Write the model card of a saved estimator in Markdown.

    `part` is how to get the adapted part of the pretrained model; "" if it is all of
    it.
    """
    kind = type(estimator).__name__
    loading = f"""```python
from {type(estimator).__module__} import {kind}

estimator = {kind}.from_pretrained("this-folder")
estimator.{"predict" if hasattr(estimator, "predict") else "transform"}(["a text"])
```

`adapter_config.json` and `adapter_model.safetensors` are PEFT's:
`peft.PeftModel.from_pretrained({_get("model", part)}, "this-folder")` adapts the
pretrained model. {_where_the_head_is(estimator._adapter)} The parameters, as they
were when the estimator was saved, are in `sk_adalora.json`. Nothing in the folder is
pickled."""
    return _page(estimator, kind, loading)


def write_export_card(estimator: Any, part: str = "", *, merged: bool) -> str:
    """Write the card of what other programs load: a whole model, or plain LoRA.

    `part` is that of :func:`write_card`.
    """
    own_head = estimator._adapter.pooling == "model"
    kind = "AutoModelForSequenceClassification" if own_head else "AutoModel"
    if merged:
        title = "A model with an AdaLoRA update merged"
        loading = f'transformers.{kind}.from_pretrained("this-folder")'
        loading = f"`{_get(loading, part)}`."
    else:
        title = "An AdaLoRA update as plain LoRA"
        loading = '`peft.PeftModel.from_pretrained(model, "this-folder")`.'
        if not own_head:  # the model, which tells its parts, need not be there
            loading += (
                "\nOf an encoder-decoder, `model` is the encoder (`get_encoder()`);"
                "\nof a model for texts and images, its text model."
            )
    if merged or own_head:
        loading += f" {_where_the_head_is(estimator._adapter)}"
    if merged and not own_head:
        loading += (
            ' The names of its rows are in its metadata, as a JSON list "labels".'
        )
    if units := estimator._targets.units:
        loading += f"\n\n{units}"
    return _page(estimator, title, loading, merged=merged)


def write_onnx_card(estimator: Any, quantize: str | None) -> str:
    """Write the card of a model in ONNX."""
    numbers = "" if quantize is None else f" Its weights are {quantize}."
    loading = f"""`python run.py "a text"`, or `Model().predict(rows)` of `run.py`: they
need onnxruntime and tokenizers.{numbers}"""
    return _page(estimator, "An AdaLoRA model in ONNX", loading, merged=True)


def _get(model: str, part: str) -> str:
    return f"{model}.{part}" if part else model


def _where_the_head_is(state: AdapterState) -> str:
    if state.pooling == "model":
        return "The head is that of the model's own architecture."
    return f"The head, after pooling {state.pooling!r}, is in `head.safetensors`."


def _page(estimator: Any, title: str, loading: str, *, merged: bool = False) -> str:
    state: AdapterState = estimator._adapter
    what = "An AdaLoRA update of" if merged else "An AdaLoRA adapter for"
    peft = "" if merged else "- peft\n"
    versions = ", ".join(f"{n} {v}" for n, v in sorted(state.versions.items()))
    return f"""---
{_base_model(state)}{OUR_MARK}
tags:
- adalora
{peft}- sk-adalora
---

# {title}

{what} `{_on_one_line(state.model)}`
({_commit(state)}SHA-256 of its weights `{state.content_hash}`),
trained by sk-adalora on {estimator.fit_report_.n_rows:,} rows.
{_scored(estimator)}
## Load it

{loading}

## Ranks

{lay_out(estimator.ranks_).to_markdown()}

Trained {_computed(estimator.fit_report_)}, with {versions}.
"""


def _on_one_line(name: str) -> str:
    """Write a name so that it does not end the code in which it stands."""
    return re.sub(r"[`\s]+", " ", name)


def _base_model(state: AdapterState) -> str:
    """Name the pretrained model for the hub, unless it is a folder of one machine."""
    return "" if state.is_folder else f"base_model: {json.dumps(state.model)}\n"


def _commit(state: AdapterState) -> str:
    return f"commit `{state.commit}`, " if state.commit else ""


def _computed(report: FitReport) -> str:
    threads = f", by {report.n_threads} threads" if report.n_threads > 1 else ""
    return f"in {report.precision} on `{report.device}`{threads}"


def _scored(estimator: Any) -> str:
    """Give the score of what is saved, if it was scored."""
    history = estimator.history_
    if not history.score:
        return ""
    best = history.best_epoch
    if best is None:  # a callback ended the fit early, or got a copy in its course
        best = -1
        if history.budget[best] != sum(estimator.ranks_.values()):
            return ""  # the end of the fit gave up ranks after the last score
    return f"\nScore on the validation rows: {history.score[best]:.4f}.\n"
