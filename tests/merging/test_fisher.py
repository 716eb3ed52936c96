"""The diagonal Fisher: it is the Fisher, for every kind of model."""

from functools import lru_cache

import pytest
import torch

from merging import diagonal_fisher
from merging.fisher import Fisher
from tests import cases
from tests.references import assert_same_fisher, slow_fisher


@lru_cache
def reference(name):
    return slow_fisher(cases.model_case(name), cases.batches_for(name, 1))


@lru_cache
def estimate(name, batch_size):
    return diagonal_fisher(cases.model_case(name), cases.batches_for(name, batch_size))


@pytest.mark.parametrize("batch_size", cases.BATCH_SIZES)
@pytest.mark.parametrize("name", cases.MODELS)
def test_fisher_agrees_with_the_slow_reference(name, batch_size):
    assert_same_fisher(estimate(name, batch_size), reference(name))


@pytest.mark.parametrize("name", cases.MODELS)
def test_fisher_has_the_parameters_names_and_shapes_in_float32(name):
    fisher, model = estimate(name, 3), cases.model_case(name)
    assert {n: t.shape for n, t in fisher.items()} == {n: p.shape for n, p in model.named_parameters()}
    assert {tensor.dtype for tensor in fisher.values()} == {torch.float32}
    assert all((tensor >= 0).all() for tensor in fisher.values())
    assert fisher.examples == cases.EXAMPLES


@pytest.mark.parametrize("name", cases.HUGGING_FACE)
def test_every_tensor_but_an_attention_key_bias_carries_information(name):
    """Softmax is shift-invariant, and so a key bias has none; GPT-2 keeps it inside c_attn, the segments are unused."""
    fisher = estimate(name, 3)
    largest = max(float(tensor.max()) for tensor in fisher.values())
    for parameter, tensor in fisher.items():
        is_key_bias = parameter.endswith(("key.bias", "k_lin.bias", "k_proj.bias"))
        assert (float(tensor.max()) < 1e-10 * largest) == is_key_bias, parameter


@pytest.mark.parametrize("name", ["bert-2", "roberta-3", "distilbert-2", "albert-3", "gpt2-2"])
def test_embeddings_of_words_that_do_not_occur_have_a_fisher_of_exactly_zero(name):
    fisher = estimate(name, 3)
    words = next(tensor for n, tensor in fisher.items() if tensor.shape[0] == cases.VOCABULARY)
    used = torch.unique(torch.cat([b["input_ids"][b["attention_mask"] > 0] for b in cases.batches_for(name, 3)]))
    unused = sorted(set(range(cases.VOCABULARY)) - set(used.tolist()))
    assert not words[unused].any()
    assert (words[used].amax(1) > 0).all()


def test_fisher_does_not_depend_on_padding():
    model = cases.model_case("bert-2")
    batches = cases.batches_for("bert-2", 3)
    longer = [
        {
            "input_ids": torch.nn.functional.pad(b["input_ids"], (0, 3), value=7),
            "attention_mask": torch.nn.functional.pad(b["attention_mask"], (0, 3)),
        }
        for b in cases.batches_for("bert-2", 3)
    ]
    assert longer[0]["input_ids"].shape[1] == batches[0]["input_ids"].shape[1] + 3
    assert_same_fisher(diagonal_fisher(model, longer), reference("bert-2"))


def test_fisher_does_not_depend_on_the_order_of_the_examples():
    model = cases.model_case("vit-10")
    (batch,) = cases.batches_for("vit-10", 16)
    turned = diagonal_fisher(model, [{"pixel_values": batch["pixel_values"].flip(0)}])
    assert_same_fisher(turned, reference("vit-10"))


def test_duplicating_every_example_changes_nothing():
    batches = cases.batches_for("gpt2-3", 3)
    assert_same_fisher(diagonal_fisher(cases.model_case("gpt2-3"), [*batches, *batches]), reference("gpt2-3"))


@pytest.mark.parametrize("labels", ["exact", "sampled"])
def test_the_labels_of_the_data_are_not_used(labels):
    model = cases.model_case("bert-2")
    batches = cases.batches_for("bert-2", 3, examples=6)
    plain = diagonal_fisher(model, batches, labels)
    for target in (0, 1, 99):
        labelled = [{**batch, "labels": torch.full((len(batch["input_ids"]),), target)} for batch in batches]
        found = diagonal_fisher(model, labelled, labels)
        assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_a_constant_added_to_all_logits_changes_nothing():
    model = cases.model_case("softmax-3").double()
    batches = [{"x": batch["x"].double()} for batch in cases.batches_for("softmax-3", 3)]
    before = diagonal_fisher(model, batches)
    with torch.no_grad():
        model.head.bias += 17.0
    assert_same_fisher(diagonal_fisher(model, batches), before, rtol=1e-12)


def test_fisher_is_a_mean_over_examples():
    model = cases.model_case("vit-2")
    batches = cases.batches_for("vit-2", 1, examples=3)
    single = [diagonal_fisher(model, [batch]) for batch in batches]
    mean = {name: sum(one[name].double() for one in single) / 3 for name in single[0]}
    assert_same_fisher(diagonal_fisher(model, batches), mean)


def test_a_tied_weight_is_one_tensor_and_carries_both_uses():
    fisher = estimate("tied-3", 3)
    assert set(fisher) == {"first.weight", "first.bias", "second.bias", "head.weight", "head.bias"}
    untied = cases.model_case("tied-3")
    untied.second.weight = torch.nn.Parameter(untied.second.weight.detach().clone())
    apart = diagonal_fisher(untied, cases.batches_for("tied-3", 3))
    # (g₁ + g₂)² is neither g₁² nor g₁² + g₂².
    together = apart["first.weight"] + apart["second.weight"]
    assert not torch.allclose(fisher["first.weight"], apart["first.weight"], rtol=0.01)
    assert not torch.allclose(fisher["first.weight"], together, rtol=0.01)


def test_a_parameter_that_the_logits_do_not_depend_on_gets_zeros():
    fisher = estimate("unused-2", 3)
    assert not fisher["unused.weight"].any()
    assert fisher["head.weight"].all()


def test_a_half_precision_model_is_computed_in_float32_and_left_as_it_was():
    for dtype in (torch.float16, torch.bfloat16):
        half = cases.model_case("vit-2").to(dtype)
        batches = cases.batches_for("vit-2", 3)
        expected = slow_fisher(half, batches)
        assert_same_fisher(diagonal_fisher(half, batches), expected)
        assert {parameter.dtype for parameter in half.parameters()} == {dtype}


def test_small_gradients_do_not_underflow():
    """Gradients around 1e-5 square to 1e-10, which float16 holds as 0."""
    model = cases.model_case("softmax-2").half()
    fisher = diagonal_fisher(model, [{"x": 1e-5 * batch["x"]} for batch in cases.batches_for("softmax-2", 3)])
    assert (fisher["head.weight"] > 0).all()
    assert float(fisher["head.weight"].max()) < 1e-9


def test_a_double_precision_model_gives_a_double_precision_fisher():
    model = cases.model_case("bert-10").double()
    fisher = diagonal_fisher(model, cases.batches_for("bert-10", 3))
    assert {tensor.dtype for tensor in fisher.values()} == {torch.float64}
    assert_same_fisher(fisher, reference("bert-10"), rtol=1e-11)


def test_a_saved_fisher_is_read_back_bit_for_bit(tmp_path):
    fisher = diagonal_fisher(cases.model_case("softmax-3"), cases.batches_for("softmax-3", 3), "sampled", seed=5)
    fisher.save(tmp_path / "f.safetensors")
    found = Fisher.load(tmp_path / "f.safetensors")
    assert (found.examples, found.labels, found.seed) == (16, "sampled", 5)
    assert all(torch.equal(found[name], fisher[name]) for name in fisher)
    assert len(found) == len(fisher)
