"""One measurement in a process of its own: ``python -m benchmarks.worker < job.json``.

Reads a job from standard input; its last line of output is the result, as JSON.
"""

import json
import re
import statistics
import sys
import time
import warnings
from pathlib import Path

import psutil

RESULT = "RESULT "
_WARM_UP_ROWS = 8  # of each class
_PREDICTIONS = 3  # of which the median counts
_PEAK = re.compile(r"VmHWM:\s*(\d+)")  # in KiB, as Linux tells it


def main():
    """Run the job on standard input."""
    job = json.load(sys.stdin)
    warnings.simplefilter("ignore")  # of the contestants' libraries: not our subject
    print(RESULT + json.dumps(KINDS[job.pop("kind")](**job)), flush=True)


def measure_fit(contestant, data, settings):
    """Fit and predict: seconds, memory, accuracy.

    A few rows are fitted first. What that leaves in memory is dropped.

    Parameters
    ----------
    contestant : str
        One of `CONTESTANTS`.
    data : dict
        ``X_train, y_train, X_test, y_test``.
    settings : dict
        Fields of `Settings`.

    Returns
    -------
    dict
    """
    from .contestants import Settings, fit

    settings = Settings(**settings)
    X_train, y_train = data["X_train"], data["y_train"]
    X_test, y_test = data["X_test"], data["y_test"]
    warm_up(fit, contestant, X_train, y_train, settings)
    before = resident_bytes()
    fit_clock = Clock(settings)
    predictor = fit(contestant, X_train, y_train, settings)
    fit_clock.stop()
    clocks = []
    for _ in range(_PREDICTIONS):
        clock = Clock(settings)
        predicted = predictor.predict(X_test)
        clocks.append(clock.stop())
    hits = [p == t for p, t in zip(predicted, y_test, strict=True)]
    report = getattr(predictor, "fit_report_", None)
    return {
        "fit_wall": fit_clock.wall,
        "fit_cpu": fit_clock.cpu,
        "predict_wall": statistics.median(c.wall for c in clocks),
        "predict_cpu": statistics.median(c.cpu for c in clocks),
        "accuracy": statistics.mean(hits),
        "peak_bytes": peak_bytes(),
        "bytes_before": before,
        "cuda_peak_bytes": cuda_peak_bytes(settings),
        "precision": report.precision if report else settings.compute.precision,
    }


def warm_up(fit, contestant, X_train, y_train, settings):
    """Fit some rows of each class, for what only the first fit of a process does."""
    from sk_adalora import clear_backbone_cache

    rows = []
    for label in sorted(set(y_train)):
        rows += [i for i, y in enumerate(y_train) if y == label][:_WARM_UP_ROWS]
    X, y = [X_train[i] for i in rows], [y_train[i] for i in rows]
    fit(contestant, X, y, settings).predict(X[:8])
    clear_backbone_cache()  # others read the weights anew, so ours has to


class Clock:
    """Wall and CPU seconds from its making until `stop`."""

    def __init__(self, settings):
        self.device = settings.compute.device
        wait_for(self.device)
        self._start = time.perf_counter(), time.process_time()

    def stop(self):
        """Take the time; return the clock."""
        wait_for(self.device)
        self.wall = time.perf_counter() - self._start[0]
        self.cpu = time.process_time() - self._start[1]
        return self


def wait_for(device):
    """Wait until a card, of CUDA or of Apple, has done what it was asked for."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure_memory(contestant, n_rows, steps, settings):
    """Start a fit on many made-up texts, and stop it after some optimizer steps.

    Returns
    -------
    dict
        Peak memory, and memory before the fit, texts included.
    """
    from .contestants import Settings
    from .stopped_fit import fit_some_steps, make_texts

    settings = Settings(**settings)
    texts, labels = make_texts(n_rows)
    wait_for(settings.compute.device)  # starts CUDA, whose memory is not the fit's
    before = resident_bytes()
    clock = Clock(settings)
    done = fit_some_steps(contestant, texts, labels, settings, steps)
    return {
        "steps": done,
        "seconds": clock.stop().wall,
        "peak_bytes": peak_bytes(),
        "bytes_before": before,
        "cuda_peak_bytes": cuda_peak_bytes(settings),
    }


def peak_bytes():
    """Return the most memory that this process ever held."""
    status = Path("/proc/self/status")
    if status.exists() and (found := _PEAK.search(status.read_text())):
        return 1024 * int(found[1])
    # On Linux, this would be at least that of the process that started this one.
    import resource  # which Windows does not have

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes():
    """Return the memory that this process holds."""
    return psutil.Process().memory_info().rss


def cuda_peak_bytes(settings):
    """Return the most memory that tensors took on the card, or None without one."""
    if settings.compute.device.type != "cuda":
        return None
    import torch

    return torch.cuda.max_memory_allocated(settings.compute.device)


KINDS = {"fit": measure_fit, "memory": measure_memory}

if __name__ == "__main__":
    main()
