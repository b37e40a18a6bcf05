"""A training, from inputs to fitted attributes: `train_on`, and its steps."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.metrics import check_scoring
from torch import Tensor

from sk_adalora.adalora.layer_matching import check_all_match
from sk_adalora.files.checkpoint import WHOLE, Checkpoint, parts_of_fit
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
from sk_adalora.runtime.messages import announce, write_lines
from sk_adalora.training.epochs import (
    EpochCallbacks,
    Interpolation,
    ScoreWatcher,
    Unwatched,
    one_number,
)
from sk_adalora.training.loop import Recipe, TrainingHistory, TrainingRun, train
from sk_adalora.training.rank_table import headline, lay_out
from sk_adalora.training.report import make_report
from sk_adalora.training.schedule_steps import ResolvedSchedule
from sk_adalora.training.start_head import centre_head, continue_head, fit_head

from .inputs import FitInputs, continues, plan_schedule
from .predicting import Predictor, compute_rows

# Learning rate of a head that starts at a linear probe, as a share of `learning_rate`.
# The studies behind this and the next two are in benchmarks/DEFAULTS.md.
_FITTED_HEAD_RATE = 1 / 8
# What is kept of the change by a training of more than _FEW_EPOCHS epochs over at most
# _FEW_ROWS rows, if the network predicted sensibly at its start. Otherwise it keeps
# the trained network as it is.
_INTERPOLATION = 0.85
_FEW_EPOCHS, _FEW_ROWS = 3, 1000
# Rows that a fitted network must have outputs for.
_TRIED = 8


@dataclass(frozen=True)
class Trained:
    """A training that has ended.

    Parameters
    ----------
    run : TrainingRun
        The training.
    predictor : Predictor
        What predicts with its network.
    history : TrainingHistory
        What happened.
    finish : callable
        Tells the callbacks that the fit ends.
    """

    run: TrainingRun
    predictor: Predictor
    history: TrainingHistory
    finish: Callable[[], None]


def train_on(
    estimator: Any,
    inputs: FitInputs,
    rows: np.ndarray,
    name: str = WHOLE,
    data: dict[str, Any] | None = None,
    start: float = 0.0,
) -> Trained:
    """Fine-tune on some of the rows.

    Parameters
    ----------
    estimator : estimator
        What is fitted; nothing of it changes.
    inputs : FitInputs
        All rows.
    rows : ndarray of shape (n_rows,)
        Positions of those to train on.
    name : str, default="fit"
        Of the checkpoint.
    data : dict or None, default=None
        What callbacks get of the data. None, for a fold: nobody watches.
    start : float, default=0.0
        When the fit began, by `time.perf_counter`.
    """
    generator, backbone = inputs.generator(), inputs.backbone
    schedule = plan_schedule(estimator, len(rows))
    limit = None
    if inputs.budget is not None:
        plan, part = partial(plan_schedule, estimator, len(rows)), len(rows)
        limit = inputs.budget.limit(plan, schedule.total_step, part / len(inputs.used))
    network = build_adapted(estimator, backbone, schedule, generator)
    run = TrainingRun(
        network,
        inputs.examples.take(rows),
        _make_recipe(estimator, schedule),
        backbone.compute,
        inputs.frozen,
        limit,
    )
    run.schedule = schedule
    predictor = inputs.predictor(estimator, network)
    saved = _open_checkpoint(estimator, inputs, run, name)
    watcher = None
    if data is not None:
        watcher = run.ranks.on_first(
            lambda: _watch_score(estimator, inputs.held_out, predictor)
        )
    interpolation = _start_training(estimator, run, generator, saved, watcher)
    hooks: Any = Unwatched()
    if data is not None:
        fitted = partial(collect_fit, predictor, run, inputs.reported, start)
        hooks = EpochCallbacks(estimator, data, run, fitted, interpolation, watcher)
    history = train(run, generator, verbose=estimator.verbose, hooks=hooks, saver=saved)
    interpolation.apply()
    if watcher is not None:  # states that it scored were interpolated already
        watcher.restore(network)
    return Trained(run, predictor, history, partial(hooks.finish, history))


def fit_whole(
    estimator: Any, inputs: FitInputs, data: dict[str, Any], start: float
) -> Trained:
    """Fine-tune on all rows that are used, and set the fitted attributes.

    A network whose outputs are not finite is refused here: it would fail to predict.
    """
    trained = train_on(estimator, inputs, inputs.used, data=data, start=start)
    run, predictor = trained.run, trained.predictor
    fitted = partial(
        collect_fit, predictor, run, inputs.reported, start, trained.history
    )
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
    return trained


def keep_untuned(estimator: Any, inputs: FitInputs, start: float) -> None:
    """Set the fitted attributes to those of the pretrained model: updates of rank 0."""
    schedule = ResolvedSchedule(1, 1, 0, 0, 1, 1, 1)
    network = build_adapted(estimator, inputs.backbone, schedule, inputs.generator())
    recipe, compute = _make_recipe(estimator, schedule), inputs.backbone.compute
    run = TrainingRun(network, inputs.examples.take(inputs.used), recipe, compute)
    report = make_report(run, **inputs.reported, start=start)
    report = replace(report, trainable_parameters=0)
    predictor = inputs.predictor(estimator, network)
    state = collect_state(network, inputs.backbone, predictor.model).without_updates()
    vars(estimator).update(
        run.ranks.from_first(
            lambda: fitted_attributes(state, schedule, TrainingHistory(), report)
        )
    )
    network = rebuild_network(state, inputs.backbone)
    estimator._predictor = replace(predictor, network=network)


def collect_fit(
    predictor: Predictor,
    run: TrainingRun,
    reported: dict[str, Any],
    start: float,
    history: TrainingHistory,
) -> dict[str, Any]:
    """Return the attributes of a fit that ends now, as plain arrays and records."""
    adapter = collect_state(predictor.network, predictor.backbone, predictor.model)
    report = make_report(run, **reported, start=start)
    return fitted_attributes(adapter, run.schedule, copy.deepcopy(history), report)


# ---- the steps of a training ----------------------------------------------------


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


def _make_recipe(estimator: Any, schedule: ResolvedSchedule) -> Recipe:
    """Collect how to train, in Python's numbers: NumPy's may be of few digits."""
    rate = float(estimator.learning_rate)
    share = _FITTED_HEAD_RATE if _fits_head_first(estimator) else 1.0
    return Recipe(
        epochs=schedule.epochs,
        batch_size=int(estimator.batch_size),
        total_step=schedule.total_step,
        learning_rate=rate,
        head_learning_rate=share * rate,
        warmup_ratio=float(estimator.warmup_ratio),
    )


def _open_checkpoint(
    estimator: Any, inputs: FitInputs, run: TrainingRun, name: str
) -> Checkpoint:
    """Read the checkpoint of a training that was killed, if there is one."""
    folder = inputs.folder
    checkpoint = Checkpoint(folder, name, estimator.verbose)

    def read() -> tuple[dict[str, Any], dict[str, Tensor]]:
        if folder is not None:
            parts = parts_of_fit(
                estimator,
                run,
                held_out=inputs.held_out if name == WHOLE else None,
                before=estimator._adapter if continues(estimator) else None,
                model=inputs.backbone.content_hash,
                seed=inputs.seed,
            )
            checkpoint.open(parts)
        return checkpoint.described, checkpoint.tensors

    checkpoint.described, checkpoint.tensors = run.ranks.from_first(read)
    return checkpoint


def _start_training(
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
        _start_head(estimator, run, generator)
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


def _start_head(estimator: Any, run: TrainingRun, generator: torch.Generator) -> None:
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
    probed = estimator._targets.head_init == "linear_probe"
    return probed and estimator.pooling != "model"


def _choose_interpolation(estimator: Any, run: TrainingRun) -> Interpolation:
    """Return what keeps a point between the network of now and the trained one.

    It remembers the head as it is now.
    """
    few_rows = len(run.examples.tokens) <= _FEW_ROWS
    memorises = few_rows and run.recipe.epochs > _FEW_EPOCHS
    # It pays only if the network predicts before training, at least the mean. And it
    # needs updates that start at 0.
    targets = estimator._targets
    predicts = targets.random_head_predicts or targets.head_init == "linear_probe"
    pays = memorises and predicts and estimator.pooling != "model"
    share = _INTERPOLATION if pays and not continues(estimator) else 1.0
    return Interpolation(run.network, share)


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
