"""The inner names of the package that benchmarks use or change, all in one place.

Everything else in `benchmarks/` is written with public names.
"""
# ruff: noqa: F401 (the others import them from here)

from contextlib import ExitStack, contextmanager
from unittest import mock

from sk_adalora.adalora import products
from sk_adalora.data.columns import read_table
from sk_adalora.data.roles import find_roles
from sk_adalora.estimators import fitting as _fitting
from sk_adalora.files import checkpoint as _checkpoint
from sk_adalora.network.head import LinearHead
from sk_adalora.network.network import build_network, pool
from sk_adalora.pretrained.backbone import load_backbone
from sk_adalora.pretrained.find import Request, find_folder
from sk_adalora.runtime.devices import Compute, resolve_compute
from sk_adalora.tokens.batches import pad, training_batches
from sk_adalora.tokens.table import TokenTable
from sk_adalora.training import loop as _training
from sk_adalora.training import start_head as _start_head
from sk_adalora.training.loop import Examples, Recipe, TrainingRun, train_step
from sk_adalora.training.schedule_steps import resolve_schedule

# What a study may change: its name there -> whose attribute it is, and of which name.
_CHANGEABLE = {
    "seconds": (_checkpoint, "_SECONDS"),
    "times_writing": (_checkpoint, "_TIMES_WRITING"),
    "attention": (Compute, "attention"),
    "length_multiple": (Compute, "length_multiple"),
    "tokens_to_predict": (Compute, "tokens_to_predict"),
    "tokens_to_train": (Compute, "tokens_to_train"),
    "training_batches": (_training, "training_batches"),
    "mkl_is_slow": (products, "MKL_IS_SLOW"),
    "probe_rows": (_start_head, "_ENOUGH_ROWS"),
    "penalty": (_start_head, "_PENALTY"),
    "penalty_of_shares": (_start_head, "_PENALTY_OF_SHARES"),
    "kept": (_fitting, "_INTERPOLATION"),
}


@contextmanager
def changed(values):
    """Give some of the names above another value while a block runs."""
    with ExitStack() as patches:
        for name, value in values.items():
            patches.enter_context(mock.patch.object(*_CHANGEABLE[name], value))
        yield


def text_columns(X):
    """Return the names of the columns of a table that are text."""
    roles = find_roles(read_table(X)).of
    return [name for name, role in roles.items() if role == "text"]


def folder_of(model):
    """Return the folder of a pretrained model: given, packaged or cached."""
    return str(find_folder(Request(model)))
