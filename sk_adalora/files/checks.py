"""What files may say of a fit: types of values, and what a fit leaves."""

from __future__ import annotations

from typing import Any, get_args, get_origin

import numpy as np


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type such as ``list[int]`` or ``int | None``."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if origin is dict:  # names are texts in JSON
        return isinstance(value, dict) and all(
            fits(item, inner[1]) for item in value.values()
        )
    if inner:
        return any(fits(value, option) for option in inner)
    if isinstance(value, np.generic):  # a score of scikit-learn's
        value = value.item()
    same = type(value) is hint or (hint is float and type(value) is int)
    mapped = hint is np.ndarray and isinstance(value, np.memmap)
    return same or mapped or hint is Any


def are_sound(fitted: dict[str, Any]) -> bool:
    """Tell whether columns and seed are what a fit leaves."""
    n_features, names = fitted["n_features_in_"], fitted.get("feature_names_in_")
    seed = fitted.get("_validation_seed", 0)
    counted = fits(n_features, int) and n_features >= 1
    named = names is None or (
        isinstance(names, np.ndarray)
        and names.shape == (n_features,)
        and {type(name) for name in names} == {str}
    )
    return counted and named and fits(seed, int) and 0 <= seed < 2**31
