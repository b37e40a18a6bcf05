"""The AdaLoRA engine: adapt any torch model. Needs torch and safetensors only."""

from .allocator import RankAllocator
from .config import AdaLoraConfig, LoraConfig
from .layers import SVDLinear
from .model import AdaLoraModel, get_peft_model
from .schedule import BudgetSchedule
from .triplets import RowBank, Triplets

__all__ = [
    "AdaLoraConfig",
    "AdaLoraModel",
    "BudgetSchedule",
    "LoraConfig",
    "RankAllocator",
    "RowBank",
    "SVDLinear",
    "Triplets",
    "get_peft_model",
]
