"""The AdaLoRA engine: adapt any torch model. Needs torch and safetensors only."""

from .allocator import RankAllocator
from .config import AdaLoraConfig
from .layers import SVDLinear
from .model import AdaLoraModel, get_peft_model
from .row_bank import RowBank
from .save_load import export_lora, load_peft_adapter, save_adapter
from .schedule import BudgetSchedule
from .triplets import Triplets

__all__ = [
    "AdaLoraConfig",
    "AdaLoraModel",
    "BudgetSchedule",
    "RankAllocator",
    "RowBank",
    "SVDLinear",
    "Triplets",
    "export_lora",
    "get_peft_model",
    "load_peft_adapter",
    "save_adapter",
]
