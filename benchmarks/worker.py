"""One measurement in a process of its own: ``python -m benchmarks.worker < job.json``.

Reads a job from standard input; its last line of output is the result, as JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

from .timing import Clock, cuda_peak_bytes, peak_bytes, resident_bytes, wait_for

_RESULT = "RESULT "
_WARM_UP_ROWS = 8  # of each class
_PREDICTIONS = 3  # of which the median counts


def run_job(**job):
    """Run a job, one of `JOBS` and its arguments, in a new process.

    Raises
    ------
    RuntimeError
        If the process fails; the message ends with what it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    lines = [x for x in done.stdout.splitlines() if x.startswith(_RESULT)]
    if done.returncode or not lines:
        raise RuntimeError(
            f"The worker must print a result. Got exit code {done.returncode}. It "
            f"wrote:\n{done.stderr[-3000:]}"
        )
    return json.loads(lines[-1].removeprefix(_RESULT))


def main():
    """Run the job on standard input."""
    job = json.load(sys.stdin)
    warnings.simplefilter("ignore")  # of the contestants' libraries: not our subject
    print(_RESULT + json.dumps(JOBS[job.pop("job")](**job)), flush=True)


def measure_fit(contestant, data, settings, inside=None):
    """Fit and predict: seconds, memory, accuracy.

    A few rows are fitted first. What that leaves in memory is dropped.

    Parameters
    ----------
    contestant : str
        One of `CONTESTANTS`.
    data : list
        ``X_train, y_train, X_test, y_test``.
    settings : dict
        Fields of `Settings`.
    inside : dict or None
        What `changed` gives other values meanwhile.
    """
    from .inside import changed

    with changed(inside or {}):
        return _measure_fit(contestant, data, settings)


def _measure_fit(contestant, data, settings):
    from .contestants import Settings, fit

    settings = Settings(**settings)
    X_train, y_train, X_test, y_test = data
    warm_up(fit, contestant, X_train, y_train, settings)
    before, device = resident_bytes(), settings.place.device
    fit_clock = Clock(device)
    predictor = fit(contestant, X_train, y_train, settings)
    fit_clock.stop()
    clocks = []
    for _ in range(_PREDICTIONS):
        clock = Clock(device)
        predicted = predictor.predict(X_test)
        clocks.append(clock.stop())
    hits = [p == t for p, t in zip(predicted, y_test, strict=True)]
    return {
        "fit_wall": fit_clock.wall,
        "fit_cpu": fit_clock.cpu,
        "predict_wall": statistics.median(c.wall for c in clocks),
        "predict_cpu": statistics.median(c.cpu for c in clocks),
        "accuracy": statistics.mean(map(float, hits)),
        "peak_bytes": peak_bytes(),
        "bytes_before": before,
        "cuda_peak_bytes": cuda_peak_bytes(device),
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


def measure_memory(contestant, n_rows, steps, settings):
    """Start a fit on many made-up texts, and stop it after some optimizer steps.

    Returns
    -------
    dict
        Peak memory, and memory before the fit, texts included.
    """
    from .contestants import Settings
    from .memory import fit_some_steps, make_texts

    settings = Settings(**settings)
    device = settings.place.device
    texts, labels = make_texts(n_rows)
    wait_for(device)  # starts CUDA, whose memory is not the fit's
    before = resident_bytes()
    clock = Clock(device)
    done = fit_some_steps(contestant, texts, labels, settings, steps)
    return {
        "steps": done,
        "seconds": clock.stop().wall,
        "peak_bytes": peak_bytes(),
        "bytes_before": before,
        "cuda_peak_bytes": cuda_peak_bytes(device),
    }


JOBS = {"fit": measure_fit, "memory": measure_memory}

if __name__ == "__main__":
    main()
