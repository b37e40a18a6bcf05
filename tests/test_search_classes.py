"""A study is bound to the code of the user's own classes, not to that of libraries."""

import collections
import importlib
import json
import os
import subprocess
import sys
import weakref

import pytest
from _search_worker import SPACE, Peak, rows, search
from sklearn.pipeline import Pipeline

from sk_adalora._search_code import codes_of
from sk_adalora._search_fingerprint import check_same, fingerprint
from sk_adalora._space import read_space

X, Y = rows()

BEGINNING = """
from dataclasses import dataclass
from functools import cache, cached_property, partialmethod, wraps
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.metaestimators import available_if

def loud(method):
    @wraps(method)
    def inner(self):
        return method(self)
    return inner

class Base(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X

"""


def define(body, module="__main__"):
    """Make the class `Tidy` of a program, which derives from `Base` if not said."""
    head = "" if "class Tidy" in body else "class Tidy(Base):\n    "
    names = {"__name__": module}
    exec(compile(BEGINNING + head + body, "program.py", "exec"), names)
    return names["Tidy"]


def described(estimator, scoring=None):
    return fingerprint([X], [], read_space({**SPACE}, ""), scoring, estimator)


def in_pipeline(kind):
    return Pipeline([("tidy", kind()), ("classify", Peak())])


CHANGES = {
    "method": ("def transform(self, X): return X", "return X", "return X + 100"),
    "default": ("def transform(self, X, n=1): return X + n", "n=1", "n=2"),
    "lambda": ("add = lambda self, X: X + 1", "1", "2"),
    "property": ("some = property(lambda self: 1)", "1", "2"),
    "setter": ("some = property(None, lambda self, x: x)", "x)", "-x)"),
    "static": ("some = staticmethod(lambda: 1)", "1", "2"),
    "class": ("some = classmethod(lambda cls: 1)", "1", "2"),
    "cached": ("some = cached_property(lambda self: 1)", "1", "2"),
    "cache": ("some = cache(lambda self: 1)", "1", "2"),
    "partial": ("some = partialmethod(lambda self, a: a, 1)", ": a", ": -a"),
    "available": ("some = available_if(all)(lambda self: 1)", "1", "2"),
    "wrapped": ("some = loud(lambda self: 1)", "1", "2"),
    "super": ("def fit(self, X, y=None): return super().fit(X)", "(X)", "(X, y)"),
    "base": (
        "class Tidy(type('Own', (Base,), {'f': lambda self: 1})): pass",
        "1",
        "2",
    ),
    "metaclass": (
        "class Tidy(Base, metaclass=type('Meta', (type,), {})):\n"
        "    def f(self): return 1",
        "1",
        "2",
    ),
    "slots": (
        "class Tidy(Base):\n    __slots__ = ('a',)\n    def f(self): return 1",
        "1",
        "2",
    ),
    "dataclass": ("@dataclass\nclass Tidy(Base):\n    a: int = 1", "1", "2"),
}


@pytest.mark.parametrize(("body", "old", "new"), CHANGES.values(), ids=CHANGES)
def test_a_study_does_not_go_on_with_other_methods(body, old, new):
    assert old in body
    first, same, other = (
        described(in_pipeline(define(text)))
        for text in (body, body, body.replace(old, new))
    )

    check_same(first, same, "s")
    with pytest.raises(ValueError, match=r"functions or classes in .*: Tidy\. Pass"):
        check_same(first, other, "s")


def test_a_search_does_not_go_on_with_another_program(kept):
    space = {f"classify__{name}": SPACE[name] for name in SPACE}
    first, other = (
        in_pipeline(define(f"def transform(self, X): return X + {n}")) for n in (0, 1)
    )
    for n_trials in (1, 2):
        search(first, space, n_trials=n_trials, **kept).fit(X, Y)
    with pytest.raises(ValueError, match=r"Got other values of: the code .*: Tidy\."):
        search(other, space, n_trials=3, **kept).fit(X, Y)


ALIKE = {
    "docstring": (
        "def transform(self, X):\n        'Tidy up.'\n        return X",
        "def transform(self, X):\n        'Tidy it up.'\n        return X",
    ),
    "class docstring": ("'Tidies up.'", "'Tidies it up.'"),
    "line numbers": ("def f(self): return 1", "\n\n    def f(self): return 1"),
    "order": ("a, b = lambda s: 1, lambda s: 2", "b, a = lambda s: 2, lambda s: 1"),
    "log": ("n, log, cache = 0, [], {}", "n, log, cache = 1, [1], {1: len}"),
    "annotations": ("a: int; f = lambda s: 1", "a: float; b: int; f = lambda s: 1"),
}


@pytest.mark.parametrize(("first", "second"), ALIKE.values(), ids=ALIKE)
def test_what_is_no_code_of_a_class_is_not_compared(first, second):
    one, other = (described(in_pipeline(define(text))) for text in (first, second))

    assert one == other


@pytest.mark.parametrize("hold", [lambda kind: kind, lambda kind: kind()])
def test_classes_and_their_objects_are_compared_wherever_they_are(hold):
    """As the module of a network, a tokenizer, or a scorer that is an object."""
    body = "class Tidy:\n    def __call__(self, estimator, X, y): return 1"
    first, other = (hold(define(text)) for text in (body, body.replace("1", "2")))

    for place in (lambda held: (Peak(log=held),), lambda held: (Peak(), {"a": held})):
        with pytest.raises(ValueError, match=r"functions or classes in .*: Tidy"):
            check_same(described(*place(first)), described(*place(other)), "s")


def test_two_classes_of_one_name_are_both_compared():
    def both(a, b):
        kinds = [define(f"f = lambda self: {n}") for n in (a, b)]
        return described(Peak(log=[kind() for kind in kinds]))

    assert both(1, 2) == both(1, 2)
    for other in (both(1, 3), both(3, 2)):
        with pytest.raises(ValueError, match=": Tidy"):
            check_same(both(1, 2), other, "s")


ODD = """
import abc, enum, typing
from unittest import mock
import numpy as np

class Anything:
    __slots__ = ()
    def __getattr__(self, name):
        return self

class Meta(type):
    def __getattr__(cls, name):
        return cls

class Hashless(type):
    def __eq__(cls, other):
        return True

class Unhashable(metaclass=Hashless):
    pass

class Holder(metaclass=Meta):
    held, fake, called = Anything(), mock.Mock(), mock.call

class Generic(typing.Generic[typing.TypeVar("T")], abc.ABC):
    nested = type("Nested", (), {})
    __module__ = property(lambda self: "odd")

class Protocol(typing.Protocol):
    def f(self) -> int: ...

class Pair(typing.NamedTuple):
    a: int = 1

class Kind(enum.Enum):
    A = 1

class Mine(dict):
    pass

class Compiled(np.random.Generator):
    pass

values = [Holder(), Holder, Unhashable, Generic(), Protocol, Pair(), Pair, Kind.A,
          Mine(a=1), Compiled(np.random.PCG64(0)), type("", (), {"é": 1})(), mock.call]
"""


def test_any_class_is_described():
    made = []
    for _ in range(2):
        names = {"__name__": "__main__"}
        exec(ODD, names)
        made.append(described(Peak(log=names["values"])))

    assert json.loads(json.dumps(made[0])) == made[1]


LIBRARY = """
from functools import wraps
from sklearn.base import BaseEstimator, TransformerMixin

def loud(method):
    @wraps(method)
    def inner(self, X):
        return method(self, X) + 0
    return inner

class Tidy(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X + 0
"""


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Import the library from a folder, in a version of its own."""

    def load(folder, version):
        monkeypatch.delitem(sys.modules, "tidy_library", raising=False)
        with monkeypatch.context() as path:
            place = tmp_path / version / folder
            place.mkdir(parents=True)
            text = LIBRARY.replace("+ 0", f"+ {version}")
            (place / "tidy_library.py").write_text(text)
            path.syspath_prepend(place)
            return importlib.import_module("tidy_library")

    yield load
    sys.modules.pop("tidy_library", None)


@pytest.mark.parametrize("folder", ["site-packages", "dist-packages"])
def test_another_version_of_a_library_is_no_other_program(imported, folder):
    body = "@tidy_library.loud\n    def transform(self, X): return X"
    made = []
    for version in ("1", "2"):
        library = imported(folder, version)
        text = f"import tidy_library\nclass Tidy(tidy_library.Tidy):\n    {body}"
        made.append([described(kind()) for kind in (library.Tidy, define(text))])

    assert made[0] == made[1]


def test_modules_beside_the_program_are_the_users_own(imported):
    first, other = (described(imported("project", v).Tidy()) for v in ("1", "2"))

    with pytest.raises(ValueError, match=r"functions or classes in .*: Tidy"):
        check_same(first, other, "s")


def test_what_is_installed_on_one_machine_alone_is_not_compared(imported):
    one, other = (
        described(imported(folder, version).Tidy())
        for folder, version in (("project", "1"), ("site-packages", "2"))
    )

    check_same(one, other, "s")
    check_same(other, one, "s")


PROGRAM = f"""
import json
from multiprocessing import get_context
from joblib.externals.loky import get_reusable_executor
from sk_adalora._search_fingerprint import fingerprint
from sk_adalora._space import read_space
{BEGINNING}
class Tidy(Base):
    def transform(self, X):
        'Tidy up.'
        return super().transform(X) if X in {{"a", "b", "c"}} else [x for x in X]

    @loud
    def extra(self):
        return None

def describe(estimator):
    made = fingerprint([1], [], read_space({{"a": (0.0, 1.0)}}, ""), None, estimator)
    return json.dumps(made, sort_keys=True)

if __name__ == "__main__":
    with get_context("spawn").Pool(1) as pool:
        spawned = pool.apply(describe, [Tidy()])
    pickled = get_reusable_executor(1).submit(describe, Tidy()).result()
    print(json.dumps([describe(Tidy()), spawned, pickled]))
"""


def test_a_class_is_described_alike_in_every_process(tmp_path, monkeypatch):
    path = tmp_path / "tidy_program.py"
    path.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.check_output([sys.executable, path], env=environment)
    monkeypatch.syspath_prepend(tmp_path)
    program = importlib.import_module("tidy_program")
    monkeypatch.delitem(sys.modules, "tidy_program")
    made = [program.describe(program.Tidy()), *json.loads(printed)]

    assert len(made) == 4
    assert len(set(made)) == 1
    assert '"Tidy": ' in made[0]


def test_a_class_with_attributes_that_cannot_be_looked_at_is_compared_by_name():
    class Odd:
        gone = weakref.proxy(type("", (), {})())

    assert codes_of(Odd()) == {"": codes_of([])[""]}


def test_a_module_named_as_one_of_python_is_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "code.py").write_text("class Own:\n    def go(self):\n        pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "code", raising=False)
    own = importlib.import_module("code")
    monkeypatch.setitem(sys.modules, "code", own)

    assert own.__file__ == str(tmp_path / "code.py")
    assert "Own" in codes_of(own.Own())
    assert codes_of(collections.OrderedDict).keys() == {""}


def test_what_one_method_counts_in_a_function_is_in_the_code_of_none():
    def make(step):
        calls = 0

        class Counting:
            def count(self):
                nonlocal calls
                calls += step

            def calls(self):
                return calls

        return Counting()

    counting = make(1)
    before = codes_of(counting)
    counting.count()

    assert counting.calls() == 1
    assert before == codes_of(counting) == codes_of(make(1)) != codes_of(make(2))
