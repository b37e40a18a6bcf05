"""The steps of a fit, in the order in which `BaseAdaLora.fit` takes them."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
from sklearn.metrics import check_scoring
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples
from torch import Tensor

from sk_adalora.adalora.layer_matching import check_all_match, linear_layers
from sk_adalora.data.rows import (
    TrainingRows,
    UnreadTexts,
    check_targets,
    check_validation_rows,
    count_rows,
    draw_rows,
    read_at_once,
    read_sample_weight,
    split_rows,
    take_rows,
    weights_tensor,
)
from sk_adalora.data.targets import Labels, Targets
from sk_adalora.data.texts import Texts
from sk_adalora.files.checkpoint import WHOLE, Checkpoint, parts_of_fit, stored_seed
from sk_adalora.files.state import (
    FITTED_ATTRIBUTES,
    collect_state,
    continue_from,
    fitted_attributes,
    rebuild_network,
)
from sk_adalora.network.network import TextNetwork, build_network
from sk_adalora.pretrained.backbone import Backbone
from sk_adalora.pretrained.find import commit_of
from sk_adalora.runtime.devices import (
    Compute,
    resolve_compute,
    warn_of_emulation,
    warn_of_sharing,
)
from sk_adalora.runtime.digest import digest, is_compared
from sk_adalora.runtime.messages import announce, write_lines
from sk_adalora.runtime.ranks import ranks_now
from sk_adalora.runtime.transaction import CALLBACKS
from sk_adalora.tokens.long_texts import (
    Windows,
    encode_for_both,
    encode_for_training,
)
from sk_adalora.tokens.table import TokenTable
from sk_adalora.training.advice import (
    warn_of_model,
    warn_of_processes,
    warn_of_rows,
    warn_of_texts,
)
from sk_adalora.training.epochs import Interpolation, ScoreWatcher, one_number
from sk_adalora.training.loop import Examples, Recipe, TrainingHistory, TrainingRun
from sk_adalora.training.rank_table import headline, lay_out
from sk_adalora.training.report import FitReport, make_report
from sk_adalora.training.schedule_steps import ResolvedSchedule, resolve_schedule
from sk_adalora.training.start_head import centre_head, continue_head, fit_head
from sk_adalora.training.time_limit import TimeLimit

from .predicting import (
    Predictor,
    check_tokens,
    compute_rows,
    most_tokens,
    read_inputs,
)

# Default learning rate of a head that starts at a linear probe. The studies behind this
# and the next two are in benchmarks/DEFAULTS.md.
_FITTED_HEAD_RATE = 1e-3
# `interpolation="auto"` after a training of more than _FEW_EPOCHS epochs over at most
# _FEW_ROWS rows, if the network predicted sensibly at its start. Otherwise it keeps
# the trained network as it is.
_INTERPOLATION = 0.85
_FEW_EPOCHS, _FEW_ROWS = 3, 1000
# Rows that a fitted network must have outputs for.
_TRIED = 8
# Folds that a classifier is calibrated on, where no rows are held out.
N_FOLDS = 3
_Value = TypeVar("_Value")


# ---- read the rows ----------------------------------------------------------


def change_on_first(
    estimator: Any,
    function: Callable[[], _Value],
    sent: Callable[[_Value], Any] | None = None,
) -> _Value:
    """Call a function on rank 0; set the attributes that it changes on all ranks.

    Return its value, or elsewhere what is `sent` of it.
    """
    ranks, before = ranks_now(), dict(vars(estimator))

    def changes(value: _Value) -> tuple[Any, dict[str, Any], set[str]]:
        now = vars(estimator)
        new = {n: v for n, v in now.items() if n not in before or v is not before[n]}
        of_callbacks = {name: new.pop(name) for name in CALLBACKS if name in new}
        gone = before.keys() - now.keys() - of_callbacks.keys()
        return (value if sent is None else sent(value)), new, set(gone)

    told: Any = ranks.from_first(function, changes)
    if ranks.is_first:
        return told
    value, new, gone = told
    vars(estimator).update(new)
    for name in gone:
        vars(estimator).pop(name, None)
    return value


def check_alike(estimator: Any, X: Any, y: Any) -> None:
    """Refuse other parameters or other rows than on rank 0.

    Rows may be None elsewhere, as rank 0 reads them for all.
    """
    ranks = ranks_now()
    if ranks.count == 1:
        return
    if estimator.get_params(deep=False).get("max_time") is not None:
        raise ValueError(
            "`max_time` must be None on several ranks, which share one plan of steps. "
            f"Got {estimator.max_time}. Set `max_steps`, or data_parallel=False."
        )

    def describe() -> dict[str, str]:
        given = estimator.get_params(deep=False)
        told = {
            f"`{name}`": digest(value)
            for name, value in given.items()
            if is_compared(name) and name != "random_state"
        }
        if continues(estimator):
            told["the earlier fit"] = joblib.hash(estimator._adapter.arrays)
        if X is not None:
            told["the number of rows of X"] = str(_num_samples(X))
            told["y"] = digest(read_at_once(y))
        return told

    first, *others = ranks.gather(describe)
    for rank, here in enumerate(others, start=1):
        differing = [name for name in here if here[name] != first.get(name)]
        if differing:
            raise ValueError(
                "A fit on several ranks must be called alike on each, with all rows: "
                "it shares them out itself. Got other values on rank "
                f"{rank} than on rank 0 of {', '.join(differing)}. Pass the same "
                "everywhere, or set data_parallel=False to fit each rank by itself."
            )


def read_rows(
    estimator: Any, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any
) -> tuple[TrainingRows, tuple[Any, Any] | None, torch.Generator]:
    """Check and read what the user gave, before anything is loaded.

    On several ranks, the first reads for all, and validates.

    Returns
    -------
    rows : TrainingRows
        The rows to train on: without those of weight 0 and those to validate on.
    held_out : tuple of X and y, or None
        The rows to validate on, with early stopping.
    generator : torch.Generator
        The randomness of the fit.
    """
    check_alike(estimator, X, y)
    rows, held_out, generator = change_on_first(
        estimator,
        lambda: _read_rows(estimator, X, y, sample_weight, X_val, y_val),
        lambda read: (read[0].without_texts(), None, read[2].get_state()),
    )
    if isinstance(generator, Tensor):
        generator = torch.Generator().set_state(generator)
    return rows, held_out, generator


def _read_rows(
    estimator: Any, X: Any, y: Any, sample_weight: Any, X_val: Any, y_val: Any
) -> tuple[TrainingRows, tuple[Any, Any] | None, torch.Generator]:
    before: Targets | None = estimator._targets if continues(estimator) else None
    rows, targets = read_all_rows(estimator, X, y, sample_weight, before)
    _check_validation_rows(estimator, X_val, y_val, targets)
    # Only now: bad rows must not move a generator of the user's on.
    generator = make_generator(estimator)
    used = rows.weighted()
    held_out = None
    if before is None:  # rows that an earlier fit set apart do not matter
        vars(estimator).pop("_validation_seed", None)
    if estimator.early_stopping:
        held_out = (X_val, read_at_once(y_val))
        if X_val is None:
            used, held = _split(estimator, used, y, targets, generator)
            read = rows_of_steps(estimator, estimator.max_steps) / len(used)
            held = held[: math.ceil(min(1.0, read) * len(held))]
            held_out = (take_rows(X, held), take_rows(read_at_once(y), held))
    coded = rows.targets
    size = rows_of_steps(estimator, estimator.max_steps)
    used = draw_of_rows(used, coded, targets, generator, size)
    rows = rows.take(used)
    if estimator.max_time is None:  # else, how many are read is still to be measured
        rows = read_drawn(rows, y, targets, coded)
    own_head = estimator.pooling == "model"
    targets, coded = targets.encode(rows.targets, rows.weights, before, own_head)
    _check_calibration(estimator, targets, len(coded))
    if before is not None:
        factors = targets.output_factors(before)
        if factors is not None:
            estimator._adapter = estimator._adapter.with_scaled_outputs(factors)
    set_targets(estimator, targets)
    return replace(rows, targets=coded), held_out, generator


def set_targets(estimator: Any, targets: Targets) -> None:
    """Set what a fit predicts, and the attributes that tell of it."""
    for name in ("classes_", "temperature_", "thresholds_"):
        vars(estimator).pop(name, None)
    vars(estimator).update(_targets=targets, **targets.attributes)


def calibrates(estimator: Any) -> bool:
    """Tell whether rows that were not learned from fit probabilities or decisions."""
    return bool(
        getattr(estimator, "calibrate", None) or getattr(estimator, "thresholds", None)
    )


def cross_fits(estimator: Any) -> bool:
    """Tell whether these rows are of folds: then each fold takes a fit of its own."""
    return calibrates(estimator) and not estimator.early_stopping


def count_fits(estimator: Any) -> float:
    """Return how many fits to all rows a fit takes: those of folds are one less."""
    return float(N_FOLDS) if cross_fits(estimator) else 1.0


def _check_calibration(estimator: Any, targets: Targets, n_rows: int) -> None:
    """Refuse thresholds of what is no yes or no, and fewer rows than folds."""
    if getattr(estimator, "thresholds", None) and not isinstance(targets, Labels):
        raise ValueError(
            "`thresholds` needs an indicator matrix as `y`, with a column for each "
            f"label. Got {targets.problem_type.replace('_', ' ')}. Set it to None; for "
            "two classes, sklearn.model_selection.TunedThresholdClassifierCV finds a "
            "threshold."
        )
    if cross_fits(estimator) and n_rows < N_FOLDS:
        raise ValueError(
            f"`calibrate` and `thresholds` need at least {N_FOLDS} rows, one for each "
            f"fold. Got {n_rows}. Pass more rows, or set both to None."
        )


def rows_of_steps(estimator: Any, max_steps: int | None) -> float:
    """Return how many rows so many steps read; infinity without a bound."""
    if max_steps is None:
        return math.inf
    batch = int(estimator.batch_size) * int(estimator.gradient_accumulation_steps)
    return int(max_steps) * batch


def draw_of_rows(
    used: np.ndarray,
    coded: Tensor,
    targets: Targets,
    generator: torch.Generator,
    size: float,
) -> np.ndarray:
    """Draw so many of the rows that are used, if there are more."""
    if size >= len(used):
        return used
    seed = int(torch.randint(2**31 - 1, (), generator=generator))

    def first_of_each(rows: np.ndarray) -> np.ndarray:
        return targets.first_of_each(coded[torch.from_numpy(rows)])

    return draw_rows(used, int(size), first_of_each, seed)


def read_drawn(
    rows: TrainingRows, y: Any, targets: Targets, coded: Tensor
) -> TrainingRows:
    """Read the texts of rows that were drawn; `coded` are the targets of all rows."""
    unread = rows.texts
    if isinstance(unread, Texts):
        return rows
    X, texts = unread.read()
    warn_of_rows(X, take_rows(read_at_once(y), unread.rows), texts, targets, coded)
    return replace(rows, texts=texts)


def continues(estimator: Any) -> bool:
    """Tell whether the fit continues an earlier one, by `warm_start`."""
    return bool(getattr(estimator, "warm_start", False)) and hasattr(
        estimator, "_adapter"
    )


def read_all_rows(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    before: Targets | None = None,
    *,
    all_texts: bool = False,
) -> tuple[TrainingRows, Targets]:
    """Read all rows; their targets are not yet in the form that is trained on.

    Unless `all_texts` are wanted, they are left unread where rows will be drawn.
    """
    texts: Texts | UnreadTexts
    n_rows = count_rows(X)
    draws = n_rows > rows_of_steps(estimator, estimator.max_steps)
    if (draws or (estimator.max_time and n_rows)) and not all_texts:
        read = partial(read_inputs, estimator, reset=True)
        texts = UnreadTexts(X, read, np.arange(n_rows))
    else:
        texts = read_inputs(estimator, X, reset=True)
    check_targets(y, len(texts), estimator)
    weight = read_sample_weight(read_at_once(sample_weight), len(texts))
    y = read_at_once(y)
    targets, coded = estimator._read_targets(y)
    if isinstance(texts, Texts):
        warn_of_rows(X, y, texts, targets, coded)
    if before is not None:
        targets.check_continues(before)
    class_weight = getattr(estimator, "class_weight", None)  # a regressor has none
    weights = weights_tensor(targets.row_weights(coded, weight, class_weight))
    return TrainingRows(texts, coded, weights, len(texts)), targets


def _check_validation_rows(
    estimator: Any, X_val: Any, y_val: Any, targets: Targets
) -> None:
    """Refuse validation rows that do not match the training rows."""
    check_validation_rows(X_val, y_val, estimator.early_stopping)
    if X_val is None:
        return
    try:
        n_rows = len(read_inputs(estimator, X_val, reset=False))
    except (TypeError, ValueError) as error:
        error.add_note("X is `X_val` here.")
        raise
    check_targets(y_val, n_rows, estimator, ("X_val", "y_val"))
    targets.check_validation(read_at_once(y_val))


def _split(
    estimator: Any,
    used: np.ndarray,
    y: Any,
    targets: Targets,
    generator: torch.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the rows to train on and those to validate on.

    A fit that continues another one keeps its seed: the same rows in the same order
    are split alike, so that no validation row was trained on before.
    """
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    seed = vars(estimator).setdefault("_validation_seed", seed)
    classes = targets.stratify(read_at_once(y))
    kept, held = split_rows(
        len(used),
        float(estimator.validation_fraction),
        None if classes is None else take_rows(classes, used),
        seed,
    )
    return used[kept], used[held]


def make_generator(estimator: Any) -> torch.Generator:
    """Make torch's generator from scikit-learn's `random_state`.

    Where none is given, a fit that was killed goes on from the seed that it drew.
    """
    seed, given = None, estimator.random_state
    if not isinstance(given, int | np.integer):
        seed = stored_seed(estimator.checkpoint_dir)
    if seed is None:
        seed = check_random_state(given).randint(2**31 - 1)
    return torch.Generator().manual_seed(int(seed))


# ---- plan, tokenise, adapt --------------------------------------------------


def plan_schedule(
    estimator: Any, n_samples: int, max_steps: int | None = None
) -> ResolvedSchedule:
    """Turn shares, None and "auto" into ranks and steps, at most so many."""
    bounds = [n for n in (max_steps, estimator.max_steps) if n is not None]
    return resolve_schedule(
        n_samples,
        batch_size=estimator.batch_size,
        epochs=estimator.epochs,
        max_steps=min(bounds, default=None),
        enough_steps=estimator._targets.enough_steps,
        n_classes=estimator._targets.n_classes,
        gradient_accumulation_steps=estimator.gradient_accumulation_steps,
        init_r=estimator.init_r,
        target_r=estimator.target_r,
        tinit=estimator.tinit,
        tfinal=estimator.tfinal,
        deltaT=estimator.deltaT,
    )


@dataclass(frozen=True)
class FitPlan:
    """The rows and the steps of a fit.

    Parameters
    ----------
    rows : TrainingRows
        The rows to train on.
    schedule : ResolvedSchedule
        The steps.
    held_out : tuple of X and y, or None
        The rows to validate on.
    own_held : bool
        Whether these are a part of X.
    limit : TimeLimit or None
        Plans the steps anew, with `max_time`.
    clock : Clock or None
        The time that is left then to further fits.
    """

    rows: TrainingRows
    schedule: ResolvedSchedule
    held_out: tuple[Any, Any] | None = None
    own_held: bool = True
    limit: TimeLimit | None = None
    clock: Any = None

    def without_texts(self) -> FitPlan:
        """Return the plan without the texts, which may be a copy of all of X."""
        return replace(self, rows=self.rows.without_texts())


def plan_fit(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any = None,
    X_val: Any = None,
    y_val: Any = None,
) -> tuple[FitPlan, torch.Generator]:
    """Read what the user gave, and plan the steps; return the fit's randomness too."""
    rows, held_out, rng = read_rows(estimator, X, y, sample_weight, X_val, y_val)
    schedule = plan_schedule(estimator, len(rows.targets))
    return FitPlan(rows, schedule, held_out, own_held=X_val is None), rng


def choose_compute(estimator: Any) -> Compute:
    """Choose what to compute with, and warn where that is slow."""
    compute = resolve_compute(estimator.device, estimator.precision)
    warn_of_sharing(compute)
    warn_of_emulation(compute)
    warn_of_processes()
    return compute


def tokenize(
    estimator: Any, texts: Texts, backbone: Backbone
) -> tuple[TokenTable, Windows | None]:
    """Cut the texts into tokens of the model's; the first of several ranks does.

    Where fits to folds will predict them, return what the model is given then, too.
    """
    if cross_fits(estimator):
        return tokenize_for_both(estimator, texts, backbone)

    def encode() -> TokenTable:
        announce(estimator.verbose, f"tokenizing {len(texts):,} texts ...")
        most = most_tokens(estimator.max_length, backbone)
        long_text = estimator.long_text
        tokens = encode_for_training(texts, backbone.tokenizer, most, long_text)
        _check_tokenized(estimator, texts, tokens, backbone)
        return tokens

    return ranks_now().from_first(encode), None


def tokenize_for_both(
    estimator: Any, texts: Texts, backbone: Backbone
) -> tuple[TokenTable, Windows]:
    """Cut the texts into tokens to train on and to predict, once."""

    def encode() -> tuple[TokenTable, Windows]:
        announce(estimator.verbose, f"tokenizing {len(texts):,} texts ...")
        most = most_tokens(estimator.max_length, backbone)
        tokenizer, long_text = backbone.tokenizer, estimator.long_text
        tokens, windows = encode_for_both(texts, tokenizer, most, long_text)
        _check_tokenized(estimator, texts, tokens, backbone)
        return tokens, windows

    return ranks_now().from_first(encode)


def _check_tokenized(
    estimator: Any, texts: Texts, tokens: TokenTable, backbone: Backbone
) -> None:
    check_tokens(tokens, backbone, os.fspath(estimator.model))
    warn_of_texts(
        texts,
        tokens,
        estimator.long_text,
        estimator.row_format,
        estimator._for_tables,
    )


def adapt(
    estimator: Any,
    backbone: Backbone,
    schedule: ResolvedSchedule,
    generator: torch.Generator,
) -> TextNetwork:
    """Build the network of :func:`build_adapted`, and warn of what it is built of."""
    _check_rank(estimator, backbone, schedule)
    model, pooling = os.fspath(estimator.model), estimator.pooling
    ranks_now().on_first(lambda: warn_of_model(model, backbone, pooling))
    return build_adapted(estimator, backbone, schedule, generator)


def _check_rank(estimator: Any, backbone: Backbone, schedule: ResolvedSchedule) -> None:
    """Refuse ranks above all widths: they would only fill the memory."""
    layers: list[Any] = [*linear_layers(backbone.module).values()]
    shapes = [
        (each.in_features, each.out_features)
        if isinstance(each, torch.nn.Linear)
        else each.weight.shape
        for each in layers
    ]
    widest = max(map(min, shapes), default=math.inf)
    # At the start, ranks are half as large again by default.
    most = {"target_r": widest, "init_r": 1.5 * widest}
    for name, limit in most.items():
        if (got := getattr(schedule, name)) > limit:
            raise ValueError(
                f"`{name}` must be at most {int(limit)}, since the widest layer of "
                f"{os.fspath(estimator.model)!r} has a rank of {widest}. Got {got}. "
                "Lower it."
            )


def build_adapted(
    estimator: Any,
    backbone: Backbone,
    schedule: ResolvedSchedule,
    generator: torch.Generator,
) -> TextNetwork:
    """Build the network: a copy of the backbone, adapted, with a head."""
    modules = estimator.target_modules
    if not isinstance(modules, str):
        modules = list(modules)
        check_all_match(modules, backbone.module)
    own_head = estimator.pooling == "model"
    config = schedule.config(
        beta1=estimator.beta1,
        beta2=estimator.beta2,
        orth_reg_weight=estimator.orth_reg_weight,
        lora_alpha=estimator.lora_alpha or schedule.init_r,
        lora_dropout=estimator.lora_dropout,
        target_modules=modules,
        task_type="SEQ_CLS" if own_head else "FEATURE_EXTRACTION",
        base_model_name_or_path=os.fspath(estimator.model),
        revision=commit_of(backbone.folder)
        or (estimator.model_kwargs or {}).get("revision"),
    )
    n_outputs = estimator._targets.n_outputs
    network = build_network(backbone, config, n_outputs, estimator.pooling, generator)
    if continues(estimator):
        continue_from(estimator._adapter, network, backbone)
    return network


# ---- train ------------------------------------------------------------------


def prepare_run(
    estimator: Any,
    network: TextNetwork,
    tokens: TokenTable,
    plan: FitPlan,
    compute: Compute,
    frozen: dict[int, Tensor] | None = None,
) -> TrainingRun:
    """Put together what is trained, on what, and how.

    Fits that share a table of tokens may share the `frozen` vectors of its texts.
    """
    loss, rows = estimator._targets.loss, plan.rows
    examples = Examples(tokens, rows.targets, rows.weights, loss)
    recipe = _make_recipe(estimator, plan.schedule)
    frozen = {} if frozen is None else frozen
    run = TrainingRun(network, examples, recipe, compute, frozen, plan.limit)
    run.schedule = plan.schedule
    return run


def _make_recipe(estimator: Any, schedule: ResolvedSchedule) -> Recipe:
    """Collect how to train, in Python's numbers: NumPy's may be of few digits."""
    rate = float(estimator.learning_rate)
    own_rate = _FITTED_HEAD_RATE if _fits_head_first(estimator) else rate
    return Recipe(
        epochs=schedule.epochs,
        batch_size=int(estimator.batch_size),
        accumulation=int(estimator.gradient_accumulation_steps),
        total_step=schedule.total_step,
        learning_rate=rate,
        head_learning_rate=float(estimator.head_learning_rate or own_rate),
        weight_decay=float(estimator.weight_decay),
        warmup_ratio=float(estimator.warmup_ratio),
        lr_scheduler_type=estimator.lr_scheduler_type,
        max_grad_norm=estimator.max_grad_norm,
    )


def open_checkpoint(
    estimator: Any,
    folder: Path | None,
    run: TrainingRun,
    backbone: Backbone,
    generator: torch.Generator,
    held_out: tuple[Any, Any] | None = None,
    name: str = WHOLE,
) -> Checkpoint:
    """Read the checkpoint of a training that was killed, if there is one."""
    every, verbose = estimator.checkpoint_every, estimator.verbose
    checkpoint = Checkpoint(folder, name, every, verbose)

    def read() -> tuple[dict[str, Any], dict[str, Tensor]]:
        if folder is not None:
            parts = parts_of_fit(
                estimator,
                run,
                held_out=held_out,
                before=estimator._adapter if continues(estimator) else None,
                model=backbone.content_hash,
                seed=generator.initial_seed(),
            )
            checkpoint.open(parts)
        return checkpoint.described, checkpoint.tensors

    checkpoint.described, checkpoint.tensors = run.ranks.from_first(read)
    return checkpoint


def start_training(
    estimator: Any,
    run: TrainingRun,
    generator: torch.Generator,
    saved: Checkpoint,
    watcher: ScoreWatcher | None = None,
) -> Interpolation:
    """Bring the network to where its training begins, or goes on from a checkpoint.

    Returns what keeps a point between the start and the end.
    """
    if not saved.found:
        if run.ranks.is_first:
            announce(estimator.verbose, "starting the head on the frozen model ...")
        start_head(estimator, run, generator)
        _start_alike(run)
    interpolation = _choose_interpolation(estimator, run)
    saved.restore(run, generator, interpolation, watcher)
    return interpolation


def _start_alike(run: TrainingRun) -> None:
    """Start on all ranks from the numbers of the first: others may round otherwise."""
    if run.ranks.count == 1:
        return
    head = run.network.head
    scale = getattr(head, "centre", None), getattr(head, "length", None)
    parameters = [parameter.detach().cpu() for parameter in run.parameters]
    (centre, length), parameters = run.ranks.from_first(lambda: (scale, parameters))
    if centre is not None and length is not None:
        head.set_scale(centre, length)
    with torch.no_grad():
        for parameter, value in zip(run.parameters, parameters, strict=True):
            parameter.copy_(value)


def start_head(estimator: Any, run: TrainingRun, generator: torch.Generator) -> None:
    """Initialise the head: from the fit before, by a linear probe, or at random."""
    if estimator.pooling == "model":
        return
    if continues(estimator):
        length = estimator._adapter.feature_length
        assert length is not None, "only the model's own head has none"
        continue_head(run, generator, length)
    elif _fits_head_first(estimator):
        fit_head(run, generator)
    else:
        centre_head(run)


def _fits_head_first(estimator: Any) -> bool:
    """Tell whether a new head is fitted to the frozen features before training."""
    start = estimator.head_init
    if start == "auto":
        start = estimator._targets.head_init
    return start == "linear_probe" and estimator.pooling != "model"


def _choose_interpolation(estimator: Any, run: TrainingRun) -> Interpolation:
    """Return what keeps a point between the network of now and the trained one.

    It remembers the head as it is now.
    """
    if continues(estimator):  # interpolation needs updates that start at 0
        share = 1.0
    elif estimator.interpolation != "auto":
        share = float(estimator.interpolation)
    else:
        few_rows = len(run.examples.tokens) <= _FEW_ROWS
        memorises = few_rows and run.recipe.epochs > _FEW_EPOCHS
        # It pays only if the network predicts before training, at least the mean.
        random_predicts = estimator._targets.random_head_predicts
        predicts = estimator.pooling != "model" and (
            random_predicts or _fits_head_first(estimator)
        )
        share = _INTERPOLATION if memorises and predicts else 1.0
    return Interpolation(run.network, share)


def watch_score(
    estimator: Any, held_out: tuple[Any, Any] | None, predictor: Predictor
) -> ScoreWatcher | None:
    """Return what scores the network on the validation rows, if there are any."""
    return ranks_now().on_first(lambda: _watch_score(estimator, held_out, predictor))


def _watch_score(
    estimator: Any, held_out: tuple[Any, Any] | None, predictor: Predictor
) -> ScoreWatcher | None:
    if held_out is None:
        return None
    scorer = check_scoring(estimator, scoring=estimator.scoring)
    X, y = held_out[0], estimator._targets.to_score(held_out[1])
    view = without_fit(estimator)
    if isinstance(estimator.scoring, str):  # else it would fail only after an epoch
        _try_scorer(scorer, view, X, y)
    view._predictor = predictor  # the one fitted attribute that predictions need
    return ScoreWatcher(
        lambda: one_number(scorer(view, X, y)), estimator.n_iter_no_change
    )


def without_fit(estimator: Any) -> Any:
    """Return a copy without what a fit has trained."""
    view = copy.copy(estimator)
    for name in FITTED_ATTRIBUTES & vars(view).keys():
        delattr(view, name)
    return view


def _try_scorer(scorer: Callable[..., Any], view: Any, X: Any, y: Any) -> None:
    """Refuse a score that fails on these rows, by a trial on made-up outputs."""
    pretender, outputs = copy.copy(view), view._targets.made_up_outputs(y)
    vars(pretender)["_predict_outputs"] = lambda X: outputs
    try:
        if math.isnan(one_number(scorer(pretender, X, y))):
            raise ValueError("it is NaN")
    except (AttributeError, TypeError, ValueError) as error:
        reason = str(error).rstrip(".")
        # A method that the estimator lacks, it lacks on other rows too.
        of_rows = not isinstance(error, AttributeError)
        instead = ", or pass `X_val` and `y_val` on which it works"
        raise ValueError(
            "`scoring` must be defined for the validation rows. Got "
            f"{view.scoring!r}, which failed on them: {reason}. Choose another "
            f"score{instead if of_rows else ''}."
        ) from error


def report_later(
    run: TrainingRun, rows: TrainingRows, start: float
) -> Callable[[], FitReport]:
    """Return what makes the report when the fit ends, without a hold on the texts."""
    texts = rows.texts_read
    return partial(make_report, run, rows.n_given, texts.n_empty, texts.columns, start)


# ---- keep -------------------------------------------------------------------


def collect_fit(
    predictor: Predictor,
    run: TrainingRun,
    report: Callable[[], FitReport],
    history: TrainingHistory,
) -> dict[str, Any]:
    """Return the attributes of a fit that ends now, as plain arrays and records."""
    adapter = collect_state(predictor.network, predictor.backbone, predictor.model)
    return fitted_attributes(adapter, run.schedule, copy.deepcopy(history), report())


def keep(
    estimator: Any,
    predictor: Predictor,
    run: TrainingRun,
    fitted: Callable[[], dict[str, Any]],
) -> None:
    """Set the fitted attributes, and show the ranks where a bar was asked for.

    A network whose outputs are not finite is refused here: it would fail to predict.
    """
    vars(estimator).update(run.ranks.from_first(fitted))
    # Predict with the network that is also built after unpickling: predictions are
    # the same before and after, and the network in training can be freed.
    network = rebuild_network(estimator._adapter, predictor.backbone)
    estimator._predictor = replace(predictor, network=network)
    tokens = run.examples.tokens
    with torch.no_grad():
        compute_rows(estimator._predictor, tokens.take(range(len(tokens))[:_TRIED]))
    if estimator.verbose and run.ranks.is_first:
        ranks = estimator.ranks_
        title = headline(list(ranks.values()), estimator.schedule_.init_r)
        write_lines(f"{title}\n{lay_out(ranks).to_text()}")
        report = estimator.fit_report_
        if report.seen_share < 1:
            seen = round(report.seen_share * report.n_given)
            write_lines(f"trained on {seen:,} of {report.n_given:,} rows")
