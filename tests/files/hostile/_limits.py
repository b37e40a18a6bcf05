"""The readers are given broken folders, in a process of their own, under limits.

Called with the folder of those that are whole, one for each reader. Of each case it
writes a line: reader and name before, and what came of it after.
"""

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

MORE_MEMORY, MOST_SECONDS = 200 * 2**20, 2
CLEAR = (ValueError, OSError)


# ---- mutations of any file ---------------------------------------------------


def in_place(name):
    """A change of the bytes of a file, by a function of them."""
    return lambda change: lambda f: (f / name).write_bytes(change(_bytes(f / name)))


def _bytes(path):
    return path.read_bytes()


def flipped(seed):
    def change(data):
        data, chance = bytearray(data), random.Random(seed)
        for _ in range(8):
            data[chance.randrange(len(data))] ^= chance.randrange(1, 256)
        return bytes(data)

    return change


def spliced(seed):
    def change(data):
        chance = random.Random(seed)
        a, b = sorted(chance.randrange(len(data)) for _ in range(2))
        return data[:a] + data[b:] + data[a:b]

    return change


CONTENTS = {
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "cut": lambda data: data[:-1],
    "doubled": lambda data: data * 2,
    "zeros": lambda data: bytes(len(data)),
    "noise": lambda data: random.Random(0).randbytes(len(data)),
    "noise of a megabyte": lambda data: random.Random(1).randbytes(2**20),
    "a pickle": lambda data: b"\x80\x04cos\nsystem\nq\x00X\x02\x00\x00\x00idq\x01.",
    "an archive": lambda data: b"PK\x03\x04" + data,
    "UTF-16": lambda data: data.decode("latin-1").encode("utf-16"),
    "a mark before": lambda data: b"\xef\xbb\xbf" + data,
    "a list": lambda data: b"[]",
    "an object": lambda data: b"{}",
    "a number": lambda data: b"1",
    "deep": lambda data: b'{"a":' * 10**6,
    "many lists": lambda data: b'{"a":[' + b"[]," * 3 * 10**6 + b"1]}",
    "flipped": flipped(0),
    "flipped again": flipped(1),
    "flipped once more": flipped(2),
    "spliced": spliced(0),
    "spliced again": spliced(1),
}


def replaced(name, make):
    def change(folder):
        (folder / name).unlink()
        make(folder / name)

    return change


PLACES = {
    "missing": lambda path: None,
    "a folder": Path.mkdir,
    "a pipe": lambda path: os.mkfifo(path),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to zeros": lambda path: path.symlink_to("/dev/zero"),
}


def of_files(names):
    """All these mutations of all these files."""
    return {
        **{
            f"{name}: {kind}": in_place(name)(change)
            for name in names
            for kind, change in CONTENTS.items()
        },
        **{
            f"{name}: {kind}": replaced(name, make)
            for name in names
            for kind, make in PLACES.items()
        },
    }


# ---- mutations of JSON and of tensors ------------------------------------------

VALUES = {
    "null": None,
    "a list": [],
    "text": "x",
    "-1": -1,
    "3 million": 3 * 10**6,
    "huge": 10**12,
    "an object": {},
}


def entries(name, keys):
    """Entries of a JSON object, with all these values."""

    def put(key, value):
        def change(folder):
            values = json.loads((folder / name).read_text("utf8"))
            values[key] = value
            (folder / name).write_text(json.dumps(values), "utf8")

        return change

    return {
        f"{name}: {key} {kind}": put(key, value)
        for key in keys
        for kind, value in VALUES.items()
    }


@functools.cache
def listed(n_tensors, entry):
    names = (b'"t%d":%s' % (i, entry) for i in range(n_tensors))
    header = b"{" + b",".join(names) + b"}"
    return struct.pack("<Q", len(header)) + header


EMPTY = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
HUGE = b'{"dtype":"F32","shape":[1000000000,0],"data_offsets":[0,0]}'
LISTS = {
    "1.2 million tensors": lambda data: listed(1_200_000, EMPTY),
    "60,000 tensors": lambda data: listed(60_000, EMPTY),
    "tensors of no width": lambda data: listed(100, HUGE),
    "a header of 99 MB": lambda data: struct.pack("<Q", 99 * 2**20) + b" " * 99 * 2**20,
    "a header of an exabyte": lambda data: struct.pack("<Q", 2**60) + data[8:],
    "a list of text": lambda data: struct.pack("<Q", 3) + b'"a"',
    "much text": lambda data: (
        struct.pack("<Q", 10**7)
        + b'{"__metadata__":{"a":"'
        + b"a" * (10**7 - 25)
        + b'"}}'
    ),
}


def of_lists(names):
    """Lists of tensors that are too long, in all these files."""
    return {
        f"{name}: {kind}": in_place(name)(change)
        for name in names
        for kind, change in LISTS.items()
    }


def of_tensors(name, n_tensors=5, factors=(0.0, float("nan"), 1e300)):
    """Numbers and shapes of each tensor of a file."""

    def one(key, make):
        def change(folder):
            with safe_open(folder / name, "pt") as file:
                metadata = file.metadata()
            tensors = {n: t.clone() for n, t in load_file(folder / name).items()}
            made = make(tensors.pop(key))
            save_file(tensors | {key: made.contiguous()}, folder / name, metadata)

        return change

    shapes = {
        "flat": lambda t: t.flatten(),
        "turned": lambda t: t.T,
        "twice": lambda t: t.repeat(2, *[1] * (t.ndim - 1)),
        "none": lambda t: t[:0],
        "halves": lambda t: t.half(),
        "numbers": lambda t: t.long(),
    }
    changes = {**shapes, **{f"times {x}": lambda t, x=x: t * x for x in factors}}
    return lambda folder: {
        f"{name}: {key} {kind}": one(key, make)
        for key in sorted(load_file(folder / name))[:n_tensors]
        for kind, make in changes.items()
    }


# ---- readers -----------------------------------------------------------------

TEXTS = ["good news", "bad market"]


def read_estimator(folder):
    from sk_adalora import AdaLoraClassifier

    AdaLoraClassifier.from_pretrained(folder).predict(TEXTS)


def read_adapter(folder):
    from _tiny import tiny_bert

    from sk_adalora.adalora import load_peft_adapter

    load_peft_adapter(tiny_bert(), folder)


def read_backbone(folder):
    from sk_adalora.pretrained.backbone import load_backbone
    from sk_adalora.runtime.devices import resolve_compute

    load_backbone(folder, resolve_compute("cpu", "float32"))


def read_state(folder):
    """As skops does: it makes an instance, and hands it what the file holds."""
    import joblib

    from sk_adalora import AdaLoraClassifier

    made = AdaLoraClassifier.__new__(AdaLoraClassifier)
    made.__setstate__(joblib.load(folder / "state.joblib"))
    made.predict(TEXTS)


def of_state(folder):
    """Values of the attributes, and of what is in them."""
    import joblib

    path, cases = "state.joblib", {}
    state = joblib.load(folder / path)

    def put(keys, value):
        def change(folder):
            state = inner = joblib.load(folder / path)
            *outer, last = keys
            for key in outer:
                inner = inner[key]
            inner[last] = value
            joblib.dump(state, folder / path)

        return change

    places = [("_adapter",), ("_targets",), ("n_features_in_",), ("max_length",)]
    places += [("history_", "loss"), ("schedule_", "tinit"), ("fit_report_", "device")]
    for name in ("_adapter", "_targets"):
        places += [(name, key) for key in state[name]]
    used = "init_r rank_pattern target_modules modules_to_save bias lora_alpha".split()
    places += [("_adapter", "config", key) for key in used]
    arrays = sorted(state["_adapter"]["arrays"])
    places += [("_adapter", "arrays", key) for key in (arrays[0], arrays[-1])]
    for place in places:
        for kind, value in VALUES.items():
            cases[f"{' '.join(place)}: {kind}"] = put(place, value)
    return cases


def fit_from_checkpoint(folder):
    from _hostile import X, Y
    from _toy import make

    model = (folder / "model").read_text("utf8")
    with tempfile.TemporaryDirectory() as used:  # the fit deletes what has served
        shutil.copytree(folder / "own", used, symlinks=True, dirs_exist_ok=True)
        make(model, epochs=3, checkpoint_dir=used).fit(X, Y)


def written(key, value):
    """A change of what a checkpoint says beside its tensors."""

    def change(folder):
        path = folder / CHECKPOINT
        with safe_open(path, "pt") as file:
            said = json.loads(file.metadata()["fit"])
        tensors = load_file(path)
        if value is None:
            del said[key]
        else:
            said[key] = value
        save_file(tensors, path, {"fit": json.dumps(said)})

    return change


def of_saying(keys):
    return {
        f"{CHECKPOINT}: {key} {kind}": written(key, value)
        for key in keys
        for kind, value in VALUES.items()
    }


CHECKPOINT = "own/fit.safetensors"
SAID = """format parts step rates allocator epochs best_epoch length seconds waited
best_score""".split()
SETTINGS = """vocab_size hidden_size num_hidden_layers num_attention_heads
max_position_embeddings num_labels id2label model_type hidden_act auto_map
quantization_config""".split()
OF_TOKENIZER = ["tokenizer_class", "model_max_length", "added_tokens_decoder"]
STATE = "sk_adalora.json"
ADAPTER = ["adapter_config.json", "adapter_model.safetensors"]
MODEL = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]

# To add a reader, add what reads a folder, and the changes of one that it must stand:
# most are in `of_files`. `test_limits.py` has the folder that is whole.
# Of each reader: how it reads a folder, and the changes of one.
READERS = {
    "estimator": (
        read_estimator,
        lambda folder: {
            **of_files([STATE, *ADAPTER, "head.safetensors"]),
            **of_lists([ADAPTER[1], "head.safetensors"]),
            **of_tensors("head.safetensors")(folder),
            **entries(STATE, ["n_outputs", "layers", "fitted", "settings"]),
            **entries("backbone/config.json", ["num_labels", "num_hidden_layers"]),
        },
    ),
    "adapter": (
        read_adapter,
        lambda folder: {
            **of_files(ADAPTER),
            **of_lists(ADAPTER[1:]),
            **of_tensors(ADAPTER[1])(folder),
            **entries(ADAPTER[0], ["init_r", "rank_pattern", "lora_alpha"]),
        },
    ),
    "checkpoint": (
        fit_from_checkpoint,
        lambda folder: {
            **of_files([CHECKPOINT]),
            **of_lists([CHECKPOINT]),
            **of_tensors(CHECKPOINT, 3)(folder),
            **of_saying(SAID),
        },
    ),
    "backbone": (
        read_backbone,
        lambda folder: {
            **of_files(MODEL),
            **of_lists(MODEL[1:2]),
            **entries(MODEL[0], SETTINGS),
            **entries(MODEL[3], OF_TOKENIZER),
        },
    ),
    "state": (read_state, of_state),
}


class HangsError(BaseException):
    """A reader does not come back. It is no error that a reader would catch."""


def stop(*args):
    raise HangsError


def outcome(read, folder):
    """What came of a case: "read", "refused", or what is wrong with the reader."""
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(MOST_SECONDS * 5)
    begin = time.process_time()
    try:
        with limited_memory():
            read(folder)
        result = "read"
    except CLEAR as error:
        clear = not isinstance(error, UnicodeError) and 0 < len(str(error)) < 3000
        result = "refused" if clear else f"not clear: {error!r:.200}"
    except (Exception, HangsError) as error:
        result = f"{type(error).__name__}: {str(error)[:200]!r}"
    signal.alarm(0)
    seconds = time.process_time() - begin
    return result if seconds < MOST_SECONDS else f"{result} after {seconds:.1f} s"


@contextlib.contextmanager
def limited_memory():
    import resource  # not on Windows

    status = Path("/proc/self/status").read_text("utf8")
    (now,) = [line.split()[1] for line in status.splitlines() if "VmData" in line]
    unlimited = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(now) * 1024 + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (most, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, unlimited)


def main(root):
    warnings.simplefilter("ignore")
    for name, (read, cases) in READERS.items():
        whole = root / name / "f"
        read(whole)  # what is imported takes time and memory of its own
        for case, change in cases(whole).items():
            say(f"{name}\t{case}\t")
            with tempfile.TemporaryDirectory(dir=root) as scratch:
                folder = Path(shutil.copytree(whole, Path(scratch) / "f"))
                change(folder)
                with contextlib.redirect_stdout(sys.stderr):
                    result = outcome(read, folder)
            say(f"{result}\n")


def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
