"""Texts -> token ids.

Equal texts are encoded once. Big tables go through Hugging Face `datasets`: their ids
are written to a temporary folder as they are made, and read through a memory map.
"""

import mmap
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sk_adalora.data.texts import Texts
from sk_adalora.runtime.messages import Muted
from sk_adalora.runtime.threads import lock_of

from .table import TokenTable

# From this many distinct texts on, `datasets` keeps the ids on disk.
_BIG = 20_000
# Texts per call of the tokenizer: enough for its threads, few enough for memory and for
# other threads that wait for it.
_CHUNK = 1_000
# Characters per call, so that calls have fewer texts if these are long: each character
# takes some 40 bytes.
_CHARACTERS_A_CALL = 1_000_000
# A tokenizer reads the whole text, however few tokens are kept: seconds per MB. So only
# the start of a long text is read at first: this many characters per token wanted; most
# tokens have 3 to 6. Its tokens are those of the whole text if at least this many words
# follow the kept ones: where the start ends, only its last word can be cut.
_CHARACTERS_A_TOKEN = 16
_WORDS_BEHIND = 4

# What the thread that uses a tokenizer restores: truncation and padding.
_found: WeakKeyDictionary[Any, tuple[Any, Any]] = WeakKeyDictionary()


@contextmanager
def locked(tokenizer: Any) -> Iterator[None]:
    """Use a tokenizer exclusively, and restore the settings that calls change.

    A fast tokenizer keeps the truncation and the padding of its last call.
    """
    with lock_of(tokenizer):
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            yield
            return
        if tokenizer in _found:
            # In a child that was forked while a thread of the parent was here. That
            # thread, which the child does not have, still holds locks of the backend.
            backend = type(backend).from_str(backend.to_str())
            _give_back(backend, *_found[tokenizer])
            tokenizer._tokenizer = backend
        _found[tokenizer] = backend.truncation, backend.padding
        try:
            yield
        finally:
            _give_back(backend, *_found.pop(tokenizer))


def _give_back(backend: Any, truncation: Any, padding: Any) -> None:
    if truncation is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(**truncation)
    if padding is None:
        backend.no_padding()
    else:
        backend.enable_padding(**padding)


def encode(texts: Texts, tokenizer: Any, max_length: int) -> TokenTable:
    """Encode texts, or pairs of texts, with special tokens.

    Parameters
    ----------
    texts : Texts
        The texts, one or two a row.
    tokenizer : PreTrainedTokenizerBase
        A Hugging Face tokenizer; it is left as it was.
    max_length : int
        Texts with more tokens, special ones included, are cut; of a pair the longer.

    Returns
    -------
    TokenTable
        The token ids of all rows.
    """
    check_room(tokenizer, max_length, pair=texts.second is not None)
    text_of, distinct = _distinct(texts)
    if distinct.num_rows < _BIG:
        parts = distinct.to_batches(max_chunksize=_CHUNK)
        parts = [_encode_in_turns(part, tokenizer, max_length) for part in parts]
        flat = _flatten(pa.concat_tables(parts))
    else:
        flat = _encode_on_disk(distinct, tokenizer, max_length)
    pad_id = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    return TokenTable(text_of=text_of, pad_id=pad_id, max_length=max_length, **flat)


def distinct_texts(texts: Texts) -> tuple[np.ndarray | None, Texts]:
    """Return each row's distinct text, None where all are, and the distinct texts."""
    text_of, distinct = _distinct(texts)
    if distinct.num_rows == len(texts):
        return None, texts
    columns = [column.combine_chunks() for column in distinct.columns]
    second = columns[1] if len(columns) > 1 else None
    return text_of, replace(texts, first=columns[0], second=second)


def check_room(tokenizer: Any, max_length: int, *, pair: bool = False) -> None:
    """Refuse a length that special tokens alone would fill."""
    n_special = tokenizer.num_special_tokens_to_add(pair=pair)
    if max_length <= n_special:
        raise ValueError(
            f"`max_length` must leave room for text beside the tokenizer's {n_special} "
            f"special tokens. Got {max_length}. Raise `max_length`."
        )


def _distinct(texts: Texts) -> tuple[np.ndarray, pa.Table]:
    """Return each row's distinct text, and the distinct texts by first appearance."""
    first = texts.first.dictionary_encode()
    # Copies: torch warns of arrays that belong to Arrow. 32 bits are enough.
    rows = np.array(first.indices.to_numpy())
    if texts.second is None:
        same = len(first.dictionary) == len(texts.first)
        # Where no text is repeated, the dictionary would be a second copy of all.
        return rows, pa.table({"first": texts.first if same else first.dictionary})
    second = texts.second.dictionary_encode()
    n_second = len(second.dictionary)
    both = rows.astype(np.int64) * n_second + second.indices.to_numpy()
    pairs = pa.array(both).dictionary_encode()
    codes = pairs.dictionary.to_numpy()
    columns = {
        "first": first.dictionary.take(pa.array(codes // n_second)),
        "second": second.dictionary.take(pa.array(codes % n_second)),
    }
    return np.array(pairs.indices.to_numpy()), pa.table(columns)


def _encode_in_turns(
    part: pa.RecordBatch | pa.Table, tokenizer: Any, max_length: int
) -> pa.Table:
    """Encode some distinct texts, fewer at a time if they are long.

    Between two pieces, another thread may use the tokenizer.
    """
    pieces = []
    for piece in _few_characters(part):
        with locked(tokenizer):
            pieces.append(_encode_part(piece, tokenizer, max_length))
    return pa.Table.from_batches(pieces)


def _few_characters(
    part: pa.RecordBatch | pa.Table,
) -> Iterator[pa.RecordBatch | pa.Table]:
    """Cut a table of texts so that a piece has few characters, or is a single text."""
    lengths = sum(pc.utf8_length(text).to_numpy() for text in part.columns)
    start, characters = 0, 0
    for row, length in enumerate(lengths.tolist()):
        if start < row and characters + length > _CHARACTERS_A_CALL:
            yield part.slice(start, row - start)
            start, characters = row, 0
        characters += length
    yield part.slice(start)


def _encode_part(
    part: pa.RecordBatch | pa.Table,
    tokenizer: Any,
    max_length: int,
    *,
    whole: bool = False,
) -> pa.RecordBatch:
    """Encode some distinct texts; list columns, one row a text.

    Of a text much longer than `max_length`, the start is encoded first, and the `whole`
    only where the start leaves open what its first tokens are.
    """
    first = part["first"].to_pylist()
    second = part["second"].to_pylist() if "second" in part.schema.names else None
    with_types = second is not None and "token_type_ids" in tokenizer.model_input_names
    # Which text of a pair is cut depends on the lengths of both.
    shorten = second is None and not whole and _keeps_starts(tokenizer)
    limit = _CHARACTERS_A_TOKEN * max_length if shorten else None
    starts = [text[:limit] for text in first]
    encoded = _call(tokenizer, starts, second, max_length, with_types)
    ids = encoded["input_ids"]
    if encoded.encodings:
        ids = _without_ends_of_texts(encoded, tokenizer)
    # (n_texts,) bool; only a text of full length can have lost tokens
    truncated = np.fromiter((len(row) >= max_length for row in ids), bool, len(ids))
    for i in np.flatnonzero(truncated).tolist():
        truncated[i] = _lost_tokens(encoded, i, starts, second, tokenizer)
    cut = [i for i, text in enumerate(first) if len(starts[i]) < len(text)]
    if undecided := [i for i in cut if not _is_decided(encoded.encodings[i])]:
        rest = _encode_part(part.take(undecided), tokenizer, max_length, whole=True)
        truncated[undecided] = rest["truncated"].to_numpy(zero_copy_only=False)
        for i, row in zip(undecided, rest["ids"].to_pylist(), strict=True):
            ids[i] = row
    types = encoded["token_type_ids"] if with_types else None
    return _pack(ids, types, truncated, tokenizer)


def _pack(
    ids: list[list[int]],
    types: list[list[int]] | None,
    truncated: np.ndarray,
    tokenizer: Any,
) -> pa.RecordBatch:
    """Make columns of what a tokenizer returned; no text is left without a token."""
    filler = filler_id(tokenizer)
    columns = {"ids": _to_lists([row or [filler] for row in ids], np.int32)}
    if types is not None:
        columns["type_ids"] = _to_lists([row or [0] for row in types], np.int8)
    columns["truncated"] = pa.array(truncated)
    return pa.RecordBatch.from_pydict(columns)


def _call(
    tokenizer: Any,
    first: list[str],
    second: list[str] | None,
    max_length: int,
    with_types: bool,
) -> Any:
    """Call a tokenizer for ids alone, and the types of pairs."""
    return tokenizer(
        first,
        second,
        truncation="longest_first",
        max_length=max_length,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=with_types,
        verbose=False,
    )


def _without_ends_of_texts(encoded: Any, tokenizer: Any) -> list[list[int]]:
    """Replace end tokens that a text itself contains by the unknown token.

    T5's vocabulary has "</s>" among its pieces, so that splitting special tokens, which
    does for others, does not do for it.
    """
    replaced = replaced_end(tokenizer)
    if replaced is None:
        return encoded["input_ids"]
    end, unknown = replaced
    return [
        [
            unknown if id_ == end and not added else id_
            for id_, added in zip(row.ids, row.special_tokens_mask, strict=True)
        ]
        if end in row.ids
        else row.ids
        for row in encoded.encodings
    ]


def replaced_end(tokenizer: Any) -> tuple[int, int] | None:
    """Return the end token that texts must not contain, and what replaces it."""
    end, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
    if not getattr(tokenizer, "split_special_tokens", False) or None in (end, unknown):
        return None
    return int(end), int(unknown)


def _lost_tokens(
    encoded: Any, i: int, first: list[str], second: list[str] | None, tokenizer: Any
) -> bool:
    """Tell a text that was cut from one that just fits."""
    if encoded.encodings is not None:
        return len(encoded.encodings[i].overflowing) > 0
    pair = None if second is None else second[i]
    whole = tokenizer(first[i], pair, truncation=False, padding=False, verbose=False)
    return len(whole["input_ids"]) > len(encoded["input_ids"][i])


def _keeps_starts(tokenizer: Any) -> bool:
    """Tell whether a tokenizer cuts ends, and says which words its tokens are of."""
    return bool(tokenizer.is_fast) and tokenizer.truncation_side == "right"


def _is_decided(encoding: Any) -> bool:
    """Tell whether the tokens kept of a text's start are those of the whole text."""
    parts = [encoding, *encoding.overflowing]
    kept, *behind = [[w for w in part.word_ids if w is not None] for part in parts]
    last = max(chain.from_iterable(behind), default=-1)
    return bool(kept) and last >= kept[-1] + _WORDS_BEHIND


def filler_id(tokenizer: Any) -> int:
    """Stand-in for a text without tokens: a model needs at least one to attend to."""
    special = (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        tokenizer.unk_token_id,
        tokenizer.pad_token_id,
    )
    return next((int(id_) for id_ in special if id_ is not None), 0)


def _to_lists(rows: list[list[int]], dtype: type) -> pa.ListArray:
    """Pack rows of ints; several times faster than Arrow's own conversion."""
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    values: np.ndarray = np.fromiter(chain.from_iterable(rows), dtype, offsets[-1])
    return pa.ListArray.from_arrays(offsets, values)


def _encode_on_disk(
    distinct: pa.Table, tokenizer: Any, max_length: int
) -> dict[str, Any]:
    """Encode a big table through files, which are deleted before anything trains.

    So a process that is killed later leaves no tokens behind: a map needs no name.
    """
    folder = Path(tempfile.mkdtemp(prefix="sk_adalora_tokens_"))
    try:
        return _encode_in_folder(folder, distinct, tokenizer, max_length)
    except OSError as error:
        error.add_note(
            f"The tokens of many texts are written to a file first, in {str(folder)!r}."
            " If its disk is full, start Python with the environment variable TMPDIR "
            "set to a folder with more room."
        )
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _encode_in_folder(
    folder: Path, distinct: pa.Table, tokenizer: Any, max_length: int
) -> dict[str, Any]:
    """Encode a big table through `datasets`.

    One process even for slow tokenizers: `num_proc` would fork a process that runs
    torch's threads and replace `os.environ`; fast tokenizers use all cores anyway.
    """
    import datasets

    def encode_part(part: pa.Table) -> pa.Table:
        return _encode_in_turns(part, tokenizer, max_length)

    # With names of our own for the data and the step, `datasets` does not hash the
    # texts and the tokenizer to find names for files that we throw away.
    texts = datasets.Dataset(distinct, fingerprint="sk_adalora_texts")
    with _silent_datasets():
        encoded = texts.with_format("arrow").map(
            encode_part,
            batched=True,
            batch_size=_CHUNK,
            remove_columns=distinct.column_names,
            cache_file_name=str(folder / "encoded.arrow"),
            load_from_cache_file=False,
            new_fingerprint="sk_adalora_tokens",
        )
    table = encoded.with_format("arrow")[:]
    return _flatten(table, folder / "ids.bin")


def _flatten(encoded: pa.Table, file: Path | None = None) -> dict[str, Any]:
    """Lay the rows one after the other: in memory, or in a file."""
    ids, type_ids = encoded["ids"], None
    if "type_ids" in encoded.column_names:
        type_ids = pc.list_flatten(encoded["type_ids"]).to_numpy()
    lengths = pc.list_value_length(ids).to_numpy()
    stops = np.cumsum(lengths, dtype=np.int64)
    if stops[-1] <= np.iinfo(np.int32).max:
        stops = stops.astype(np.int32)
    flat = _write_and_map(ids, file) if file else pc.list_flatten(ids).to_numpy()
    return {
        "ids": flat,
        "starts": stops - lengths,
        "stops": stops,
        "type_ids": type_ids,
        "truncated": encoded["truncated"].to_numpy(),
    }


def _write_and_map(column: pa.ChunkedArray, path: Path) -> np.ndarray:
    """Write the values of a list column to a file, and map it into memory.

    A full disk is an error when a file is written; when a memory map is filled, it
    would end the process.
    """
    with path.open("wb") as file:
        for chunk in column.chunks:
            ids = np.ascontiguousarray(chunk.flatten().to_numpy(), np.int32)
            file.write(ids.data)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapped, np.int32)


def _has_no_bars() -> bool:
    import datasets

    return datasets.are_progress_bars_disabled()


def _set_no_bars(disabled: bool) -> None:
    import datasets

    if disabled:
        datasets.disable_progress_bars()
    else:
        datasets.enable_progress_bars()


_silent_datasets = Muted(_has_no_bars, _set_no_bars, lambda wanted: True)
