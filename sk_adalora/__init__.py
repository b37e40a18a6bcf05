"""scikit-learn estimators that fine-tune a pretrained text transformer with AdaLoRA.

The public names are loaded when they are first used, so that importing the package
costs nothing: see the table below.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "AdaLoraCallback",
    "AdaLoraClassifier",
    "AdaLoraConfig",
    "AdaLoraEncoder",
    "AdaLoraModel",
    "AdaLoraRegressor",
    "AdaLoraSearchCV",
    "AdaLoraSpace",
    "AdaLoraTableClassifier",
    "AdaLoraTableRegressor",
    "BudgetDisplay",
    "BudgetSchedule",
    "EmbeddingMapDisplay",
    "Explanation",
    "Explanations",
    "OptunaPruning",
    "RankAllocationDisplay",
    "TrainingHistoryDisplay",
    "WordImportanceDisplay",
    "clear_backbone_cache",
    "get_peft_model",
    "suggest_params",
]

_HOMES = {
    "AdaLoraCallback": ".training.trainer_callback",
    "AdaLoraClassifier": ".estimators.classifier",
    "AdaLoraConfig": ".adalora.config",
    "AdaLoraEncoder": ".estimators.encoder",
    "AdaLoraModel": ".adalora.model",
    "AdaLoraRegressor": ".estimators.regressor",
    "AdaLoraSearchCV": ".search.search",
    "AdaLoraSpace": ".search.space",
    "AdaLoraTableClassifier": ".estimators.table",
    "AdaLoraTableRegressor": ".estimators.table",
    "BudgetDisplay": ".displays.displays",
    "BudgetSchedule": ".adalora.schedule",
    "EmbeddingMapDisplay": ".displays.embedding_map",
    "Explanation": ".estimators.explanation",
    "Explanations": ".estimators.explanation",
    "OptunaPruning": ".search.pruning_callback",
    "RankAllocationDisplay": ".displays.displays",
    "TrainingHistoryDisplay": ".displays.displays",
    "WordImportanceDisplay": ".displays.word_importance",
    "_new_of_a_pickle": ".estimators.base",  # pickles record it
    "clear_backbone_cache": ".pretrained.backbone",
    "get_peft_model": ".adalora.model",
    "suggest_params": ".search.space",
}

if TYPE_CHECKING:
    from .adalora.config import AdaLoraConfig
    from .adalora.model import AdaLoraModel, get_peft_model
    from .adalora.schedule import BudgetSchedule
    from .displays.displays import (
        BudgetDisplay,
        RankAllocationDisplay,
        TrainingHistoryDisplay,
    )
    from .displays.embedding_map import EmbeddingMapDisplay
    from .displays.word_importance import WordImportanceDisplay
    from .estimators.classifier import AdaLoraClassifier
    from .estimators.encoder import AdaLoraEncoder
    from .estimators.explanation import Explanation, Explanations
    from .estimators.regressor import AdaLoraRegressor
    from .estimators.table import AdaLoraTableClassifier, AdaLoraTableRegressor
    from .pretrained.backbone import clear_backbone_cache
    from .search.pruning_callback import OptunaPruning
    from .search.search import AdaLoraSearchCV
    from .search.space import AdaLoraSpace, suggest_params
    from .training.trainer_callback import AdaLoraCallback
else:  # hidden from type checkers, to which every name would exist, misspelt ones too

    def __getattr__(name: str) -> Any:
        try:
            home = _HOMES[name]
        except KeyError:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}"
            ) from None
        value = getattr(import_module(home, __name__), name)
        globals()[name] = value  # the next access does not come here
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
