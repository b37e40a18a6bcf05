"""Save an estimator of mixed tables as a folder without pickle, and load it.

The encoder has a folder of its own in it; skops writes the rest. The methods of the
estimators say what each function takes and raises.
"""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.utils.validation import check_is_fitted

from sk_adalora.pretrained.weights import lies_in
from sk_adalora.runtime.rules import check_parameters

from . import folder as encoder_folder
from .layout import (
    CARD_NAME,
    OUR_MARK,
    STATE_NAME,
    refuse_links,
    settled,
    written_whole,
)
from .write import write_text

TABLE_NAME = "table.skops"
ENCODER = "encoder"
_SCHEMA = "schema.json"
_BOOSTED = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)

# A file must not take more when it is unpacked, nor so many times its own size.
_MOST_BYTES = 2**30
_MOST_TIMES = 100

# What a fit sets on its encoder, whatever the user says.
_OF_THE_FIT = {"output", "cv", "target_type"}

# The types that fits with the default final estimator need beside those that skops
# trusts: none runs code that a file holds or names. By full names: a beginning such as
# "sklearn." would admit functions that do.
OWN_TYPES = frozenset(
    """
    functools.partial
    numpy.dtype
    scipy._lib.array_api_compat.numpy._aliases.asarray
    scipy.interpolate._bsplines.BSpline
    scipy.interpolate._bsplines._BSpline
    sk_adalora.AdaLoraEncoder
    sk_adalora.AdaLoraTableClassifier
    sk_adalora.AdaLoraTableRegressor
    sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor
    sklearn.model_selection._split.KFold
    sklearn.model_selection._split.StratifiedKFold
    sklearn.utils.validation.check_array
    skrub._apply_to_each_col.ApplyToEachCol
    skrub._check_input.CheckInputDataFrame
    skrub._clean_categories.CleanCategories
    skrub._clean_null_strings.CleanNullStrings
    skrub._dataframe._common.is_any_date
    skrub._dataframe._common.is_categorical
    skrub._dataframe._common.is_numeric
    skrub._datetime_encoder.DatetimeEncoder
    skrub._datetime_encoder._SplineEncoder
    skrub._drop_uninformative.DropUninformative
    skrub._duration_to_float.DurationToFloat
    skrub._squashing_scaler.SquashingScaler
    skrub._squashing_scaler._MinMaxScaler
    skrub._string_encoder.StringEncoder
    skrub._table_vectorizer.PassThrough
    skrub._table_vectorizer.ShortReprDict
    skrub._table_vectorizer.TableVectorizer
    skrub._table_vectorizer._created_by_predicate
    skrub._to_categorical.ToCategorical
    skrub._to_datetime.ToDatetime
    skrub._to_float.ToFloat
    skrub._to_str.ToStr
    skrub.selectors._base.All
    skrub.selectors._base.And
    skrub.selectors._base.Cols
    skrub.selectors._base.Filter
    skrub.selectors._base.Sub
    skrub.selectors._selectors._cardinality_below
    """.split()
)


def _import_skops() -> Any:
    """Import skops, which the extra `tables` installs."""
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(
            "Folders of estimators of tables need skops. Got an environment without "
            "it. Run: pip install 'sk-adalora[tables]'"
        ) from error
    return skops.io


# ---- save -------------------------------------------------------------------


def save(
    estimator: Any,
    folder: str | os.PathLike[str],
    include_backbone: bool,
    overwrite: bool,
) -> None:
    """Save a fitted estimator of tables as a folder."""
    check_is_fitted(estimator)
    check_parameters(estimator, estimator._rules)
    folder, encoder = Path(os.path.expanduser(folder)), estimator.encoder_
    if encoder is not None and lies_in(encoder._ready().backbone.folder, folder):
        include_backbone = True  # the folder that is replaced has the only copy
    written = _write_table(estimator)
    with written_whole(folder, overwrite=overwrite) as staged:
        if encoder is not None:
            encoder_folder.save(encoder, staged / ENCODER, include_backbone, False)
        (staged / TABLE_NAME).write_bytes(written)
        write_text(staged / CARD_NAME, _write_card(estimator))


def _write_table(estimator: Any) -> bytes:
    """Write all but the fitted encoder, by skops."""
    skops = _import_skops()
    bare = copy.copy(estimator)
    bare.encoder_ = None
    if bare.encoder is not None:
        bare.encoder = copy.copy(bare.encoder)
        bare.encoder.model = os.fspath(bare.encoder.model)
    for each in filter(None, (bare, bare.encoder)):
        # It refers to its owner, which skops follows without end.
        vars(each).pop("_metadata_request", None)
    try:
        written = _compact(skops.dumps(bare))
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise TypeError(
            f"All of {type(estimator).__name__} must be of types that skops writes. "
            f"Got {type(error).__name__}: {str(error)[:300]}. Save with "
            "joblib, or fit with another `final_estimator`."
        ) from error
    with ZipFile(io.BytesIO(written)) as archive:
        if (size := _unpacked(archive)) > min(_MOST_BYTES, _MOST_TIMES * len(written)):
            raise ValueError(
                f"What skops writes must take at most {_MOST_BYTES} bytes. Got {size}. "
                "Save with joblib."
            )
    return written


def _compact(written: bytes) -> bytes:
    """Compress a file of skops, and leave out the blanks, most of what is in it."""
    packed = io.BytesIO()
    with (
        ZipFile(io.BytesIO(written)) as archive,
        ZipFile(packed, "w", ZIP_DEFLATED) as smaller,
    ):
        for name in archive.namelist():
            data = archive.read(name)
            if name == _SCHEMA:
                data = json.dumps(json.loads(data), separators=(",", ":")).encode()
            smaller.writestr(name, data)
    return packed.getvalue()


def _write_card(estimator: Any) -> str:
    kind = type(estimator).__name__
    return f"""---
{OUR_MARK}
tags:
- adalora
- sk-adalora
---

# {kind}

```python
from {type(estimator).__module__} import {kind}

estimator = {kind}.from_pretrained("this-folder")
estimator.predict(table)
```

`{TABLE_NAME}` is of skops; `{ENCODER}/`, if it is there, is the folder of an
AdaLoraEncoder. Nothing in the folder is pickled.

## The fit

```text
{str(estimator.fit_report_).replace("`", "'")}
```
"""


# ---- load -------------------------------------------------------------------


def load(
    cls: Any,
    encoder_cls: Any,
    source: str | os.PathLike[str],
    trusted: Sequence[str | type] | None,
    trust_remote_code: bool,
    parameters: dict[str, Any],
) -> Any:
    """Load an estimator of tables, of a class, from a folder."""
    root = _find(source)
    folder = settled(root)
    refuse_links(folder, root, TABLE_NAME)
    data = (folder / TABLE_NAME).read_bytes()
    estimator = _read_table(data, cls, trusted)
    if estimator.encoder is not None:
        encoder_cls = type(estimator.encoder)
        kwargs = dict(estimator.encoder.model_kwargs or {})
        if trust_remote_code:
            estimator.encoder.model_kwargs = {**kwargs, "trust_remote_code": True}
    if (folder / ENCODER).is_dir():
        own = {
            name.removeprefix("encoder__"): value
            for name, value in parameters.items()
            if name.startswith("encoder__")
        }
        own = {name: value for name, value in own.items() if name not in _OF_THE_FIT}
        estimator.encoder_ = encoder_folder.load(
            encoder_cls, folder / ENCODER, None, None, trust_remote_code, own
        )
    elif _shares(estimator) & {"vectors", "text"}:
        raise FileNotFoundError(
            f"The folder must hold {ENCODER!r}, which the estimator predicts with. Got "
            f"{str(folder)!r} without it. Copy the folder again."
        )
    estimator.set_params(**parameters)
    check_parameters(estimator, cls._rules)
    if (folder / TABLE_NAME).read_bytes() != data:
        raise ValueError(
            "The folder must stay as it is while it is read. Got "
            f"{str(folder)!r}, which was replaced just now: load it again."
        )
    return estimator


def _find(source: str | os.PathLike[str]) -> Path:
    """Return the folder."""
    root = Path(os.path.expanduser(source)).resolve()
    folder = settled(root)
    if (folder / TABLE_NAME).is_file():
        return root
    name = os.fspath(source)
    if (folder / STATE_NAME).is_file():
        raise ValueError(
            f"`source` must hold an estimator of tables. Got {name!r}, which holds "
            "another. Load it with its own class."
        )
    raise FileNotFoundError(
        f"`source` must be a folder with {TABLE_NAME}, which `save_pretrained` wrote. "
        f"Got {name!r}, which is none. Check the path. What is on the hub, download "
        "before, by huggingface_hub.snapshot_download."
    )


def _broken(got: str) -> ValueError:
    return ValueError(
        f"{TABLE_NAME} must hold what `save_pretrained` wrote. Got {got}. The file is "
        "broken, or was changed: copy the folder again."
    )


def _read_table(data: bytes, cls: Any, trusted: Sequence[str | type] | None) -> Any:
    """Read what skops has written: an estimator of this class, without its encoder."""
    skops = _import_skops()
    of_user = [t if isinstance(t, str) else _name_of(t) for t in trusted or ()]
    allowed = OWN_TYPES.union(of_user)
    try:  # skops raises whatever a wrong value leads to
        _check_size(data)
        unknown = {*skops.get_untrusted_types(data=data)} - allowed
        estimator = None if unknown else skops.loads(data, trusted=[*allowed])
        sound = type(estimator) is not cls or _is_sound(estimator)
    except Exception as error:
        raise _broken(f"{type(error).__name__}: {str(error)[:300]}") from error
    if unknown:
        raise ValueError(
            f"{TABLE_NAME} must hold types that are trusted. Got others: "
            f"{_listed(unknown)}. Pass their names as `trusted`, a list, if you trust "
            "whoever wrote the file."
        )
    if type(estimator) is not cls:
        raise ValueError(
            f"The folder must hold an estimator of class {cls.__name__}. Got "
            f"{type(estimator).__name__[:80]}. Load it with its own class."
        )
    if not sound:
        raise _broken("an estimator that no fit leaves so")
    return estimator


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def _listed(names: set[str]) -> str:
    """Write the first names for an error message."""
    shown = [repr(name[:80]) for name in sorted(names)]
    more = [f"{len(shown) - 10} more"] if len(shown) > 10 else []
    return ", ".join(shown[:10] + more)


def _check_size(data: bytes) -> None:
    """Refuse a file that takes much more when it is unpacked than it has itself."""
    with ZipFile(io.BytesIO(data)) as archive:
        most = min(_MOST_BYTES, _MOST_TIMES * len(data))
        if sum(entry.file_size for entry in archive.infolist()) > most:
            raise ValueError(f"more than {most} bytes when unpacked")
        if _unpacked(archive) > most:
            raise ValueError(f"more than {most} bytes when read")


def _unpacked(archive: ZipFile) -> int:
    """Return how many bytes skops reads: of an entry as often as it is referred to."""
    size, left = archive.getinfo(_SCHEMA).file_size, [json.loads(archive.read(_SCHEMA))]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(name := value.get("file"), str):
                size += archive.getinfo(name).file_size
            if value.get("__loader__") == "SparseMatrixNode":  # an archive in it
                with ZipFile(io.BytesIO(archive.read(value["file"]))) as inner:
                    size += sum(entry.file_size for entry in inner.infolist())
            left += value.values()
        elif isinstance(value, list):
            left += value
    return size


# ---- what no type tells -----------------------------------------------------


def _shares(estimator: Any) -> set[str]:
    """Return the parts that have a share in predictions."""
    return {part for part, share in estimator.weights_.items() if share}


def _is_sound(estimator: Any) -> bool:
    """Tell whether attributes are there as a fit leaves them."""
    estimator.get_params()  # raises if there is none
    check_parameters(estimator, estimator._rules)
    dicts = ("weights_", "named_estimators_", "column_roles_", "_date_formats")
    fitted = vars(estimator)
    return (
        all(isinstance(fitted.get(name), dict) for name in dicts)
        and {"fit_report_", "n_features_in_", "_constants"} <= fitted.keys()
        and estimator._targets.is_sound()
        and _shares(estimator) - {"text"} <= estimator.named_estimators_.keys()
        and all(map(_has_sound_trees, _inside(estimator.named_estimators_)))
    )


def _inside(value: Any) -> Iterator[Any]:
    """Yield an object and all that it holds, each once."""
    left, known = [value], {id(value)}
    while left:
        value = left.pop()
        yield value
        if isinstance(value, ModuleType):  # of functions that are held
            continue
        if isinstance(value, list | tuple):
            inner = [*value]
        else:
            held = value if isinstance(value, dict) else getattr(value, "__dict__", {})
            inner = [*held.values()]
        left += [each for each in inner if id(each) not in known]
        known |= {id(each) for each in inner}


def _has_sound_trees(value: Any) -> bool:
    """Tell whether the trees of a boosted learner stay inside their arrays."""
    if not isinstance(value, _BOOSTED) or "_predictors" not in vars(value):
        return True
    categorical = value._bin_mapper.is_categorical_ != 0
    trees = [tree for trees in value._predictors for tree in trees]
    return categorical.shape == (value.n_features_in_,) and all(
        _is_sound_tree(tree, categorical) for tree in trees
    )


def _is_sound_tree(tree: Any, categorical: np.ndarray) -> bool:
    """Tell whether all places in a tree exist: scikit-learn does not look.

    A branch leads to nodes further on, so that each walk ends. `categorical` tells of
    each feature, of shape (n_features,), whether it is one.
    """
    is_branch = tree.nodes["is_leaf"] == 0
    branches, places = tree.nodes[is_branch], np.flatnonzero(is_branch)
    features, by_set = branches["feature_idx"], branches["is_categorical"] != 0
    return bool(
        len(tree.nodes)
        and (places < np.minimum(branches["left"], branches["right"])).all()
        and (branches["left"] < len(tree.nodes)).all()
        and (branches["right"] < len(tree.nodes)).all()
        and (features >= 0).all()
        and (features < len(categorical)).all()
        and categorical[features[by_set]].all()
        and (branches["bitset_idx"][by_set] < len(tree.raw_left_cat_bitsets)).all()
    )
