"""torch in a state to compute: as an estimator says, and without waiting for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from .threads import in_children

# Whether this process has computed, and whether it was forked from one that had.
_has_computed = _lacks_threads = False


@contextmanager
def own_settings_of_torch(*, gradients: bool = True) -> Iterator[None]:
    """Compute as the estimator's parameters say, whatever the caller has set for torch.

    Three of the caller's settings stay in force: the precision of float32 products
    (`torch.set_float32_matmul_precision`), whether algorithms must be deterministic
    (`torch.use_deterministic_algorithms`), and which kernels may be used, as by
    `torch.backends` and `sdpa_kernel`.

    Parameters
    ----------
    gradients : bool, default=True
        Whether to record gradients.
    """
    prepare_threads()
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.set_grad_enabled(gradients))
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        # Before torch 2.7, get_default_device ignores `with torch.device(...)`.
        if torch.empty(0).device.type != "cpu":
            settings.enter_context(torch.device("cpu"))
        yield


def prepare_threads() -> None:
    """Let torch compute with one thread where it would wait for others for ever.

    Call it before torch computes. The threads of OpenMP are not forked with a process,
    and it does not notice. torch's own DataLoader does the same in its workers.
    """
    global _has_computed
    if _lacks_threads and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    _has_computed = True


def _note_fork() -> None:
    global _lacks_threads
    _lacks_threads = _has_computed


in_children(_note_fork)
