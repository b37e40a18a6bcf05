"""What training does, step by step."""

from sk_adalora.training import loop as _training

LAYERS = 12  # of the tiny model


class Spy:
    """Keeps the runs and the batches that `train_step` gets."""

    def __init__(self, monkeypatch, before=None):
        self.runs, self.batches, self.sizes = [], [], []
        real = _training.train_step

        def step(run, rows):
            if before is not None:
                before(run, rows)
            result = real(run, rows)
            self.runs.append(run)
            self.batches.append(rows)
            self.sizes.append(sum(p.numel() for p in run.parameters))
            return result

        monkeypatch.setattr(_training, "train_step", step)
