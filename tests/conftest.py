"""Tiny models for every test, and the rules under which the tests run."""

import builtins
import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
# Before torch: threads that spin while they wait make real models up to 20 times
# slower where something else runs on the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers fill the cores
    os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import optuna
import pytest
import torch
import transformers
from _folders import STRONG
from _tiny import build
from _tiny_model import SIZES, write_tiny_model
from _toy import make, topics

import sk_adalora

# A deadline measures the machine that the tests share, not the code.
hypothesis.settings.register_profile("sk-adalora", deadline=None)
hypothesis.settings.register_profile(
    "sk-adalora-ci", deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile(
    "sk-adalora-ci" if os.environ.get("CI") else "sk-adalora"
)


# The search for doctests would import them, and with them the device stays: they are
# run by test_other_device.py, which names the file.
collect_ignore = ["_pretend.py", "_other_device.py"]

# The programs of benchmarks/ are not installed, and perhaps not there.
ROOT = Path(__file__).parent.parent
if (ROOT / "benchmarks" / "__main__.py").exists():
    sys.path.append(str(ROOT))
else:
    collect_ignore.append("benchmarks")


def pytest_configure(config):
    if hasattr(config.option, "loadscopereorder"):  # pytest-xdist is installed
        config.option.loadscopereorder = False  # it would put files of few tests last


def pytest_collection_modifyitems(items):
    """Files with slow tests come first: as the last one, such a file would leave all
    workers but one idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch finds none")


@pytest.fixture(autouse=True)
def _threads(request):
    """One thread for tiny models, where more only cost; all for real ones."""
    before = torch.get_num_threads()
    if not request.node.get_closest_marker("slow"):
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a random BERT encoder of 2 layers with its tokenizer, as a str.

    Shared by the whole session: read it, do not write into it.
    """
    return write_tiny_model(str(tmp_path_factory.mktemp("models") / "tiny-bert"))


@pytest.fixture(scope="module")
def fitted(tiny_model):
    """A classifier fitted on `topics(48)`. Do not refit."""
    return make(tiny_model, **STRONG).fit(*topics(48))


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    """The folder of `fitted`. Do not write into it."""
    folder = tmp_path_factory.mktemp("saved") / "estimator"
    fitted.save_pretrained(folder)
    return folder


@pytest.fixture
def empty_cache():
    """No pretrained model is kept from before the test, nor after it."""
    sk_adalora.clear_backbone_cache()
    yield
    sk_adalora.clear_backbone_cache()


@pytest.fixture
def quiet_optuna():
    """Optuna tells of no trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def kept(tmp_path):
    """Options of a search that is kept in a file."""
    return {"storage": f"sqlite:///{tmp_path / 'study.db'}", "study_name": "s"}


@pytest.fixture
def own_model(tiny_model, tmp_path):
    """A copy of the tiny model's folder, which the test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "own"))


_SIZES = {"vocab_size": 100, **SIZES}
_TINY_CONFIGS = {
    "bert": lambda: transformers.BertConfig(**_SIZES),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=100,
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=64,
    ),
    "mpnet": lambda: transformers.MPNetConfig(**_SIZES),
    "deberta-v2": lambda: transformers.DebertaV2Config(
        **_SIZES,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **_SIZES,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=100,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "llama": lambda: transformers.LlamaConfig(**_SIZES, num_key_value_heads=1),
}
_HEADS = {
    None: transformers.AutoModel,
    "causal-lm": transformers.AutoModelForCausalLM,
    "classification": transformers.AutoModelForSequenceClassification,
}


@pytest.fixture(scope="session")
def tiny_architecture():
    """Function: name, head=None, seed=0 -> a new random module of that architecture.

    Names: bert, distilbert, mpnet, deberta-v2, modernbert, gpt2, llama. Each call
    returns a module of its own, in eval mode, which the test may change.
    """

    def make(name, head=None, seed=0):
        config = _TINY_CONFIGS[name]()
        return build(lambda: _HEADS[head].from_config(config), seed)

    return make


@pytest.fixture
def scripts_environment(monkeypatch):
    """What a script of `benchmarks` sets when imported is forgotten after the test."""
    for variable in ("HF_HUB_OFFLINE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")


@pytest.fixture
def plt():
    """`matplotlib.pyplot`, which draws without a screen; figures are closed."""
    matplotlib = pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    matplotlib.use("agg")
    from matplotlib import pyplot

    pyplot.close("all")  # of snippets and examples
    with matplotlib.rc_context():  # Optuna's plots set a style
        yield pyplot
        pyplot.close("all")


@pytest.fixture
def without_matplotlib(monkeypatch):
    """Importing matplotlib fails as where it is not installed."""
    load = builtins.__import__

    def hide(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", hide)


@pytest.fixture(scope="session")
def csv_file(tmp_path_factory):
    """A file of 240 texts on three topics, beside numbers. Do not write into it."""
    rows = zip(*topics(240), strict=True)
    rows = [f"{x} {i},{i % 7},{y}" for i, (x, y) in enumerate(rows)]
    path = tmp_path_factory.mktemp("data") / "mine.csv"
    path.write_text("\n".join(["text,number,label", *rows]), encoding="utf-8")
    return path
