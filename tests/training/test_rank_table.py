"""Ranks as a table: each matrix has one cell, and columns have short, true names."""

import sys

import pytest
from _tiny import adapt, tiny_t5
from _toy import make, toy
from hypothesis import example, given
from hypothesis import strategies as st

from sk_adalora.training.rank_table import lay_out

BERT = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention out",
    "intermediate.dense": "up",
    "output.dense": "down",
}
NAMES = {
    "bert": list(BERT.values()),
    "distilbert": list(BERT.values()),
    "mpnet": list(BERT.values()),
    "deberta-v2": [
        *["query", "key", "value", "pos_key_proj", "pos_query_proj"],
        *["attention out", "up", "down"],
    ],
    "modernbert": ["query+key+value", "attention out", "up", "down"],
    "gpt2": ["query+key+value", "attention out", "up", "down"],
    "llama": ["query", "key", "value", "attention out", "gate", "up", "down"],
}


def numbered(paths):
    """Another rank for each path, so that a cell can be told from every other."""
    return {path: rank for rank, path in enumerate(paths)}


def cells(table):
    return [rank for row in table.ranks for rank in row if rank is not None]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("architecture", NAMES)
def test_known_architectures_have_plain_names(architecture, tiny_architecture):
    ranks = adapt(tiny_architecture(architecture), target_modules="all-linear").ranks
    table = lay_out(ranks)

    assert table.kinds == NAMES[architecture]
    assert table.layers == [0, 1]
    assert len(cells(table)) == len(ranks)


def test_each_rank_is_in_the_row_and_column_of_its_matrix():
    ranks = numbered(f"encoder.layer.{i}.{kind}" for i in range(12) for kind in BERT)
    table = lay_out(ranks)

    for i in range(12):
        for kind, name in BERT.items():
            assert table.column(name)[i] == ranks[f"encoder.layer.{i}.{kind}"]


def test_encoder_and_decoder_are_one_below_the_other():
    table = lay_out(adapt(tiny_t5(), target_modules="all-linear").ranks)

    assert table.layers == ["encoder 0", "encoder 1", "decoder 0", "decoder 1"]
    assert table.column("cross query")[:2] == [None, None]
    assert None not in table.column("cross query")[2:]
    assert None not in table.column("query") + table.column("up")


def test_a_matrix_outside_the_layers_has_a_row_and_the_last_column():
    ranks = numbered(["embed.project", "layer.0.fc1", "layer.1.fc1", "pooler.dense"])
    table = lay_out(ranks)

    assert table.layers == ["0", "1", "embed.project", "pooler.dense"]
    assert table.kinds == ["up", "other"]
    assert table.column("other") == [None, None, 0, 3]
    # Also where the layers are the first thing that a path names.
    assert lay_out(numbered(["pooler", "0.fc1"])).layers == ["0", "pooler"]


@pytest.mark.parametrize(
    ("paths", "layers"),
    [
        # In the order of numbers, not of letters.
        ([f"h.{i}.attn.c_attn" for i in (10, 2, 9, 0)], [0, 2, 9, 10]),
        # What all stacks are in is not named, but a name is left of each.
        (
            [f"model.{part}.layers.0.fc1" for part in ("encoder", "decoder")],
            ["encoder 0", "decoder 0"],
        ),
        (["a.0.q", "a.b.0.q"], ["a 0", "a.b 0"]),
        # A second number tells layers apart only where it does.
        (
            [f"blocks.{i}.{j}.ffn.linear_1" for i in (0, 1) for j in (0, 1)],
            ["0.0", "0.1", "1.0", "1.1"],
        ),
        (["block.0.layer.0.SelfAttention.q", "block.0.layer.1.Dense.wi"], [0]),
    ],
)
def test_names_of_layers(paths, layers):
    assert lay_out(numbered(paths)).layers == layers


@pytest.mark.parametrize(
    ("paths", "kinds"),
    [
        *[
            (["l.0.fc1", f"l.0.{path}", "l.0.attn.q_proj"], "query,cross query,up")
            for path in (
                "crossattention.self.query",
                "EncDecAttention.q",
                "encoder_attn.q_proj",
            )
        ],
        # One plain name for two matrices of a layer is no name.
        (
            ["l.0.attention.key", "l.0.feed_forward.key", "l.0.attention.v"],
            "attention.key,feed_forward.key,value",
        ),
        (["l.0.attn.q", "l.1.attn.q_proj"], "query"),
        # Matrices that are layers have the name of their list.
        (["mixers.0", "mixers.1"], "mixers"),
        (["0", "1"], "linear"),
        # Unknown names keep the end that tells them apart.
        (
            ["l.0.a.x.weird", "l.0.b.x.weird", "l.0.c.odd"],
            "a.x.weird,b.x.weird,odd",
        ),
        (["odd", "l.0.x.odd"], "odd,other"),
        # What only looks like a known one.
        (["layers.0.mixer.out_proj"], "out_proj"),
        (["l.0.xfc1", "l.0.attn.xq"], "xfc1,xq"),
    ],
)
def test_names_of_matrices(paths, kinds):
    assert lay_out(numbered(paths)).kinds == kinds.split(",")


def test_unknown_matrices_of_two_stacks_share_a_column():
    table = lay_out(numbered(["encoder.0.odd", "decoder.0.odd", "decoder.0.far"]))

    assert table.kinds == ["odd", "far"]
    assert table.ranks == [[0, None], [1, 2]]


words = st.sampled_from(
    ["0", "1", "2", "10", "attn", "mlp", "q", "key", "wo", "dense", "layer", "other"]
)
paths = st.lists(words, min_size=1, max_size=5).map(".".join)


@given(st.lists(paths, min_size=1, max_size=20, unique=True))
@example(["layer.0.mlp.1.wo", "layer.0.1.mlp.wo"])
@example(["layer.0.q", "layer.layer.0.q"])
def test_no_matrix_is_lost_whatever_its_path(paths):
    table = lay_out(numbered(paths))

    assert sorted(cells(table)) == list(range(len(paths)))
    assert len(set(table.kinds)) == len(table.kinds)
    assert len(set(table.layers)) == len(table.layers)


def test_the_table_in_markdown():
    table = lay_out({"a.0.q": 1, "a.0.k": 2, "a.1.q": 13})

    assert table.to_markdown().splitlines() == [
        "| layer | q | k |",
        "| --- | --- | --- |",
        "| 0 | 1 | 2 |",
        "| 1 | 13 |  |",
    ]


def test_a_path_stays_in_its_cell():
    table = lay_out({"a|b<script>\n# `x`\r[y](z)": 1}).to_markdown()
    assert table.splitlines()[2:] == [r"| a\|b&lt;script> # \`x\` \[y](z) | 1 |"]


def test_the_text_has_a_line_a_layer_and_aligned_columns():
    table = lay_out({"l.0.fc1": 12, "l.0.attn.q": 0, "l.1.fc1": 3})
    lines = table.to_text().splitlines()

    assert [line.split() for line in lines] == [
        ["layer", "query", "up"],
        ["0", "0", "12"],
        ["1", "3"],
    ]
    assert len({len(line) for line in lines}) == 1


# ---- on estimators ----------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(tiny_model):
    """A fitted classifier; do not refit."""
    return make(tiny_model).fit(*toy())


def test_the_table_of_an_estimator_holds_its_ranks(fitted):
    table = fitted.rank_table()

    assert table.index.name == "layer"
    assert table.index.tolist() == [0, 1]
    assert table.columns.tolist() == NAMES["bert"]
    assert table.to_numpy().sum() == sum(fitted.ranks_.values())
    for (layer, kind), rank in table.stack().items():
        (suffix,) = [suffix for suffix, name in BERT.items() if name == kind]
        assert rank == fitted.ranks_[f"encoder.layer.{layer}.{suffix}"]
    assert set(table.dtypes.astype(str)) == {"int64"}


def test_integers_stay_integers_beside_missing_ones(tiny_model):
    modules = r".*layer\.(0\.output|1\.intermediate)\.dense"
    table = make(tiny_model, target_modules=modules).fit(*toy()).rank_table()

    assert set(table.dtypes.astype(str)) == {"Int64"}
    assert table.isna().to_numpy().tolist() == [[True, False], [False, True]]


def test_a_table_needs_pandas(fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="Run: pip install pandas"):
        fitted.rank_table()


def test_verbose_ends_with_the_table(tiny_model, capfd):
    fitted = make(tiny_model, verbose=1).fit(*toy())
    out, err = capfd.readouterr()

    assert out == ""
    lines = err.rstrip("\n").splitlines()
    assert lines[-3:] == lay_out(fitted.ranks_).to_text().splitlines()
    assert lines[-4].endswith("3 at the start, 2 on average now")
    assert "fit: 100%" in "".join(lines[:-4])
