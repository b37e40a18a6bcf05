"""What a fitted estimator keeps, and how it becomes a network again."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor

from sk_adalora.adalora import AdaLoraConfig
from sk_adalora.adalora.peft_format import (
    CHOOSING,
    check_ranks,
    rank_pattern,
    ranks_of,
    select_triplets,
)
from sk_adalora.adalora.save_load import living
from sk_adalora.data.targets import from_state
from sk_adalora.network.network import TextNetwork, build_network
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.pretrained.find import Found, commit_of, names_folder
from sk_adalora.pretrained.weights import changed_settings
from sk_adalora.runtime.rules import POOLINGS
from sk_adalora.training.loop import TrainingHistory
from sk_adalora.training.report import FitReport
from sk_adalora.training.schedule_steps import ResolvedSchedule

from .checks import are_sound, fits
from .versions import FORMAT, check_format, used_versions, warn_other_versions

_HEAD = "head."
_MOST_LISTED = 3  # entries in an error message


@dataclass(frozen=True)
class AdapterState:
    """All that training changed, as plain arrays.

    Parameters
    ----------
    config : dict
        Fields of the :class:`AdaLoraConfig`, with the pruned ranks.
    arrays : dict of str to ndarray
        Triplets under PEFT's names and the head, in float32.
    n_outputs : int
        Outputs of the head.
    pooling : str
        How tokens become one vector.
    model : str
        The pretrained model, as the parameter `model` named it.
    found_in : str
        The folder it was found in.
    content_hash : str
        SHA-256 of its weights.
    tokenizer_hash : str
        SHA-256 of what its tokenizer does to some texts, and of its vocabulary.
    is_folder : bool
        Whether `model` was a folder, and not a name on the hub.
    feature_length : float or None
        What the head divided centred features by while it learned, for a fit that
        continues. None with ``pooling="model"``.
    commit : str or None
        The hub's commit that the model was found at. None for a folder and the
        packaged model.
    settings : dict
        What its config.json says of how it computes.
    format : int
        Number of this layout.
    versions : dict of str to str
        Versions of Python and packages that it was trained with.
    """

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    n_outputs: int
    pooling: str
    model: str
    found_in: str
    content_hash: str
    tokenizer_hash: str
    is_folder: bool
    feature_length: float | None
    commit: str | None
    settings: dict[str, Any]
    format: int = FORMAT
    versions: dict[str, str] = field(default_factory=used_versions)

    @property
    def found(self) -> Found:
        """Where `model` was found."""
        return Found(self.found_in, self.content_hash, self.commit)

    @property
    def width(self) -> int | None:
        """Length of the vectors that the head reads; None for a model's own head."""
        weight = self.arrays.get("head.weight")
        return None if weight is None else weight.shape[1]

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return copies of the adapter's tensors and of the head's.

        Returns
        -------
        adapter, head : dict of str to torch.Tensor
            The head's names are those of its module.
        """
        adapter = {n: torch.from_numpy(np.array(a)) for n, a in self.arrays.items()}
        own = [name for name in adapter if name.startswith(_HEAD)]
        return adapter, {n.removeprefix(_HEAD): adapter.pop(n) for n in own}

    def without_updates(self) -> AdapterState:
        """Return a copy with updates of rank 0, and outputs of 0."""
        adapter, head = self.tensors()
        before = self.config["rank_pattern"]
        pattern = {name: [False] * len(flags) for name, flags in before.items()}
        none = {n.removesuffix(".lora_E"): torch.tensor(f) for n, f in pattern.items()}
        zeros = {name: torch.zeros_like(value) for name, value in head.items()}
        return replace(
            self,
            config={**self.config, "rank_pattern": pattern},
            arrays=joined(select_triplets(adapter, none), zeros),
            feature_length=1.0,
        )

    def with_scaled_outputs(self, factors: np.ndarray) -> AdapterState:
        """Return a copy whose linear head gives outputs that are larger by factors.

        Parameters
        ----------
        factors : ndarray of shape (n_outputs,)
            Factor of each output.
        """
        adapter, head = self.tensors()
        scale = torch.from_numpy(factors)
        scaled = {
            name: value.double().mul(scale.view(-1, *[1] * (value.ndim - 1)))
            for name, value in head.items()
        }
        return replace(self, arrays=joined(adapter, scaled))


# Attributes that are records (dataclasses) of plain values. Files hold them as dicts,
# so that a file refers to no class but the estimator's.
RECORDS: dict[str, type] = {
    "schedule_": ResolvedSchedule,
    "history_": TrainingHistory,
    "fit_report_": FitReport,
}
# A folder has another form for the adapter: PEFT's.
_PICKLED_RECORDS: dict[str, type] = {"_adapter": AdapterState, **RECORDS}
# Fields of `AdapterState` in `sk_adalora.json`. PEFT's files and the head's have the
# others.
STATE_FIELDS = tuple(
    each.name for each in fields(AdapterState) if each.name not in ("config", "arrays")
)

# What :func:`fitted_attributes` sets.
FITTED_ATTRIBUTES = frozenset(
    "_adapter ranks_ rank_pattern_ schedule_ total_step_ history_ n_iter_ "
    "fit_report_".split()
)
# What a fit may leave beside, with tables and with early stopping.
OPTIONAL_ATTRIBUTES = ("feature_names_in_", "_validation_seed")


def fitted_attributes(
    adapter: AdapterState,
    schedule: ResolvedSchedule,
    history: TrainingHistory,
    report: FitReport,
) -> dict[str, Any]:
    """Return the attributes that a fit leaves, and a file gives back.

    Those of the targets are the estimator's own.
    """
    pattern = adapter.config["rank_pattern"]
    return {
        "_adapter": adapter,
        "ranks_": {p.removesuffix(".lora_E"): sum(f) for p, f in pattern.items()},
        "rank_pattern_": pattern,
        "schedule_": schedule,
        "total_step_": schedule.total_step,
        "history_": history,
        "n_iter_": history.epochs,
        "fit_report_": report,
    }


def with_plain_records(state: dict[str, Any]) -> dict[str, Any]:
    """Turn the records among an estimator's attributes into dicts."""
    plain = {n: dict(vars(state[n])) for n in _PICKLED_RECORDS if n in state}
    if "_targets" in state:
        plain["_targets"] = state["_targets"].to_state()
    return state | plain


def with_records(state: dict[str, Any]) -> dict[str, Any]:
    """Undo :func:`with_plain_records`, for attributes that come from a file.

    Refuse those that no fit leaves so: not each file of skops can be trusted.
    """
    if "_adapter" in state:
        _check(isinstance(state["_adapter"], dict), "_adapter", state["_adapter"])
        check_format(state["_adapter"])
    records: dict[str, Any] = {}
    for name, kind in _PICKLED_RECORDS.items():
        if name in state:
            hints, values = get_type_hints(kind), state[name]
            sound = isinstance(values, dict) and values.keys() == hints.keys()
            sound = sound and all(fits(v, hints[n]) for n, v in values.items())
            _check(sound, name, values)
            records[name] = kind(**values)
    if "_targets" in state:
        try:
            records["_targets"] = from_state(state["_targets"])
            sound = records["_targets"].is_sound()
        except (AttributeError, KeyError, TypeError, ValueError):
            sound = False
        _check(sound, "_targets", state["_targets"])
    if "n_features_in_" in state:
        _check(are_sound(state), "n_features_in_", state["n_features_in_"])
    if "_adapter" in state:
        _check_adapter(records["_adapter"])
        n_outputs, targets = records["_adapter"].n_outputs, records.get("_targets")
        alike = targets is None or targets.n_outputs == n_outputs
        _check(alike, "_targets", state.get("_targets"))
    return state | records


def _check(sound: bool, name: str, got: Any) -> None:
    if not sound:
        raise ValueError(
            f"`{name}` of an estimator must be what a fit leaves. Got "
            f"{reprlib.repr(got)}. The file is broken, or was changed: copy it again."
        )


def _check_adapter(state: AdapterState) -> None:
    """Refuse arrays that do not belong together, or are not finite."""
    for name, array in state.arrays.items():
        sound = array.dtype == np.float32 and bool(np.isfinite(array).all())
        _check(sound, f"_adapter.arrays[{name!r:.80}]", array)
    adapter, head = state.tensors()
    config = _config_of(state)
    check_ranks(config, adapter)
    if state.pooling != "model":
        shapes = {name: value.shape for name, value in head.items()}
        n_outputs, width = state.n_outputs, state.width
        sound = shapes == {"weight": (n_outputs, width), "bias": (n_outputs,)}
        _check(sound, "_adapter", shapes)
    _check(state.pooling in (*POOLINGS, "model"), "_adapter", state.pooling)


def _config_of(state: AdapterState) -> AdaLoraConfig:
    """Return the configuration of a network that predicts.

    The arrays say which layers are adapted: a pattern of a file may never end.
    """
    adapter, _ = state.tensors()
    paths = "|".join(map(re.escape, ranks_of(adapter)))
    values = {**state.config, **dict.fromkeys(CHOOSING), "target_modules": paths}
    try:
        return AdaLoraConfig.from_dict({**values, "inference_mode": True})
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(
            "`_adapter` of an estimator must be what a fit leaves. Got a configuration "
            f"with which it raised: {error}. The file is broken: copy it again."
        ) from error


def collect_state(network: TextNetwork, backbone: Backbone, model: str) -> AdapterState:
    """Copy what was trained to the CPU; pruned triplets are left out.

    While the ranks still fall, the copy has the present ones. `model` is what the user
    called the backbone.
    """
    encoder = network.encoder
    config = encoder.peft_config.to_dict()
    config["rank_pattern"] = rank_pattern(encoder.ranks, config["init_r"])
    adapter = living(encoder.state_dict(), encoder)
    return AdapterState(
        config=config,
        arrays=joined(adapter, network.head_state()),
        n_outputs=network.n_outputs,
        pooling=network.pooling,
        model=model,
        found_in=str(backbone.folder),
        content_hash=backbone.content_hash,
        tokenizer_hash=backbone.tokenizer_hash,
        is_folder=names_folder(model),
        feature_length=getattr(network.head, "length", None),
        commit=commit_of(backbone.folder),
        settings=backbone.settings,
    )


def joined(
    adapter: Mapping[str, Tensor], head: Mapping[str, Tensor]
) -> dict[str, np.ndarray]:
    """Copy tensors into one dict of arrays: the inverse of `AdapterState.tensors`."""
    named = {**adapter, **{_HEAD + name: value for name, value in head.items()}}
    return {n: t.detach().float().cpu().numpy().copy() for n, t in named.items()}


def rebuild_network(state: AdapterState, backbone: Backbone) -> TextNetwork:
    """Build the network that predicts; refuse a backbone other than that of the fit."""
    check_backbone(state, backbone)
    warn_other_versions(state.versions)
    network = build_network(
        backbone, _config_of(state), state.n_outputs, state.pooling, torch.Generator()
    )
    adapter, head = state.tensors()
    for name, value in network.head_state().items():
        if value.shape != head[name].shape:
            raise ValueError(
                f"The head's {name} must have shape {tuple(value.shape)}. Got "
                f"{tuple(head[name].shape)}. Check that it belongs to this model."
            )
    network.encoder.load_state_dict(adapter)
    network.load_head_state(head)
    return network.requires_grad_(False).eval()


def continue_from(
    state: AdapterState, network: TextNetwork, backbone: Backbone
) -> None:
    """Initialise a new network, in place, with what an earlier fit learned.

    In each layer, the triplets that survived come first. The others are newly
    initialised, with singular value 0, so that outputs are those of the earlier fit.
    Refuse another model, other adapted layers or outputs, and too low a rank.
    """
    check_backbone(state, backbone, "set warm_start=False to start anew")
    if state.pooling != network.pooling:
        raise ValueError(
            f"With warm_start=True `pooling` must be that of the fit before: "
            f"{state.pooling!r}. Got {network.pooling!r}. Change it back, or set "
            "warm_start=False to start anew."
        )
    new = network.encoder.state_dict()
    old, head = state.tensors()
    new_head = network.head_state()
    same_head = all(head[name].shape == new_head[name].shape for name in new_head)
    if set(new) != set(old) or not same_head:
        raise ValueError(
            "With warm_start=True the adapted layers and the number of outputs must "
            "be those of the fit before. Got others. Change `target_modules` or `y` "
            "back, or set warm_start=False to start anew."
        )
    before = AdaLoraConfig.from_dict(state.config)
    scale = before.scale / network.encoder.peft_config.scale
    with torch.no_grad():
        for name, value in old.items():
            scaled = value * scale if name.endswith("lora_E") else value
            _part_for(value, new[name], name).copy_(scaled)
    network.encoder.load_state_dict(new)
    network.load_head_state(head)


def _part_for(old: Tensor, new: Tensor, name: str) -> Tensor:
    """Return the part of a new tensor that one of an earlier fit takes."""
    if old.shape == new.shape:
        return new
    axis = 1 if name.endswith("lora_B") else 0
    rank, room = old.shape[axis], new.shape[axis]
    if rank > room:
        raise ValueError(
            "With warm_start=True `init_r` must be at least the largest rank of the "
            f"fit before. Got init_r={room} and rank {rank} in {name!r}. Raise "
            "`init_r`."
        )
    return new.narrow(axis, 0, rank)


def check_backbone(
    state: AdapterState, backbone: Backbone, instead: str = "fit again"
) -> None:
    """Refuse a pretrained model other than the one of training.

    Its former files are one way out, `instead` is the other.
    """
    check_files(
        state, backbone.folder, backbone.content_hash, backbone.settings, instead
    )
    if state.tokenizer_hash != backbone.tokenizer_hash:
        raise ValueError(
            "The tokenizer must make the tokens of texts that it made when the "
            f"estimator was trained on {state.model!r}. Got one in "
            f"{str(backbone.folder)!r} that makes others. Put its former files back, "
            f"or {instead}."
        )


def check_files(
    state: AdapterState,
    folder: Path,
    content_hash: str,
    settings: dict[str, Any],
    instead: str = "fit again",
) -> None:
    """Refuse other weights and settings than those of training, also unread ones."""
    if state.content_hash != content_hash:
        raise ValueError(
            "The pretrained model must be the one that the estimator was trained "
            f"on: {state.model!r}, found then in {state.found_in!r} with SHA-256 "
            f"{state.content_hash}. Got {str(folder)!r} with SHA-256 "
            f"{content_hash}. Point `model` to the former, or {instead}."
        )
    changed = changed_settings(state.settings, settings)
    if changed:
        raise ValueError(
            "The config.json of the pretrained model must say what it said when the "
            f"estimator was trained on {state.model!r}. Got {str(folder)!r} "
            f"with {_listed(changed)}. Put its former files back, or {instead}."
        )


def _listed(changed: dict[str, str]) -> str:
    """Write the first entries for an error message."""
    entries = [f"{name[:80]}: {how}" for name, how in changed.items()]
    if len(entries) > _MOST_LISTED:
        entries[_MOST_LISTED:] = [f"{len(entries) - _MOST_LISTED} more"]
    return ", ".join(entries)
