"""A training step never waits for the device: no number is read on the host."""

import numpy as np
import pytest
import torch
from _toy import make as make_classifier
from _toy import topics
from torch.utils._python_dispatch import TorchDispatchMode

from sk_adalora.training import loop as _training

# All of 8 tokens, which no processor pads: of batches with a mask, transformers asks
# whether they are padded.
X, Y = topics(48)
X = [" ".join(text.split()[:1] * 6) for text in X]
# What brings a number, or a size that depends on numbers, to the host.
READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
}


class Reads(TorchDispatchMode):
    """Counts reads of numbers on the host, while it is not told to look away."""

    def __init__(self):
        super().__init__()
        self.count, self.looks_away = 0, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in READS and not self.looks_away
        return func(*args, **(kwargs or {}))


def watch_steps(monkeypatch, enter):
    """Call every training step inside the context that `enter(run)` returns."""
    step = _training.train_step

    def watched(run, group):
        with enter(run):
            return step(run, group)

    monkeypatch.setattr(_training, "train_step", watched)


@pytest.fixture
def reads(monkeypatch):
    """List with the number of reads of each step of the fits to come."""
    found = []

    class Step(Reads):
        def __init__(self, run):
            super().__init__()
            self.run = run
            # On a CPU the fused AdamW reads its own step counts, which are there.
            run.optimizer.register_step_pre_hook(self.look_away)
            run.optimizer.register_step_post_hook(self.look_again)

        def look_away(self, *_):
            self.looks_away = True

        def look_again(self, *_):
            self.looks_away = False

        def __exit__(self, *error):
            found.append((self.count, self.run.allocator.finished))
            return super().__exit__(*error)

    watch_steps(monkeypatch, Step)
    return found


@pytest.mark.parametrize("options", [{}, {"lora_dropout": 0.1}])
def test_no_step_reads_a_number(tiny_model, reads, options):
    make_classifier(tiny_model, epochs=4, **options).fit(X, Y)

    counts = [count for count, _ in reads]
    final = [finished for _, finished in reads].index(True)
    # Once at the start it looks for layers without gradient; and once, compaction has
    # to know on the host what is left.
    assert len(counts) == 12
    assert 1 < final < 11
    assert counts[1:final] == [0] * (final - 1)
    assert counts[final] > 0
    assert counts[final + 1 :] == [0] * (11 - final)


def test_the_counter_counts():
    with Reads() as reads:
        float(torch.ones(3).sum())
        torch.ones(3).sum().item()
        bool(torch.ones(1) > 0)
        torch.ones(3).nonzero()
        torch.ones(3).sum()
    assert reads.count == 4


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_no_step_waits_for_the_gpu(tiny_model, monkeypatch, precision):
    class Strict:
        def __init__(self, run):
            self.run = run

        def __enter__(self):
            final = self.run.allocator.schedule.final_step
            if self.run.step not in (0, final):  # as above
                torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *error):
            torch.cuda.set_sync_debug_mode("default")

    watch_steps(monkeypatch, Strict)
    options = {"device": "cuda", "precision": precision}
    fitted = make_classifier(tiny_model, epochs=4, **options).fit(X, Y)

    assert np.isfinite(fitted.history_.loss).all()
