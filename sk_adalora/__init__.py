"""scikit-learn estimators that fine-tune a pretrained text transformer with AdaLoRA.

The public names are loaded when they are first used, so that importing the package
costs nothing: see the table below.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

__all__ = [
    "AdaLoraClassifier",
    "AdaLoraConfig",
    "AdaLoraModel",
    "AdaLoraRegressor",
    "AdaLoraSearchCV",
    "AdaLoraSpace",
    "BudgetDisplay",
    "BudgetSchedule",
    "LoraConfig",
    "OptunaPruning",
    "RankAllocationDisplay",
    "TrainingHistoryDisplay",
    "clear_backbone_cache",
    "get_peft_model",
    "suggest_params",
]

_HOMES = {
    "AdaLoraClassifier": "._classifier",
    "AdaLoraConfig": ".adalora.config",
    "AdaLoraModel": ".adalora.model",
    "AdaLoraRegressor": "._regressor",
    "AdaLoraSearchCV": "._search",
    "AdaLoraSpace": "._space",
    "BudgetDisplay": "._displays",
    "BudgetSchedule": ".adalora.schedule",
    "LoraConfig": ".adalora.config",
    "OptunaPruning": "._optuna_pruning",
    "RankAllocationDisplay": "._displays",
    "TrainingHistoryDisplay": "._displays",
    "clear_backbone_cache": "._backbone",
    "get_peft_model": ".adalora.model",
    "suggest_params": "._space",
}

if TYPE_CHECKING:
    from ._backbone import clear_backbone_cache
    from ._classifier import AdaLoraClassifier
    from ._displays import (
        BudgetDisplay,
        RankAllocationDisplay,
        TrainingHistoryDisplay,
    )
    from ._optuna_pruning import OptunaPruning
    from ._regressor import AdaLoraRegressor
    from ._search import AdaLoraSearchCV
    from ._space import AdaLoraSpace, suggest_params
    from .adalora.config import AdaLoraConfig, LoraConfig
    from .adalora.model import AdaLoraModel, get_peft_model
    from .adalora.schedule import BudgetSchedule


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
