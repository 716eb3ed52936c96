"""Kronecker factors: against sums that are written out, and through files, stops and workers."""

import copy
import time

import pytest
import torch
import transformers
from torch import nn

from merging import diagonal_fisher
from merging.errors import FisherError
from merging.gradients import SquaredGradients
from merging.gradients.kronecker import layers_of_model
from merging.layer_factors import PARTS, Factors
from tests import cases
from tests.families import batches_for, family
from tests.references import _unpadded

FAMILIES = [("bert", 2), ("bert", 3), ("gpt2", 2), ("albert", 3), ("vit", 3), ("convolutions", 2), ("roberta", 2)]


def slow_factors(model, batches):
    """A, G and the weighted A in float64, one unpadded example, one label and one call of a layer at a time."""
    model = copy.deepcopy(model).double().eval()
    names = {parameter: name for name, parameter in model.named_parameters()}
    kinds = (nn.Linear, nn.Conv2d, transformers.pytorch_utils.Conv1D)
    calls, found, count = [], {}, 0
    for module in model.modules():
        if isinstance(module, kinds) and getattr(module, "groups", 1) == 1:
            module.register_forward_hook(lambda *call: calls.append(call))
    for example in (one for batch in batches for one in _unpadded(batch)):
        calls.clear()
        log_p = model(**example).logits.log_softmax(-1)[0]
        count += 1
        gradients = [torch.autograd.grad(each, [c[2] for c in calls], retain_graph=True) for each in log_p]
        for place, (module, (inputs, *_), output) in enumerate(calls):
            a = _rows(module, inputs.detach())
            own = [_columns(module, g[place], output) for g in gradients]
            if module.bias is not None:
                a = torch.cat([a, torch.ones(len(a), 1).double()], 1)
            sums = found.setdefault(names[module.weight], [0.0, 0.0, 0.0, 0])
            active = sum(g.abs().sum(1) for g in own) > 0
            sums[0] += a[active].T @ a[active]
            sums[3] += int(active.sum())
            for p, g in zip(log_p.detach().exp(), own, strict=True):
                sums[1] += p * g.T @ g
                sums[2] += p * (a * g.square().sum(1, keepdim=True)).T @ a
    return {name: (a / tokens, g / count, w / count) for name, (a, g, w, tokens) in found.items()}


def _rows(module, inputs):
    if not isinstance(module, nn.Conv2d):
        return inputs.reshape(-1, inputs.shape[-1])
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = nn.functional.pad(inputs, module._reversed_padding_repeated_twice, mode=mode)
    patches = nn.functional.unfold(padded, module.kernel_size, dilation=module.dilation, stride=module.stride)
    return patches.mT.flatten(0, 1)


def _columns(module, gradient, output):
    return (
        gradient.flatten(2).mT.flatten(0, 1)
        if isinstance(module, nn.Conv2d)
        else gradient.reshape(-1, output.shape[-1])
    )


def _is_chance(weight, part):
    """Of a text of one token a query's gradient is rounding alone: whether that token counts depends on the machine."""
    return part == "inputs" and ("query" in weight or "key" in weight)


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize(("name", "classes"), FAMILIES)
def test_factors_are_those_of_sums_that_are_written_out(name, classes, size):
    model = family(name, classes).double()
    batches = batches_for(name, size)
    found = diagonal_fisher(model, batches, "exact", factors=True).factors
    expected = slow_factors(model, batches)
    assert set(found) == set(expected)
    for weight, parts in expected.items():
        for part, value in zip(PARTS, parts, strict=True):
            if not _is_chance(weight, part):
                close = {"rtol": 1e-8, "atol": 1e-10 * float(value.abs().max())}
                torch.testing.assert_close(getattr(found[weight], part), value, **close)


@pytest.mark.parametrize("name", ["bert-2", "gpt2-3", "vit-10"])
def test_the_diagonal_is_the_same_with_factors_and_without(name):
    model, batches = cases.model_case(name), cases.batches_for(name, 16)
    with_factors = diagonal_fisher(model, batches, factors=True)
    without = diagonal_fisher(model, batches)
    assert all(torch.equal(tensor, without[own]) for own, tensor in with_factors.items())
    assert without.factors is None


def test_of_one_token_the_trace_of_the_weighted_inputs_is_the_fishers():
    """F of a linear layer with one token is E[g² a²], and its sum E[‖g‖² ‖a‖²]."""
    fisher = diagonal_fisher(cases.model_case("softmax-3"), cases.batches_for("softmax-3", 4), factors=True)
    ((weight, own),) = fisher.factors.items()
    total = fisher[weight].sum() + (fisher[own.bias].sum() if own.bias else 0)
    torch.testing.assert_close(own.weighted.diagonal().sum(), total)


def test_padding_and_batching_change_nothing():
    model = cases.model_case("bert-2").double()
    first, *others = (
        diagonal_fisher(model, cases.batches_for("bert-2", size), factors=True).factors for size in (1, 5, 16)
    )
    for other in others:
        for name, own in first.items():
            for part in PARTS:
                if not _is_chance(name, part):
                    found, expected = getattr(other[name], part), getattr(own, part)
                    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_tied_embedding_and_what_is_computed_one_by_one_have_no_factors():
    model = family("gpt2-prompted", 2)
    factors = diagonal_fisher(model, batches_for("gpt2-prompted", 8), factors=True).factors
    assert not any("wte" in name for name in factors)
    with pytest.warns(UserWarning, match="One example at a time"):
        fisher = diagonal_fisher(family("packed", 2), batches_for("packed", 8), factors=True)
    assert fisher.fallbacks
    assert not set(fisher.factors) & set(fisher.fallbacks)


def test_an_estimate_that_was_stopped_goes_on_with_the_same_factors(tmp_path):
    model, batches = cases.model_case("bert-2"), cases.batches_for("bert-2", 4)
    whole = diagonal_fisher(model, batches, factors=True).factors
    seen = 0

    def stop(fraction, text):
        nonlocal seen
        seen += 1
        if seen == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        diagonal_fisher(model, batches, factors=True, state=tmp_path / "s", on_progress=stop)
    resumed = diagonal_fisher(model, batches, factors=True, state=tmp_path / "s").factors
    assert_equal(resumed, whole)
    with pytest.raises(FisherError, match="is the state of another estimate"):
        diagonal_fisher(model, batches, state=tmp_path / "s")


def test_two_workers_sums_are_those_of_one():
    model, batches = cases.model_case("vit-2"), cases.batches_for("vit-2", 8)
    with SquaredGradients(model, factors=True) as whole:
        counts = [whole.add(batch) for batch in batches]
    workers = []
    for place, batch in zip((0, counts[0]), batches, strict=True):
        with SquaredGradients(model, factors=True, place=place) as worker:
            worker.add(batch)
        workers.append(worker)
    workers[0].merge(workers[1].sums, workers[1].examples, workers[1].factors)
    assert workers[0].factors.tokens == whole.factors.tokens
    for name, own in whole.factors.flat().items():
        torch.testing.assert_close(workers[0].factors.flat()[name], own)


def test_a_file_gives_back_the_same_factors_and_a_damaged_one_is_refused(tmp_path):
    factors = diagonal_fisher(cases.model_case("gpt2-2"), cases.batches_for("gpt2-2", 8), factors=True).factors
    path = tmp_path / "factors.safetensors"
    factors.save(path)
    assert_equal(Factors.load(path), factors)
    content = bytearray(path.read_bytes())
    content[-3] ^= 64
    path.write_bytes(content)
    with pytest.raises(FisherError, match="other numbers than were written"):
        Factors.load(path)
    path.write_bytes(content[:50])
    with pytest.raises(FisherError, match="expected Kronecker factors"):
        Factors.load(path)


def assert_equal(found, expected):
    assert list(found) == list(expected)
    assert found.examples == expected.examples
    for name, own in expected.items():
        assert (found[name].bias, found[name].is_transposed) == (own.bias, own.is_transposed)
        assert all(torch.equal(getattr(found[name], part), getattr(own, part)) for part in PARTS)


def test_a_state_without_factors_is_that_of_another_estimate(tmp_path):
    model, batches = cases.model_case("bert-2"), cases.batches_for("bert-2", 4)
    diagonal_fisher(model, batches, state=tmp_path / "s")
    with pytest.raises(FisherError, match="expected one with factors, got one without"):
        diagonal_fisher(model, batches, factors=True, state=tmp_path / "s")


def test_a_resumed_estimate_says_how_long_both_parts_took(tmp_path):
    model, batches = cases.model_case("bert-2"), cases.batches_for("bert-2", 4)

    told = []

    def stop(fraction, text):
        if told:
            raise KeyboardInterrupt
        told.append(fraction)
        time.sleep(0.3)

    with pytest.raises(KeyboardInterrupt):
        diagonal_fisher(model, batches, state=tmp_path / "s", on_progress=stop)
    assert diagonal_fisher(model, batches, state=tmp_path / "s").seconds >= 0.3


def test_weights_with_several_biases_and_biases_with_several_weights_have_no_factors():
    tied = cases.model_case("tied-3")
    assert list(layers_of_model(tied)) == ["head.weight"]
    shared = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    shared[1].bias = shared[0].bias
    assert list(layers_of_model(shared)) == ["2.weight"]
