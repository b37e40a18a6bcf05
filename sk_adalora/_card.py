"""The model card of a saved estimator, and the rank table in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ._persistence import AdapterState

_LAYER = re.compile(r"^(?P<before>.*?)\.(?P<number>\d+)\.(?P<kind>.*)$")


def rank_rows(ranks: Mapping[str, int]) -> tuple[list[str], list[list[str]]]:
    """Arrange ranks as a table, layers down and kinds of matrix across.

    Parameters
    ----------
    ranks : mapping of str to int
        Rank by path.

    Returns
    -------
    header : list of str
        "layer" and the kinds of matrix.
    rows : list of list of str
        Cells; empty where a layer has no such matrix.
    """
    cells: dict[str, dict[str, int]] = {}
    kinds: dict[str, None] = {}
    for path, rank in ranks.items():
        match = _LAYER.match(path)
        layer, kind = (match["number"], match["kind"]) if match else ("", path)
        kinds[kind] = None
        cells.setdefault(layer, {})[kind] = rank
    rows = [
        [layer, *(str(row.get(kind, "")) for kind in kinds)]
        for layer, row in cells.items()
    ]
    return ["layer", *kinds], rows


def write_card(estimator: Any, state: AdapterState) -> str:
    """Write the model card in Markdown.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator.
    state : AdapterState
        What training left.

    Returns
    -------
    str
    """
    kind = type(estimator).__name__
    report = estimator.fit_report_
    header, rows = rank_rows(estimator.ranks_)
    table = [header, ["---"] * len(header), *rows]
    versions = ", ".join(f"{n} {v}" for n, v in state.versions.items())
    scores = estimator.history_.score
    best = estimator.history_.best_epoch
    scored = ""
    if scores:
        shown = scores[-1 if best is None else best]
        scored = f"\nScore on the validation rows: {shown:.4f}.\n"
    return f"""---
base_model: {state.model}
library_name: sk-adalora
tags:
- adalora
- peft
- sk-adalora
---

# {kind}

An AdaLoRA adapter for `{state.model}` (SHA-256 of its weights
`{state.content_hash}`), trained by sk-adalora on {report.n_rows:,} rows.
{scored}
## Load it

```python
from sk_adalora import {kind}

estimator = {kind}.from_pretrained("this-folder")
estimator.predict(["a text"])
```

`adapter_config.json` and `adapter_model.safetensors` are PEFT's:
`peft.PeftModel.from_pretrained(encoder, "this-folder")` adapts the encoder. The head
is in `head.safetensors`. Nothing in the folder is pickled.

## Ranks

{chr(10).join("| " + " | ".join(row) + " |" for row in table)}

Trained with {versions}.
"""
