"""Read a pretrained encoder and its tokenizer from a folder, and try it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from logging import ERROR
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sk_adalora.runtime.devices import Compute, computes, lacks_memory
from sk_adalora.runtime.messages import Muted

from .find import Request
from .weights import SAMPLES, no_tokenizer, weight_names

# What a tokenizer and a model are tried on.
TRIAL_TEXT = "A few words are enough."
# A tokenizer with fewer tokens beside the special ones has no vocabulary: the empty
# tokenizer of a T5 has 1.
_FEWEST_TOKENS = 2
# Name of the token types, which tell the texts of a pair apart.
_TYPES = "token_type_ids"
_ENCODER = "get_encoder()"
# How a model of transformers looks for padding in a batch that has no mask.
_PADDING_CHECK = "warn_if_padding_and_no_attention_mask"
# How many bytes a model may take beside so many times those of its weights. They may be
# of 4 bits a number, and be those of an encoder whose decoder is made beside it.
_FREE_BYTES, _MOST_TIMES = 2**26, 16
# The number of types of models that accept any: above all that tokenizers return.
_ANY_TYPES = 128


@dataclass(frozen=True)
class Pretrained:
    """What is read from a model's folder.

    Parameters
    ----------
    module : torch.nn.Module
        The model, or the part of it that reads texts.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    part : str
        How to get `module` from what the folder holds, such as "get_encoder()"; "" if
        it is all of it.
    drawn : tuple of str
        Names, in the whole, of the weights of `module` that the files lack, or have in
        another shape. They are newly initialised.
    """

    module: nn.Module
    tokenizer: Any
    part: str
    drawn: tuple[str, ...]


def read_pretrained(
    folder: Path,
    compute: Compute,
    asked: Request,
    n_labels: int | None,
) -> Pretrained:
    """Read tokenizer and weights; freeze them where they will be used.

    Parameters
    ----------
    folder : Path
        A model's folder, which :func:`check_folder` has looked at.
    compute : Compute
        Device and precision of the weights.
    asked : Request
        What transformers gets. Code alone may come from another repository on the hub,
        which the model names: nothing else is fetched for a folder.
    n_labels : int or None
        Outputs of the architecture's own classification head. None leaves it out.

    Returns
    -------
    Pretrained
    """
    tokenizer = _read_tokenizer(folder, asked)
    if n_labels and tokenizer.pad_token_id is None:
        raise ValueError(_no_padding(folder))
    whole, lacking = read_module(folder, compute, asked, n_labels)
    part = "" if n_labels else _name_of_text_part(whole)
    module = _part(whole, part)
    # The decoder beside an encoder may be lacking: nobody computes with it.
    used = {id(p) for p in module.parameters()}
    names = whole.named_parameters(remove_duplicate=False)
    drawn = tuple(sorted(n for n, p in names if id(p) in used and n in lacking))
    if n_labels:
        _agree_on_tokens(whole, tokenizer)
    elif not hasattr(module, "config"):  # FSMT's encoder
        raise ValueError(
            "`model` must be a text model of transformers, or have one as its "
            f"encoder. Got {str(folder)!r}, whose encoder is a plain "
            f"{type(module).__name__}. Give another one."
        )
    _agree_on_types(module, tokenizer)
    config: Any = module.config
    config.use_cache = False
    module = module.requires_grad_(False).eval()
    if "quantization_config" not in asked.options:  # else it is there already
        module = module.to(compute.device)
    return Pretrained(module, tokenizer, part, drawn)


def read_module(
    folder: Path,
    compute: Compute,
    asked: Request,
    n_labels: int | None = None,
) -> tuple[Any, set[str]]:
    """Read the weights; return the model, and the names of those that were drawn."""
    import transformers

    kind = "AutoModel"
    options: dict[str, Any] = {
        "attn_implementation": compute.attention,
        # No code of the hub that nobody asked for.
        "use_kernels": False,
    }
    if n_labels:  # a checkpoint may have a head for other labels
        kind = "AutoModelForSequenceClassification"
        options |= {"num_labels": n_labels, "ignore_mismatched_sizes": True}
    if "quantization_config" in asked.options:
        options["device_map"] = {"": compute.device}
    # Weights that the files lack, such as an unused pooler's, are drawn at random:
    # always with the same seed, and the state of the global generator is restored.
    random_apart = torch.random.fork_rng(devices=[])
    # Not in inference mode, even if a prediction loads the model: fits share its
    # weights, and need gradients of what is computed from them.
    trainable = torch.inference_mode(False)
    with silent_transformers(), random_apart, trainable, _named_errors(folder):
        loader = getattr(transformers, kind)
        if not asked.trust_remote_code:
            _check_size(loader, folder, compute)
        torch.default_generator.manual_seed(0)
        module, found = loader.from_pretrained(
            folder,
            output_loading_info=True,
            dtype=compute.dtype,
            **_code_of(asked),
            **(options | dict(asked.options)),
        )
        attend_in_full(module)
        skip_padding_check(module)
    of_other_shapes = {name for name, *_ in found["mismatched_keys"]}
    return module, of_other_shapes | found["missing_keys"]


def _check_size(loader: Any, folder: Path, compute: Compute) -> None:
    """Refuse settings of a model that would be much larger than the files of weights.

    What the files lack is drawn at random: an embedding of any size, for example.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):  # takes no memory
        model = loader.from_config(config, attn_implementation=compute.attention)
    tensors = [*model.parameters(), *model.buffers()]
    size = sum(4 * tensor.numel() for tensor in tensors)
    stored = sum((folder / name).stat().st_size for name in weight_names(folder))
    if size > _FREE_BYTES + _MOST_TIMES * stored:
        raise ValueError(
            f"its settings ask for {size} bytes of numbers, and there are {stored} in "
            "the files of weights"
        )


def _code_of(asked: Request) -> dict[str, bool]:
    """Return where code may come from; nothing else is fetched for a folder."""
    fetches = asked.trust_remote_code and not asked.local_files_only
    return {
        "trust_remote_code": asked.trust_remote_code,
        "local_files_only": not fetches,
    }


def _read_tokenizer(folder: Path, asked: Request) -> Any:
    """Read a tokenizer; that of ByT5, for one, needs no vocabulary."""
    import transformers

    with silent_transformers(), _named_errors(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, **_code_of(asked)
        )
    # Where transformers finds no vocabulary, it makes an empty one and says nothing.
    n_special = len(set(tokenizer.all_special_ids))
    if len(tokenizer) < n_special + _FEWEST_TOKENS:
        raise ValueError(no_tokenizer(folder))
    if tokenizer.pad_token is None:  # GPT-2 has none
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"  # as our batches, for programs that get a copy
    try:
        tokenizer([TRIAL_TEXT, *SAMPLES])
    except Exception as error:
        if lacks_memory(error):
            raise
        reason = str(error).rstrip(".")
        raise ValueError(
            "The tokenizer of `model` must read any text. Got that of "
            f"{str(folder)!r}, which raised {type(error).__name__}: {reason}. If it "
            "lacks an `unk_token` for what it does not know, set one, and save it."
        ) from error
    return tokenizer


def _agree_on_tokens(module: nn.Module, tokenizer: Any) -> None:
    """Set up padding and end tokens as a model's own classification head needs them."""
    config: Any = module.config
    for part in (config, getattr(config, "text_config", None) or config):
        # A decoder's head reads the last token before the padding.
        part.pad_token_id = tokenizer.pad_token_id
    # The heads of BART and T5 need the same number of end tokens in each text, and read
    # the last: special tokens that a text itself contains are split.
    tokenizer.split_special_tokens = _has_decoder(module)


def _agree_on_types(module: nn.Module, tokenizer: Any) -> None:
    """Have a tokenizer return token types if the model tells pairs apart by them.

    By default, most tokenizers that can write them do not return them, as ALBERT's, and
    some return types that their model has no embedding for.
    """
    count, names = _count_types(module), [*tokenizer.model_input_names]
    told = False
    if count > 1:
        # The types come from a template, so any pair shows them. RoBERTa's are all 0.
        pair = tokenizer("a", "b", return_token_type_ids=True)
        told = 0 < max(pair.get(_TYPES) or [0]) < count
    if told != (_TYPES in names):
        others = [name for name in names if name != _TYPES]
        tokenizer.model_input_names = [*others, _TYPES] if told else others


def _count_types(module: nn.Module) -> int:
    """Return how many types of tokens a model tells apart; 0 if it takes none."""
    if not _takes(module, _TYPES):
        return 0
    # XLNet and Funnel only compare the types of two tokens.
    if any(name.endswith("seg_embed") for name, _ in module.named_parameters()):
        return _ANY_TYPES
    # Without this number, types mean something else: GPT-2 takes them for tokens.
    return getattr(module.config, "type_vocab_size", None) or 0


def _takes(module: nn.Module, name: str) -> bool:
    """Tell whether a model has an argument of this name."""
    return name in inspect.signature(module.forward).parameters


def attend_in_full(module: nn.Module) -> None:
    """Have BigBird compute full attention from the start.

    BigBird switches to full attention at its first short batch, and for good: later
    predictions for long texts would then be different.
    """
    config: Any = module.config
    for part in list(module.modules()):
        switch = getattr(part, "set_attention_type", None)
        if switch is not None:
            switch("original_full")
            config.attention_type = "original_full"


def skip_padding_check(module: nn.Module) -> None:
    """Have a model not look for padding in batches without a mask: they have none.

    An empty text may be the one token that also pads, of which the model would warn.
    And on a GPU, each look waits for the device.
    """
    for part in module.modules():
        if hasattr(part, _PADDING_CHECK):
            setattr(part, _PADDING_CHECK, lambda input_ids, attention_mask: None)


def text_part(whole: nn.Module) -> nn.Module:
    """Return the part of a model that turns token ids into vectors, or all of it.

    It is the encoder of an encoder-decoder, and the text model of a model for texts and
    images, such as Gemma 3, CLIP or Qwen2-VL.
    """
    return _part(whole, _name_of_text_part(whole))


def _name_of_text_part(whole: Any) -> str:
    """Return the attribute or call that gets the text part; "" if it is all."""
    if whole.config.is_encoder_decoder:
        return _ENCODER
    for name in ("language_model", "text_model"):
        if isinstance(getattr(whole, name, None), nn.Module):
            return name
    return _ENCODER if _has_decoder(whole) else ""


def _has_decoder(whole: Any) -> bool:
    """Tell whether a model is an encoder-decoder.

    T5EncoderModel writes that it is none, but transformers makes both parts of it.
    """
    return whole.config.is_encoder_decoder or _takes(whole, "decoder_input_ids")


def _part(whole: Any, name: str) -> nn.Module:
    if name == _ENCODER:
        return whole.get_encoder()
    return getattr(whole, name) if name else whole


def shared_copy(module: nn.Module) -> nn.Module:
    """Return a module of its own over the same parameters."""
    shared = {id(p): p for p in module.parameters()}
    return copy.deepcopy(module, memo=shared)


def skip_pooler(module: nn.Module) -> None:
    """Have BERT's pooler return what it is given, since nothing reads its output.

    Its weights stay, for whoever saves the model. oneDNN would compile a kernel for it
    at each shape of a batch, of 0.6 MB.
    """
    pooler = getattr(module, "pooler", None)
    if isinstance(pooler, nn.Module):
        pooler.forward = lambda hidden: hidden


def count_vectors(module: Any) -> int | None:
    """Return how many tokens a model has vectors for, or None if it does not tell."""
    try:
        table = module.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return table.num_embeddings if isinstance(table, nn.Embedding) else None


def _no_padding(folder: Path) -> str:
    return (
        "With pooling='model', the tokenizer of `model` must have a token for "
        "padding or for the end, by which the model knows where a text ends. Got "
        f"{str(folder)!r} with neither. Set `pad_token` in its tokenizer_config.json, "
        "or choose another `pooling`."
    )


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """Say which model it is that cannot be read."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            "`model` must be one that transformers can read with what is installed. "
            f"Got {str(folder)!r}, with which it raised {type(error).__name__}: "
            f"{str(error).strip()} Install the package."
        ) from error
    except Exception as error:
        if lacks_memory(error):
            raise
        # transformers goes on with the names of all that it has.
        reason, lacks, _ = str(error).partition("\nModel type should be one of")
        do = "Choose another `model` or `pooling`." if lacks else "Check the files."
        if reason.startswith("Weights only load failed"):  # torch would have it run
            reason = "its weights are a pickle, which may run code."
            do = "Give a `model` with weights in safetensors."
        raise ValueError(
            f"`model` must be one that transformers can read. Got {str(folder)!r}, "
            f"with which it raised {type(error).__name__}: {reason} {do}"
        ) from error


def _read_verbosity() -> tuple[int, bool]:
    from transformers.utils import logging

    return logging.get_verbosity(), logging.is_progress_bar_enabled()


def _set_verbosity(setting: tuple[int, bool]) -> None:
    from transformers.utils import logging

    verbosity, bars = setting
    logging.set_verbosity(verbosity)
    if bars:
        logging.enable_progress_bar()
    else:
        logging.disable_progress_bar()


# Keeps transformers' progress bars and loading reports off the screen.
silent_transformers = Muted(
    _read_verbosity, _set_verbosity, lambda wanted: (ERROR, False)
)


# ---- a trial, before anything is trained --------------------------------------

# So many tokens of a text are tried: ids of our own may be too high for the model, or
# mean padding.
_MOST = 4
# A head is tried on these. CANINE's needs four characters.
_TEXTS = ("A few", "A few words", "Words are enough")
# Up to this share of the largest number, a change counts as rounding.
_LEAST_SHARE = 1e-4
# The same for the outputs of a head in half precision, of texts in other shapes.
_SHARE_OF_HALF = 0.1


@dataclass(frozen=True)
class TrialResult:
    """What a trial found out about a model.

    Parameters
    ----------
    width : int
        Length of a hidden state, or 0 if it is not known. Configs do not tell: OPT may
        project what it returns, and Reformer returns twice the width that it computes
        in.
    sees_padding : bool
        Whether the vectors of a text depend on what it is padded with; of a model with
        a head of its own, whether the outputs depend on padding.
    """

    width: int
    sees_padding: bool


class CannotComputeError(ValueError):
    """A model fails on a few tokens, at least in this precision."""


def try_model(
    pretrained: Pretrained, compute: Compute, folder: Path, *, has_head: bool
) -> TrialResult:
    """Compute the hidden states of a few tokens, or what a head makes of them.

    A model with a head of its own need not give each token a vector, as Funnel does
    not. `folder` is where it was read from, for the message.

    Raises
    ------
    CannotComputeError
        If the model fails, and not for lack of memory or by the device's fault.
    """
    model, tokenizer = shared_copy(pretrained.module), pretrained.tokenizer
    whole: Any = model
    body = text_part(whole.base_model) if has_head else model
    tried = _TEXTS if has_head else ()
    texts = [tokenizer(text)["input_ids"] or [0] for text in tried]
    ids = tokenizer(TRIAL_TEXT)["input_ids"][:_MOST] or [0]
    pad_id = tokenizer.pad_token_id or 0
    try:
        _check_ids(body, sum(texts, [*ids, pad_id]))
        if has_head and _head_sees_padding(model, texts, pad_id, compute):
            return TrialResult(0, True)
        skip_pooler(body)
        alone = _hidden(body, torch.tensor([ids], device=compute.device))
        if alone.shape[:2] != (1, len(ids)):
            if has_head:
                return TrialResult(0, False)
            raise TypeError(f"{len(ids)} tokens became {tuple(alone.shape[1:-1])}")
        return TrialResult(alone.shape[2], _sees_padding(body, ids, pad_id, alone))
    except Exception as error:
        if lacks_memory(error) or not computes(compute.device):
            raise  # it tells nothing of the model
        raise CannotComputeError(_refusal(model, compute, folder, error)) from error


def _check_ids(body: nn.Module, ids: list[int]) -> None:
    """Refuse tokens that the model has no vector for.

    CUDA would raise an error too, but after it the process cannot use the GPU any more;
    and Apple's GPUs would raise none.
    """
    count = count_vectors(body)
    if count is not None and max(ids) >= count:
        raise IndexError(
            f"the tokenizer gave token {max(ids)}, and there are vectors for {count} "
            "tokens"
        )


def _sees_padding(body: nn.Module, ids: list[int], pad_id: int, alone: Tensor) -> bool:
    """Tell whether tokens that the mask leaves out change the others.

    Two paddings of the same shape are compared, which most models compute alike to the
    last bit in any precision. MobileBERT also reads the next token, whose embedding is
    0 where it is padding: so the text must differ from the text without padding too.
    """
    count = len(ids)
    kept = torch.tensor([[1] * count + [0] * count], device=alone.device)
    padded, other = (
        _hidden(body, torch.tensor([ids + behind], device=alone.device), kept)
        for behind in ([pad_id] * count, ids[::-1])
    )
    padded, other = padded[:, :count].float(), other[:, :count].float()
    # Mixtures of experts round differently if other tokens are beside those of a text.
    rounding = max(_LEAST_SHARE, 2 * torch.finfo(alone.dtype).eps)
    limit = rounding * float(alone.abs().max())
    change = float((padded - other).abs().max())
    return change > limit and float((padded - alone.float()).abs().max()) > limit


def _head_sees_padding(
    model: nn.Module, texts: list[list[int]], pad_id: int, compute: Compute
) -> bool:
    """Tell whether a head gives texts other outputs in a padded batch than alone.

    XLNet's reads the last position, which is padding there; T5Gemma's the one after the
    last token. The batch cannot be padded with anything else for comparison: the heads
    of decoders find the last token by the padding behind it.
    """
    most = max(map(len, texts)) + 2
    as_tensor = partial(torch.tensor, device=compute.device)
    ids = [text + [pad_id] * (most - len(text)) for text in texts]
    kept = [[1] * len(text) + [0] * (most - len(text)) for text in texts]
    padded = _run(model, as_tensor(ids), as_tensor(kept)).logits.float()
    alone = [_run(model, as_tensor([text])).logits for text in texts]
    expected = torch.cat(alone).float()
    share = _LEAST_SHARE if compute.precision == "float32" else _SHARE_OF_HALF
    return bool((padded - expected).abs().max() > share * expected.abs().max())


def _hidden(body: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the hidden states of some tokens, of shape (1, t, w)."""
    return _run(body, ids, mask).last_hidden_state


def _run(model: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Any:
    """Return what a model returns for some tokens."""
    apart, plain = torch.random.fork_rng(devices=[]), torch.inference_mode(False)
    with silent_transformers(), apart, plain, torch.no_grad():
        return model(input_ids=ids, attention_mask=mask)


def _refusal(model: nn.Module, compute: Compute, folder: Path, error: Exception) -> str:
    do = "Give one that was pretrained on texts, and takes them at any length."
    if compute.dtype != torch.float32:
        do = (
            "If it cannot compute in this precision, set precision='float32'. "
            "Otherwise, give a model that was pretrained on texts."
        )
    return (
        "`model` must be a text model, which turns each token into a vector. Got "
        f"{str(folder)!r}, a {type(model).__name__}, which failed on a few tokens in "
        f"{str(compute.dtype).removeprefix('torch.')} with {type(error).__name__}: "
        f"{error}. {do}"
    )
