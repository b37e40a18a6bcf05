"""The public names, and that their documentation says what their code does."""

import ast
import inspect
import re
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator

import sk_adalora
import sk_adalora.adalora
from sk_adalora.estimators.table_report import TableFitReport
from sk_adalora.training.loop import TrainingHistory
from sk_adalora.training.report import FitReport
from sk_adalora.training.schedule_steps import ResolvedSchedule

DOCS = Path(__file__).parent.parent / "docs"
# "name : type, default=value", or "first, second : type" for two of a kind.
PARAMETER = re.compile(r"(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*) : (?P<type>.+)")


def public(name):
    return getattr(sk_adalora, name)


def section(docstring, title):
    """Lines of one section of a numpydoc docstring, without their indentation."""
    lines = inspect.cleandoc(docstring).splitlines()
    for start, line in enumerate(lines[:-1]):
        if line == title and set(lines[start + 1]) == {"-"}:
            break
    else:
        raise AssertionError(f"the docstring has no section {title!r}")
    body = lines[start + 2 :]
    ends = [i for i, line in enumerate(body) if line and set(line) == {"-"}]
    return body[: ends[0] - 1] if ends else body


def documented_parameters(estimator):
    """Pairs (name, type) of the section Parameters, in its order."""
    pairs = []
    for line in section(estimator.__doc__, "Parameters"):
        if line and not line.startswith(" "):
            match = PARAMETER.fullmatch(line)
            assert match, f"not of the form 'name : type, default=value': {line!r}"
            pairs += [(n, match["type"]) for n in match["names"].split(", ")]
    return pairs


def descriptions(estimator):
    """What the section Parameters says of each, by its first line."""
    lines = section(estimator.__doc__, "Parameters")
    starts = [i for i, line in enumerate(lines) if line and not line.startswith(" ")]
    ends = [*starts[1:], len(lines)]
    return {
        lines[start]: " ".join(" ".join(lines[start + 1 : end]).split())
        for start, end in zip(starts, ends, strict=True)
    }


def documented_default(type_text):
    """The value after "default=", or `inspect.Parameter.empty` without one."""
    _, marker, value = type_text.partition("default=")
    if value == "np.nan":
        return float("nan")
    return ast.literal_eval(value) if marker else inspect.Parameter.empty


@pytest.fixture(params=sk_adalora.__all__)
def name(request):
    return request.param


@pytest.fixture
def estimators():
    objects = [public(name) for name in sk_adalora.__all__]
    classes = [thing for thing in objects if inspect.isclass(thing)]
    found = [thing for thing in classes if issubclass(thing, BaseEstimator)]
    assert found, "no public estimator: the tests below would check nothing"
    return found


def test_the_list_of_names_is_the_lazy_table():
    public = {name for name in sk_adalora._HOMES if not name.startswith("_")}

    assert sk_adalora.__all__ == sorted(public)


def test_each_name_resolves_to_a_thing_that_knows_its_home(name):
    home = "sk_adalora" + sk_adalora._HOMES[name]

    assert public(name).__name__ == name
    assert public(name).__module__ in ("sk_adalora", home)
    assert public(name) is public(name)


def test_dir_lists_the_names_before_they_are_used():
    assert {*sk_adalora.__all__, "__version__"} <= set(dir(sk_adalora))


def test_an_unknown_name_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match=r"'sk_adalora'.*'AdaLoraClasifier'"):
        sk_adalora.AdaLoraClasifier  # noqa: B018


def test_the_api_page_lists_the_names():
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^### `(\w+)`$", page, re.MULTILINE)) == sorted(
        sk_adalora.__all__
    )


def test_the_api_page_names_what_only_the_engine_offers():
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    part = page.split("### Files of adapters")[1].split("\n## ")[0]
    only = {*sk_adalora.adalora.__all__} - {*sk_adalora.__all__}
    functions = {n for n in only if inspect.isfunction(getattr(sk_adalora.adalora, n))}

    assert {*re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)} == functions
    assert only - functions <= {*re.findall(r"`(\w+)`", part)}


@pytest.mark.parametrize(
    ("attribute", "cls"),
    [
        ("`fit_report_`", FitReport),
        ("`fit_report_` of tables", TableFitReport),
        ("`history_`", TrainingHistory),
        ("`schedule_`", ResolvedSchedule),
    ],
)
def test_the_api_page_lists_the_fields(attribute, cls):
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {attribute} |")]
    listed = re.findall(r"`(\w+)`", row.split("|")[3])

    assert listed == [field.name for field in fields(cls)]


def test_each_name_has_a_docstring(name):
    docstring = public(name).__doc__ or ""

    assert docstring.strip()
    assert not docstring.startswith(f"{name}("), "dataclass wrote it, nobody else"


def test_each_public_method_has_a_docstring(name):
    methods = [
        member
        for member, value in vars(public(name)).items()
        if not member.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, property))
    ]

    assert [m for m in methods if not inspect.getdoc(getattr(public(name), m))] == []


def test_estimators_document_their_parameters_in_order(estimators):
    for estimator in estimators:
        documented = [parameter for parameter, _ in documented_parameters(estimator)]

        assert documented == list(inspect.signature(estimator).parameters)


def test_estimators_say_the_same_of_the_parameters_that_they_share():
    classifier = descriptions(sk_adalora.AdaLoraClassifier)
    own = ("class_weight :", "calibrate :", "thresholds :")
    classifier = {n: v for n, v in classifier.items() if not n.startswith(own)}

    assert classifier == descriptions(sk_adalora.AdaLoraRegressor)


def test_whatever_is_public_documents_its_defaults(name):
    thing = public(name)
    methods = inspect.getmembers(thing, inspect.isroutine)
    own = [value for member, value in methods if not member.startswith("_")]
    for each in (thing, *own):
        if not (each.__module__ or "").startswith("sk_adalora"):
            continue  # scikit-learn's, such as `set_score_request`
        docstring = inspect.getdoc(each) or ""
        if "\nParameters\n---" not in docstring:
            continue
        actual = inspect.signature(each).parameters
        for parameter, type_text in documented_parameters(each):
            default = documented_default(type_text)
            if default is not inspect.Parameter.empty and default != {}:
                assert repr(default) == repr(actual[parameter].default), parameter


def test_estimators_document_their_defaults(estimators):
    for estimator in estimators:
        documented = {
            parameter: documented_default(type_text)
            for parameter, type_text in documented_parameters(estimator)
        }
        actual = {
            parameter: value.default
            for parameter, value in inspect.signature(estimator).parameters.items()
        }

        # As text: 1, 1.0 and True are equal, but not the same default.
        assert {k: repr(v) for k, v in documented.items()} == {
            k: repr(v) for k, v in actual.items()
        }


def test_estimators_take_the_model_by_position_and_the_rest_by_name(estimators):
    others = {
        "AdaLoraSearchCV": ["estimator", "space"],
        "AdaLoraTableClassifier": ["encoder", "final_estimator"],
        "AdaLoraTableRegressor": ["encoder", "final_estimator"],
    }
    for estimator in estimators:
        parameters = inspect.signature(estimator).parameters.values()
        positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]

        assert positional == others.get(estimator.__name__, ["model"])


def test_the_reader_of_docstrings_reads():
    class Documented:
        __doc__ = textwrap.dedent(
            """One line.

            Parameters
            ----------
            model : str or path-like
                A text.
            beta1, beta2 : float, default=0.85
                Two of a kind.

            Attributes
            ----------
            ranks_ : dict
            """
        )

    pairs = documented_parameters(Documented)

    assert [name for name, _ in pairs] == ["model", "beta1", "beta2"]
    assert [documented_default(text) for _, text in pairs] == [
        inspect.Parameter.empty,
        0.85,
        0.85,
    ]
