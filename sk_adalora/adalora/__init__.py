"""The AdaLoRA engine: adapt any torch model. Needs torch and safetensors only."""

from .allocator import RankAllocator
from .config import AdaLoraConfig, LoraConfig
from .layers import SVDLinear
from .model import AdaLoraModel, get_peft_model
from .peft_format import export_lora, save_adapter
from .read_peft import load_peft_adapter
from .row_bank import RowBank
from .schedule import BudgetSchedule
from .triplets import Triplets

__all__ = [
    "AdaLoraConfig",
    "AdaLoraModel",
    "BudgetSchedule",
    "LoraConfig",
    "RankAllocator",
    "RowBank",
    "SVDLinear",
    "Triplets",
    "export_lora",
    "get_peft_model",
    "load_peft_adapter",
    "save_adapter",
]
