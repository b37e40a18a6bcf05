"""Write an estimator as an ONNX model, with what runs it without torch.

The updates are merged into the weights. What the estimator does between tokens and the
model (a token for texts without any, no end tokens inside) is in the graph too, so that
a program in any language needs a tokenizer and the model alone.
"""

from __future__ import annotations

import json
import os
import runpy
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sk_adalora.data.targets import Classes, Numbers, Targets
from sk_adalora.data.texts import read_texts
from sk_adalora.network.network import TextNetwork, pool
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.runtime.devices import own_settings_of_torch
from sk_adalora.runtime.rules import check_parameters
from sk_adalora.tokens.batches import pad
from sk_adalora.tokens.long_texts import encode_for_prediction
from sk_adalora.tokens.tokenize import filler_id, locked, replaced_end

from .card import write_onnx_card
from .layout import CARD_NAME, written_whole
from .write import write_text

MODEL_NAME = "model.onnx"
RUNNER = Path(__file__).with_name("onnx_runner.py")
# Probabilities may differ by this much, and numbers by this share of their scale.
_TOLERANCE = 1e-3
# What a written model is tried on: texts of several lengths, empty ones and long ones.
_TRIAL = ["", "a", "A short text.", "It was the best of times, " * 9, "x y z " * 400]
# The newest set of operations that torch's tracing exporter writes in all its versions
# that we take, and that has all that attention needs.
_OPSET = 17
# Weights that share a scale where they are integers.
_BLOCK = 16


@own_settings_of_torch(gradients=False)
def export_onnx(
    estimator: Any,
    folder: str | os.PathLike[str],
    quantize: str | None,
    overwrite: bool,
) -> None:
    """Write the model, its tokenizer and a program that predicts, or nothing."""
    check_is_fitted(estimator)
    check_parameters(estimator, estimator._rules)
    _check_exportable(estimator, quantize)
    network, backbone = estimator._exact_network()
    if not backbone.tokenizer.is_fast:
        raise ValueError(
            "The model must have a fast tokenizer to be exported. Got "
            f"{type(backbone.tokenizer).__name__}, which runs in Python only. Fit "
            "another `model`, or save with save_pretrained."
        )
    most = min(estimator.max_length, backbone.longest or estimator.max_length)
    trial, expected = _try(estimator, network, backbone, most)
    graph = _Graph(network, backbone, estimator._targets)
    with written_whole(Path(os.path.expanduser(folder)), overwrite=overwrite) as staged:
        inputs = _write_model(graph, staged / MODEL_NAME, estimator.row_format)
        _write_tokenizer(backbone.tokenizer, staged / "tokenizer.json", most)
        config = _describe(estimator, backbone, inputs, most)
        write_text(staged / "config.json", json.dumps(config, indent=2))
        write_text(staged / "run.py", RUNNER.read_text("utf8"))
        _check_agreement(staged, trial, expected, estimator._targets)
        if quantize is not None:
            _quantize(staged / MODEL_NAME)
        write_text(staged / CARD_NAME, write_onnx_card(estimator, quantize))


def _check_exportable(estimator: Any, quantize: str | None) -> None:
    """Refuse what a model for another runtime cannot be, before any work."""
    if quantize not in (None, "int8"):
        raise ValueError(
            f"`quantize` must be None or 'int8'. Got {quantize!r}. Choose one of them."
        )
    if estimator.long_text != "truncate":
        raise ValueError(
            "`long_text` must be 'truncate' to export, as tokenizers cut texts. Got "
            f"{estimator.long_text!r}. Call set_params(long_text='truncate') first."
        )
    if callable(estimator.row_format):
        raise ValueError(
            "`row_format` must be no function to export. Got "
            f"{estimator.row_format!r}. Fit on the texts that it returns, and pass "
            "such texts to the exported model."
        )
    for name in ("onnx", "onnxruntime"):
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(
                f"`export_onnx` needs {name}. Got an environment without it. Run: "
                'pip install "sk-adalora[onnx]"'
            ) from error


# ---- the model --------------------------------------------------------------


class _Graph(nn.Module):
    """From token ids to probabilities, or to numbers in the unit of the targets."""

    def __init__(
        self, network: TextNetwork, backbone: Backbone, targets: Targets
    ) -> None:
        super().__init__()
        self.encoder = network.encoder.merge_and_unload()
        self.head, self.pooling = network.head, network.pooling
        self.targets, tokenizer = targets, backbone.tokenizer
        self.has_types = "token_type_ids" in tokenizer.model_input_names
        self.replaced = replaced_end(tokenizer)
        # Where a tokenizer adds tokens, no text is left without any.
        adds_none = tokenizer.num_special_tokens_to_add() == 0
        self.filler = filler_id(tokenizer) if adds_none else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *types: Tensor) -> Any:
        ids, mask = input_ids, attention_mask
        if self.filler is not None:
            ids = ids.masked_fill((mask.sum(dim=1, keepdim=True) == 0), self.filler)
            mask = torch.cat([torch.ones_like(mask[:, :1]), mask[:, 1:]], dim=1)
        if self.replaced is not None:
            end, unknown = self.replaced
            is_inside = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
            ids = ids.masked_fill((ids == end) & (is_inside == 1), unknown)
        given = dict(zip(["token_type_ids"], types, strict=False))
        found = self.encoder(input_ids=ids, attention_mask=mask, **given)
        if self.pooling == "model":
            return self._in_units(found.logits.float())
        vectors = pool(found.last_hidden_state.float(), mask, self.pooling)
        return self._in_units(self.head(vectors))

    def _in_units(self, outputs: Tensor) -> Tensor:
        if not isinstance(self.targets, Numbers):
            assert isinstance(self.targets, Classes)
            return self.targets.probabilities(outputs)
        scale, mean = map(torch.from_numpy, (self.targets.scale, self.targets.mean))
        values = outputs.double() * scale + mean
        return values[:, 0] if self.targets.one_dimensional else values


def _write_model(graph: _Graph, path: Path, row_format: Any) -> list[str]:
    """Trace the model into a file; return the names of its inputs."""
    names = ["input_ids", "attention_mask"]
    if row_format == "pair" and graph.has_types:
        names.append("token_type_ids")
    ids = torch.full((2, 9), 1)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    example = (ids, mask, torch.zeros_like(ids))[: len(names)]
    try:
        with warnings.catch_warnings():
            # Of what a trace may get wrong: the written model is compared instead.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph.eval(),
                example,
                str(path),
                dynamo=False,
                input_names=names,
                output_names=["outputs"],
                dynamic_axes={
                    **{name: {0: "rows", 1: "tokens"} for name in names},
                    "outputs": {0: "rows"},
                },
                opset_version=_OPSET,
            )
    except Exception as error:
        kind = type(graph.encoder).__name__
        raise ValueError(
            f"`model` must be one that torch can export to ONNX. Got {kind}: {error} "
            "Save it with merge_and_save or save_pretrained instead."
        ) from error
    return names


def _quantize(path: Path) -> None:
    """Store embeddings and weights of layers as integers of 8 bits with their scales.

    Each few weights have a scale, and so have each few numbers that a layer reads.
    onnxruntime's own dynamic quantization has one scale for a batch: a prediction
    would depend on the texts beside it, and more labels would change.
    """
    import onnx

    model = onnx.load(path)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        at = {"MatMul": 1, "Gather": 0}.get(node.op_type)
        weight = None if at is None else weights.get(node.input[at])
        if weight is None or not _is_large(weight):
            nodes.append(node)
            continue
        values = onnx.numpy_helper.to_array(weight)
        make = _integer_product if node.op_type == "MatMul" else _integer_embedding
        own, made = make(values, node)
        graph.initializer.extend(own)
        nodes += made
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    for field, items in ((graph.node, nodes), (graph.initializer, kept)):
        del field[:]
        field.extend(items)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)


def _is_large(weight: Any) -> bool:
    """Tell a matrix of floats that is worth its scales."""
    import onnx

    is_float = weight.data_type == onnx.TensorProto.FLOAT
    return is_float and len(weight.dims) == 2 and min(weight.dims) >= _BLOCK


def _integer_product(values: np.ndarray, node: Any) -> tuple[list[Any], list[Any]]:
    """Return tensors and node of a product with a matrix of integers."""
    import onnx

    n_in, n_out = values.shape
    padded = np.pad(values.T, ((0, 0), (0, -n_in % _BLOCK)))
    integers, scales = _rounded(padded.reshape(n_out, -1, _BLOCK))
    # This operation's zero is 128.
    packed = (integers.astype(np.int16) + 128).astype(np.uint8)
    names = [f"{node.output[0]}_{kind}" for kind in ("integers", "scales")]
    tensors = map(onnx.numpy_helper.from_array, (packed, scales[:, :, 0]), names)
    product = onnx.helper.make_node(
        "MatMulNBits",
        [node.input[0], *names],
        [node.output[0]],
        domain="com.microsoft",
        K=n_in,
        N=n_out,
        bits=8,
        block_size=_BLOCK,
        accuracy_level=4,  # products of integers, which are quicker
    )
    return [*tensors], [product]


def _integer_embedding(values: np.ndarray, node: Any) -> tuple[list[Any], list[Any]]:
    """Return tensors and nodes that look up rows of integers, and scale them."""
    import onnx

    width = values.shape[1]
    block = width if width % _BLOCK else _BLOCK
    integers, scales = _rounded(values.reshape(len(values), -1, block))
    make, ids, out = onnx.helper.make_node, node.input[1], node.output[0]
    kinds = ("integers", "scales", "rest")
    table, factors, rest = names = [f"{out}_{kind}" for kind in kinds]
    arrays = (integers, scales, np.array([-1]))
    tensors = map(onnx.numpy_helper.from_array, arrays, names)
    return [*tensors], [
        make("Gather", [table, ids], [f"{table}_rows"]),
        make("Gather", [factors, ids], [f"{factors}_rows"]),
        make("Cast", [f"{table}_rows"], [f"{table}_floats"], to=onnx.TensorProto.FLOAT),
        make("Mul", [f"{table}_floats", f"{factors}_rows"], [f"{out}_blocks"]),
        make("Shape", [ids], [f"{out}_shape"]),
        make("Concat", [f"{out}_shape", rest], [f"{out}_whole"], axis=0),
        make("Reshape", [f"{out}_blocks", f"{out}_whole"], [out]),
    ]


def _rounded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return integers from -127 to 127, and their scales along the last axis."""
    largest = np.abs(values).max(axis=-1, keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(values / scales).astype(np.int8), scales


# ---- what is beside it ------------------------------------------------------


def _write_tokenizer(tokenizer: Any, path: Path, most: int) -> None:
    """Write a fast tokenizer that cuts and pads as the estimator does."""
    with locked(tokenizer):
        backend = type(tokenizer.backend_tokenizer).from_str(
            tokenizer.backend_tokenizer.to_str()
        )
    backend.enable_truncation(most, direction=tokenizer.truncation_side)
    token = tokenizer.pad_token
    given = {} if token is None else {"pad_token": token}
    backend.enable_padding(pad_id=tokenizer.pad_token_id or 0, **given)
    backend.save(str(path))


def _describe(
    estimator: Any, backbone: Backbone, inputs: list[str], most: int
) -> dict[str, Any]:
    targets, row_format = estimator._targets, estimator.row_format
    columns = [f"x{i}" for i in range(estimator.n_features_in_)]
    columns = [*getattr(estimator, "feature_names_in_", columns)]
    plain = row_format in ("auto", "pair")
    thresholds = getattr(targets, "thresholds", None)
    classes = getattr(targets, "classes", np.array([])).tolist()
    if not all(isinstance(name, str | int | float) for name in classes):
        classes = targets.names  # dates, as they are written
    return {
        "kind": type(targets).__name__.lower(),
        "classes": classes,
        "thresholds": None if thresholds is None else thresholds.tolist(),
        "inputs": inputs,
        "max_length": most,
        "columns": columns,
        "template": None if plain else row_format,
        "split_special_tokens": bool(backbone.tokenizer.split_special_tokens),
        "versions": estimator._adapter.versions,
    }


# ---- whether it does the same -----------------------------------------------


def _try(
    estimator: Any, network: TextNetwork, backbone: Backbone, most: int
) -> tuple[list[Any], np.ndarray]:
    """Return a few rows, and what the estimator makes of them in float32."""
    special = backbone.tokenizer.all_special_tokens[:4]
    texts = [*_TRIAL, " a ".join(["", *special, "b"])]
    rows: list[Any] = texts
    table: Any = texts
    if estimator.row_format == "pair":
        rows = [*zip(texts, texts[::-1], strict=True)]
        table = np.array(rows, dtype=object)
    read = read_texts(table, "pair" if rows is not texts else "auto")
    tokens, windows = encode_for_prediction(read, backbone.tokenizer, most, "truncate")
    outputs = [
        network(pad(windows.tokens, np.array([row]))).numpy()
        for row in tokens.text_of.tolist()
    ]
    return rows, _predictions(estimator._targets, np.concatenate(outputs))


def _predictions(targets: Any, outputs: np.ndarray) -> np.ndarray:
    if isinstance(targets, Numbers):
        return targets.decode(outputs)
    found: np.ndarray = np.exp(targets.log_probabilities(outputs))
    return found


def _check_agreement(
    staged: Path, rows: list[Any], expected: np.ndarray, targets: Targets
) -> None:
    """Refuse a model that predicts something else than the estimator."""
    try:
        found = runpy.run_path(str(staged / "run.py"))["Model"](staged).outputs(rows)
    except Exception as error:
        raise ValueError(
            "`model` must be one that onnxruntime can run. Got an error for the "
            f"exported one: {error} Save it with merge_and_save or save_pretrained."
        ) from error
    scale = np.maximum(targets.scale, 1e-30) if isinstance(targets, Numbers) else 1.0
    difference = float(np.abs((found - expected) / scale).max())
    if not difference <= _TOLERANCE:  # nor NaN
        raise ValueError(
            f"The exported model must predict as the estimator, within {_TOLERANCE}. "
            f"Got a difference of {difference:.2g}: torch's exporter cannot follow "
            "this model. Save it with merge_and_save or save_pretrained instead."
        )
