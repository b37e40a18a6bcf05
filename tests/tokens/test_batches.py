"""Token ids -> padded batches."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sk_adalora.tokens.batches import (
    micro_batches,
    pad,
    padded_length,
    prediction_batches,
    round_count_down,
    round_count_up,
    training_batches,
    uniform_batches,
)


@dataclass
class Table:
    """Made-up token ids: row r is `length` tokens 100 r, 100 r + 1, ..."""

    ids: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    text_of: np.ndarray
    type_ids: np.ndarray | None
    pad_id: int = 9

    @property
    def lengths(self):
        return (self.stops - self.starts)[self.text_of]

    @property
    def max_length(self):
        return int(self.lengths.max())

    def __len__(self):
        return len(self.text_of)


def make_table(lengths, rows=None, typed=False):
    lengths = np.asarray(lengths)
    stops = np.cumsum(lengths)
    ids = np.concatenate([100 * r + np.arange(n) for r, n in enumerate(lengths)])
    type_ids = (ids % 2).astype(np.int8) if typed else None
    text_of = np.arange(len(lengths)) if rows is None else np.asarray(rows)
    return Table(ids.astype(np.int32), stops - lengths, stops, text_of, type_ids)


def naive_pad(table, rows):
    """What `pad` should give, one row at a time."""
    width = max(table.lengths[row] for row in rows)
    ids, mask, types = [], [], []
    for row in rows:
        span = slice(table.starts[table.text_of[row]], table.stops[table.text_of[row]])
        tokens = table.ids[span].tolist()
        gap = width - len(tokens)
        ids.append(tokens + [table.pad_id] * gap)
        mask.append([1] * len(tokens) + [0] * gap)
        if table.type_ids is not None:
            types.append(table.type_ids[span].tolist() + [0] * gap)
    return ids, mask, types


lengths_lists = st.lists(st.integers(1, 12), min_size=1, max_size=20)


@given(lengths_lists, st.booleans(), st.data())
def test_pad_equals_the_naive_reference(lengths, typed, data):
    positions = st.lists(st.integers(0, len(lengths) - 1), min_size=1)
    table = make_table(lengths, data.draw(positions), typed)
    rows = np.array(
        data.draw(st.lists(st.integers(0, len(table) - 1), min_size=1)), dtype=np.int64
    )
    batch = pad(table, rows)
    ids, mask, types = naive_pad(table, rows)
    assert batch.input_ids.tolist() == ids
    assert batch.input_ids.dtype == torch.int64
    if batch.attention_mask is None:
        assert np.all(mask)
    else:
        assert batch.attention_mask.tolist() == mask
        assert batch.attention_mask.dtype == torch.int64
    assert (batch.token_type_ids is None) is not typed
    if typed:
        assert batch.token_type_ids.tolist() == types


@given(lengths_lists, st.integers(1, 8), st.data())
def test_pad_to_a_multiple_adds_padding_only(lengths, multiple, data):
    table = make_table(lengths)
    places = st.lists(st.integers(0, len(lengths) - 1), min_size=1)
    rows = np.array(data.draw(places), dtype=np.int64)
    plain, wide = pad(table, rows), pad(table, rows, multiple)
    length, width = plain.input_ids.shape[1], wide.input_ids.shape[1]

    assert width == padded_length(length, multiple, max(lengths))
    assert torch.equal(wide.input_ids[:, :length], plain.input_ids)
    assert (wide.input_ids[:, length:] == table.pad_id).all()
    if wide.attention_mask is not None:
        assert not wide.attention_mask[:, length:].any()


def test_long_batches_are_padded_to_few_lengths():
    table = make_table([*range(1, 385), 512])

    def widths(first, last):
        rows = [np.array([i - 1]) for i in range(first, last + 1)]
        return {pad(table, row, 4).input_ids.shape[1] for row in rows}

    assert widths(1, 48) == set(range(4, 49, 4))
    assert widths(49, 96) == {56, 64, 72, 80, 88, 96}
    assert widths(97, 192) == {112, 128, 144, 160, 176, 192}
    assert widths(193, 384) == {224, 256, 288, 320, 352, 384}
    assert pad(table, np.array([382])).input_ids.shape[1] == 383  # unless asked for


def test_a_batch_moves_to_a_device_whole():
    batch = pad(make_table([3, 2], typed=True), np.array([1, 0]))
    moved = batch.to(torch.device("meta"))
    bare = pad(make_table([3]), np.array([0])).to(torch.device("cpu"))

    assert moved.input_ids.device.type == "meta"
    assert moved.attention_mask.device.type == "meta"
    assert moved.token_type_ids.device.type == "meta"
    assert bare.attention_mask is bare.token_type_ids is None


@pytest.mark.gpu
def test_a_batch_on_cuda_holds_the_same():
    batch = pad(make_table([3, 2]), np.array([1, 0]))
    moved = batch.to(torch.device("cuda"))
    assert moved.input_ids.is_cuda
    assert torch.equal(moved.input_ids.cpu(), batch.input_ids)
    assert torch.equal(moved.attention_mask.cpu(), batch.attention_mask)


@given(lengths_lists, st.integers(1, 25), st.integers(0, 2**32))
def test_training_batches_hold_every_row_once(lengths, batch_size, seed):
    table = make_table(lengths)
    generator = torch.Generator().manual_seed(seed)
    batches = training_batches(table, batch_size, generator)
    assert len(batches) == math.ceil(len(table) / batch_size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(table)))
    sizes = [*map(len, batches)]
    assert max(sizes) - min(sizes) <= 1


@pytest.fixture(scope="module")
def mixed():
    """20,000 rows of 5 to 120 tokens. Do not change it."""
    rng = np.random.default_rng(0)
    return make_table(rng.integers(5, 120, 20_000))


def test_training_batches_are_seeded(mixed):
    def deal(generator):
        return [batch.tolist() for batch in training_batches(mixed, 32, generator)]

    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(3)
    first, second = deal(generator), deal(generator)
    assert first != second
    assert deal(torch.Generator().manual_seed(3)) == first
    assert torch.equal(torch.get_rng_state(), before)


def test_grouping_by_length_saves_padding(mixed):
    generator = torch.Generator().manual_seed(0)
    batches = training_batches(mixed, 32, generator)
    size = sum(len(batch) * mixed.lengths[batch].max() for batch in batches)
    assert size < 1.03 * mixed.lengths.sum()


@pytest.mark.parametrize("batch_size", [32, 400])
def test_an_epoch_does_not_run_from_short_to_long(mixed, batch_size):
    generator = torch.Generator().manual_seed(0)
    batches = training_batches(mixed, batch_size, generator)
    longest = np.array([mixed.lengths[batch].max() for batch in batches])
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2


@pytest.mark.parametrize(("n_batches", "same"), [(1, True), (50, True), (51, False)])
def test_up_to_50_batches_are_the_same_in_each_epoch(n_batches, same):
    """In another order; of more of them, rows meet others in each epoch."""
    table = make_table(np.arange(1, 3 * n_batches + 1))  # no two of one length
    generator = torch.Generator().manual_seed(0)

    def deal():
        batches = training_batches(table, 3, generator)
        return {frozenset(batch.tolist()) for batch in batches}

    assert (deal() == deal()) == same


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=50),
    st.integers(1, 300),
    st.integers(1, 8),
)
def test_prediction_batches_come_longest_first_and_fit(lengths, max_tokens, multiple):
    table = make_table(lengths)
    batches = prediction_batches(table, max_tokens, multiple)
    order = np.concatenate(batches)

    assert sorted(order.tolist()) == list(range(len(table)))
    assert np.all(np.diff(table.lengths[order]) <= 0)
    shapes = [pad(table, rows, multiple).input_ids.shape for rows in batches]
    assert all(n == 1 or n * length <= max_tokens for n, length in shapes)
    if multiple > 1:  # of each length, one number of rows, except in the last
        assert len({*shapes[:-1]}) == len({length for _, length in shapes[:-1]})
        for n, _ in shapes[:-1]:
            assert n == round_count_down(n) == round_count_up(n)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=50),
    st.integers(1, 300),
)
def test_parts_of_a_batch_hold_every_row_once_and_about_the_tokens(lengths, max_tokens):
    table = make_table(lengths)
    rows = np.arange(len(lengths))[::-1]
    parts = micro_batches(table, rows, max_tokens)
    sizes, longest = [*map(len, parts)], max(lengths)

    assert sorted(np.concatenate(parts)) == sorted(rows)
    assert max(sizes) - min(sizes) <= 1
    if len(rows) * longest <= max_tokens:
        assert parts[0] is rows  # as it is
    else:  # also of a row that is longer than all of `max_tokens`
        assert all(n == 1 or n * longest < max_tokens + longest for n in sizes)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=50),
    st.integers(1, 12),
    st.integers(1, 300),
)
def test_uniform_batches_have_the_shapes_of_training(lengths, batch_size, max_tokens):
    table = make_table([7] * len(lengths) if max_tokens else lengths)
    batches = training_batches(table, batch_size, torch.Generator())
    parts = [
        part for rows in batches for part in micro_batches(table, rows, max_tokens)
    ]
    uniform = uniform_batches(table, batch_size, max_tokens)

    assert sorted(np.concatenate(uniform).tolist()) == [*range(len(table))]
    assert sorted(map(len, uniform)) == sorted(map(len, parts))
    longest = [table.lengths[rows].max() for rows in uniform]
    assert np.all(np.diff(longest) <= 0)


@given(st.integers(1, 10**6))
def test_numbers_are_rounded_by_less_than_a_half(n):
    below, above = round_count_down(n), round_count_up(n)
    assert below <= n <= above
    assert below == above or above - below <= below // 2
    for rounded in (below, above):
        assert rounded == round_count_down(rounded) == round_count_up(rounded)


@given(lengths_lists, st.data())
def test_rows_that_fill_up_are_the_last_one_again(lengths, data):
    table = make_table(lengths)
    places = st.lists(st.integers(0, len(lengths) - 1), min_size=1)
    rows = np.array(data.draw(places), dtype=np.int64)
    n_rows = data.draw(st.integers(1, 12))
    plain, filled = pad(table, rows), pad(table, rows, 1, n_rows)

    assert len(filled.input_ids) == max(len(rows), n_rows)
    assert torch.equal(filled.input_ids[: len(rows)], plain.input_ids)
    assert (filled.input_ids[len(rows) :] == plain.input_ids[-1]).all()
    if plain.attention_mask is not None:
        assert (filled.attention_mask[len(rows) :] == plain.attention_mask[-1]).all()
