"""An adapted model as a state: stored, loaded again, copied."""

import copy
import pickle

import pytest
import torch
from _tiny import (
    BERT_LAYERS,
    adamw,
    adapt,
    adapted_bert,
    classifier_loss,
    hidden,
    randomise,
    small_adapted,
    tiny_bert,
    tiny_classifier,
    tokens,
    train,
)
from torch import nn

from sk_adalora.adalora import SVDLinear

# ---- state ------------------------------------------------------------------


def trained_classifier(steps=12, **options):
    options = {"task_type": "SEQ_CLS", **options}
    model = adapt(tiny_classifier(), **options)
    train(model, range(steps), loss=classifier_loss)
    return model


def test_the_state_is_the_adapter_under_the_names_of_peft():
    model = adapt(tiny_bert())
    state = model.state_dict()

    assert set(state) == {
        f"base_model.model.{path}.lora_{letter}"
        for path in BERT_LAYERS
        for letter in "ABE"
    }
    assert state["base_model.model.encoder.layer.0.output.dense.lora_A"].shape == (
        4,
        48,
    )
    assert state["base_model.model.encoder.layer.0.output.dense.lora_B"].shape == (
        32,
        4,
    )
    assert state["base_model.model.encoder.layer.0.output.dense.lora_E"].shape == (4, 1)
    assert all(t.is_contiguous() and not t.requires_grad for t in state.values())


@pytest.mark.parametrize("compact", [False, True], ids=["full rank", "pruned rank"])
def test_a_fresh_model_takes_the_state(compact):
    model = trained_classifier()
    if compact:
        model.compact()
    fresh = adapt(tiny_classifier(), seed=5, task_type="SEQ_CLS")
    fresh.load_state_dict(model.state_dict())

    assert fresh.triplets.ranks == model.triplets.ranks
    assert torch.equal(fresh(tokens()).logits, model(tokens()).logits)
    assert all(
        torch.equal(value, fresh.state_dict()[name])
        for name, value in model.state_dict().items()
    )
    assert fresh.ranks == (model.ranks if compact else dict.fromkeys(fresh.adapted, 4))


@pytest.mark.parametrize("compact", [False, True], ids=["full rank", "pruned rank"])
def test_loading_keeps_parameters_and_allocator_as_objects(compact):
    trained = trained_classifier()
    if compact:
        trained.compact()
    model = adapt_classifier(seed=3)
    optimizer, allocator = adamw(model), model.allocator
    before = [p for _, p in model.trainable_parameters()]
    model.load_state_dict(trained.state_dict())
    after = [p for _, p in model.trainable_parameters()]

    assert all(p is q for p, q in zip(before, after, strict=True))
    assert model.allocator is allocator
    assert allocator.finished is compact
    train(model, range(3), optimizer, loss=classifier_loss)
    state = trained.state_dict()
    assert not any(
        torch.equal(value, state[name])
        for name, value in model.state_dict().items()
        if value.numel() and "lora_B" in name
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("ranks", [(3, 1), (2, 2), (4, 4)])
def test_loading_other_ranks_of_another_precision(ranks, dtype):
    """Also of ranks that add up to the same."""
    model = small_adapted(((6, 6), (6, 6)))
    other = copy.deepcopy(model)
    for pruned, kept in ((model, (1, 3)), (other, ranks)):
        flags = [i < rank for rank in kept for i in range(4)]
        pruned.triplets.keep(torch.tensor(flags))
    state = {name: value.to(dtype) for name, value in other.state_dict().items()}
    model.load_state_dict(state)
    x = torch.eye(6)

    assert tuple(model.triplets.ranks) == ranks
    assert all(p.dtype == torch.float32 for p in model.triplets.parameters())
    torch.testing.assert_close(model(x), other(x), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("stop", [5, 11])
def test_accelerate_resumes_a_run(tmp_path, stop):
    """Also after `compact`, with an optimizer that is made before it is loaded."""
    accelerate = pytest.importorskip("accelerate")
    states, ranks = [], []
    for resumes in (0, 1):
        accelerator = accelerate.Accelerator(cpu=True)
        model = adapt_classifier(seed=resumes)
        model, optimizer = accelerator.prepare(model, adamw(model))
        accelerator.register_for_checkpointing(model.allocator)
        if resumes:
            accelerator.load_state(tmp_path)
        else:
            train(model, range(stop), optimizer, classifier_loss)
            if model.allocator.finished:
                model.compact(optimizer.optimizer)
            accelerator.save_state(tmp_path)
        train(model, range(stop, 14), optimizer, classifier_loss)
        states.append(model.state_dict())
        ranks.append(model.ranks)
        accelerator.free_memory()
    accelerate.state.AcceleratorState._reset_state(True)

    assert ranks[0] == ranks[1]
    assert all(torch.equal(states[1][n], value) for n, value in states[0].items())


def adapt_classifier(seed=0):
    return adapt(tiny_classifier(), seed, task_type="SEQ_CLS")


LAYER = "base_model.model.bert.encoder.layer.1.output.dense."
HEAD = "base_model.model.classifier."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(LAYER + "lora_E"), r"must hold '.*layer\.1.*lora_E'. Got no"),
        (lambda s: s.pop(HEAD + "bias"), r"Missing: \['.*classifier.bias'\]"),
        (lambda s: s.update(extra=torch.ones(1)), r"Unknown: \['extra'\]"),
        (
            lambda s: s.update({LAYER + "lora_A": torch.ones(4, 32)}),
            r"'bert.encoder.layer.1.output.dense' must have shapes \(4, 48\), "
            r"\(32, 4\), \(4, 1\). Got \(4, 32\), ",
        ),
        (
            lambda s: s.update({HEAD + "weight": torch.ones(5, 32)}),
            r"'.*classifier.weight' must have shape \(3, 32\). Got \(5, 32\)",
        ),
        # Would be broadcast.
        (lambda s: s.update({HEAD + "bias": torch.ones(1)}), r"Got \(1,\)"),
        (
            lambda s: s.update(
                {
                    LAYER + "lora_A": torch.ones(5, 48),
                    LAYER + "lora_B": torch.ones(32, 5),
                    LAYER + "lora_E": torch.ones(5, 1),
                }
            ),
            r"`init_r`=4 must be .* Got rank 5 for 'bert\.encoder\.layer\.1\.output\.",
        ),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, message):
    model = adapt_classifier()
    before = model.state_dict()
    state = trained_classifier().state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(state)

    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_rank_pattern_gives_the_ranks():
    pattern = {
        f"{path}.lora_E": [i < n for i in range(4)]
        for n, path in zip([0, 1, 2, 3, 4] * 3, sorted(BERT_LAYERS), strict=False)
    }
    model = adapt(tiny_bert(), rank_pattern=pattern)

    assert {f"{path}.lora_E": rank for path, rank in model.ranks.items()} == {
        name: sum(flags) for name, flags in pattern.items()
    }
    assert model.allocator.finished
    assert model.peft_config.scale == 8 / (4 + 1e-5)  # pruning does not rescale


def test_an_empty_rank_pattern_is_none():
    assert set(adapt(tiny_bert(), rank_pattern={}).ranks.values()) == {4}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ({"nix.lora_E": [True]}, r"must name every adapted layer. Got none for 'enc"),
        *(
            (
                {f"{path}.lora_E": [True] * length for path in BERT_LAYERS},
                rf"must hold `init_r`=4 flags a layer. Got {length} for",
            )
            for length in (3, 5)
        ),
    ],
)
def test_a_rank_pattern_that_does_not_fit_is_refused(pattern, message):
    base = tiny_bert()
    with pytest.raises(ValueError, match=message):
        adapt(base, rank_pattern=pattern)

    assert not any(isinstance(m, SVDLinear) for m in base.modules())


# ---- copies -----------------------------------------------------------------


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, by_pickle])
@pytest.mark.parametrize("stage", ["fresh", "trained", "compact", "merged"])
def test_a_copy_is_equal_and_independent(duplicate, stage):
    model = randomise(adapt_classifier())
    if stage != "fresh":
        train(model, range(5 if stage == "trained" else 12), loss=classifier_loss)
    if stage == "compact":
        model.compact()
    if stage == "merged":
        model.merge()
    expected = model(tokens()).logits
    other = duplicate(model)
    assert torch.equal(other(tokens()).logits, expected)

    other.unmerge()
    randomise(other, seed=8)
    changed = other(tokens()).logits
    model(tokens())
    assert not torch.allclose(changed, expected, atol=1e-3)
    assert torch.equal(other(tokens()).logits, changed)
    assert torch.equal(model(tokens()).logits, expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, by_pickle])
def test_a_copy_trains_on_like_the_original(duplicate):
    model = adapt_classifier()
    train(model, range(5), loss=classifier_loss)
    other = duplicate(model)
    assert other.allocator.triplets is other.triplets

    results = []
    for one in (model, other):
        train(one, range(5, 12), adamw(one), classifier_loss)
        one.compact()
        results.append(one.state_dict())
    assert all(torch.equal(results[1][n], value) for n, value in results[0].items())


def test_moving_the_model_moves_what_is_outside_of_it():
    model = adapt(tiny_classifier(), modules_to_save=["classifier"])
    train(model, range(4), loss=classifier_loss)
    model.to("meta")

    assert model.allocator.kept.is_meta
    assert model.allocator.state_dict()["reached"].is_meta
    assert all(a.score().is_meta for a in model.allocator.averages)
    assert model.allocator.scores().is_meta
    with model.disable_adapter():
        assert all(p.is_meta for p in model.parameters())
    assert all(p.is_meta for p in model.unload().parameters())


# ---- loading into a model that was used ----------------------------------------


def test_loading_drops_merged_weights():
    model = randomise(adapted_bert(), 1)
    state, expected = model.state_dict(), hidden(model)
    randomise(model, 2).merge()
    model.load_state_dict(state)

    torch.testing.assert_close(hidden(model), expected)


def test_loading_starts_the_allocation_anew():
    model = randomise(adapted_bert(), 1)
    state, expected = model.state_dict(), hidden(model)
    train(model, range(7))
    assert not model.allocator.kept.all()
    model.load_state_dict(state)
    again = adapted_bert()
    again.load_state_dict(model.state_dict())

    assert model.allocator.kept.all()
    assert model.allocator.budget == sum(model.ranks.values())
    torch.testing.assert_close(hidden(again), expected)


class Around(nn.Module):
    """A module with an adapted one and a layer of its own."""

    def __init__(self, seed, init_r=4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Linear(3, 6)
            self.net = adapt(nn.Sequential(nn.Linear(6, 6)), init_r=init_r)
            randomise(self.net)


def test_a_module_around_it_is_saved_and_loaded():
    one, other = Around(0), Around(1)
    result = other.load_state_dict(one.state_dict())

    assert result.missing_keys == result.unexpected_keys == []
    assert other.state_dict().keys() == one.state_dict().keys()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


def test_a_module_around_it_says_what_is_missing_and_what_is_unknown():
    one, other = Around(0), Around(1)
    state = {n: v for n, v in one.state_dict().items() if not n.startswith("net.")}
    result = other.load_state_dict(state, strict=False)
    own = [n for n in one.state_dict() if n.startswith("net.")]

    assert result.missing_keys == own
    assert other.load_state_dict({}, strict=False).missing_keys == [*one.state_dict()]
    with pytest.raises(
        RuntimeError, match=r'Missing key.*"net.base_model.model.0.lora_A'
    ):
        other.load_state_dict(state)
    with pytest.raises(RuntimeError, match="must have shapes"):
        other.load_state_dict({**one.state_dict(), own[0]: torch.ones(4, 5)})
    unknown = {**one.state_dict(), "net.more": torch.ones(1)}
    assert other.load_state_dict(unknown, strict=False).unexpected_keys == ["net.more"]
