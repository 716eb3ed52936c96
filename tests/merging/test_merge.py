"""Merging: its invariants, for models, Fishers and weights that hypothesis makes up."""

import numpy
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from merging import merge_parameters
from tests import cases
from tests.references import slow_merge

SHAPES = {"w": (2, 3), "b": (3,), "scale": ()}
settings_of = st.fixed_dictionaries(
    {"normalise": st.sampled_from(cases.NORMALISATIONS), "zero_rule": st.sampled_from(cases.ZERO_RULES)}
)


def tensors(low, high, zeros=False):
    """Named float32 tensors of SHAPES; with `zeros` a third of the numbers is 0."""
    number = st.floats(low, high, width=32, allow_subnormal=False)
    number = st.one_of(st.just(0.0), number, number) if zeros else number

    def shaped(numbers):
        parts = torch.tensor(numbers).split([6, 3, 1])
        return {name: part.reshape(shape) for part, (name, shape) in zip(parts, SHAPES.items(), strict=True)}

    return st.lists(number, min_size=10, max_size=10).map(shaped)


@st.composite
def problems(draw, zeros=True):
    """(models, weights, fishers, base) for two to four models."""
    count = draw(st.integers(2, 4))
    models = [draw(tensors(-100, 100)) for _ in range(count)]
    fishers = [draw(tensors(2**-20, 10, zeros)) for _ in range(count)]
    weights = [draw(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])) for _ in range(count)]
    assume(sum(weights) > 0)
    return models, weights, fishers, draw(tensors(-100, 100))


def merge(models, weights, fishers, base=None, **settings):
    return merge_parameters(models, weights=weights, fishers=fishers, base=base, **settings)


def assert_close(found, expected, rtol=1e-6, atol=1e-5):
    assert list(found) == list(expected)
    for name in expected:
        numpy.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=atol, err_msg=name)


@given(problems(), settings_of, st.sampled_from([0.0, 1e-3, 1.0]))
def test_merging_agrees_with_the_slow_reference(problem, settings, floor):
    models, weights, fishers, base = problem
    found = merge(*problem, floor=floor, **settings)
    expected = slow_merge(models, weights, fishers, base=base, floor=floor, **settings)
    assert_close(found, expected)


@given(problems())
def test_isotropic_merging_is_the_weighted_mean(problem):
    models, weights, _, _ = problem
    found = merge_parameters(models, "isotropic", weights)
    expected = {name: sum(w * m[name].double() for w, m in zip(weights, models, strict=True)) for name in SHAPES}
    assert_close(found, {name: tensor / sum(weights) for name, tensor in expected.items()})


@pytest.mark.parametrize("normalise", cases.NORMALISATIONS)
@given(problem=problems(zeros=False))
def test_equal_fishers_give_isotropic_merging(problem, normalise):
    models, weights, fishers, _ = problem
    found = merge(models, weights, [fishers[0]] * len(models), normalise=normalise)
    assert_close(found, merge_parameters(models, "isotropic", weights))


@pytest.mark.parametrize("rule", cases.AVERAGES)
@given(problem=problems(), settings=settings_of)
def test_identical_models_merge_to_the_same_model_for_any_fisher(problem, settings, rule):
    models, weights, fishers, _ = problem
    found = merge([models[0]] * len(models), weights, fishers, models[0], rule=rule, **settings)
    assert all(torch.equal(found[name], models[0][name]) for name in SHAPES)


@pytest.mark.parametrize("rule", cases.AVERAGES)
@given(problem=problems(), factor=st.sampled_from([1e-300, 1e-30, 0.3, 1e30]))
def test_a_common_factor_of_the_weights_cancels(problem, factor, rule):
    models, weights, fishers, _ = problem
    found = merge(models, [weight * factor for weight in weights], fishers, rule=rule)
    assert_close(found, merge(models, weights, fishers, rule=rule))


@given(problems(), settings_of, st.sampled_from([1e-300, 1e-30, 1e30, 1e300]))
def test_a_common_factor_of_the_fishers_cancels(problem, settings, factor):
    models, weights, fishers, base = problem
    scaled = [{name: tensor.double() * factor for name, tensor in fisher.items()} for fisher in fishers]
    assert_close(merge(models, weights, scaled, base, **settings), merge(*problem, **settings))


@pytest.mark.parametrize("normalise", ["trace", "l2"])
@given(problem=problems(), factors=st.lists(st.sampled_from([1e-30, 1.0, 1e6]), min_size=4, max_size=4))
def test_normalised_fishers_may_have_any_size_of_their_own(problem, factors, normalise):
    models, weights, fishers, _ = problem
    scaled = [
        {name: tensor.double() * factor for name, tensor in fisher.items()}
        for fisher, factor in zip(fishers, factors, strict=False)
    ]
    assert_close(merge(models, weights, scaled, normalise=normalise), merge(*problem, normalise=normalise))


@pytest.mark.parametrize("rule", cases.AVERAGES)
@given(problem=problems(), settings=settings_of, chosen=st.integers(0, 3))
def test_one_weight_alone_returns_its_model_exactly_where_its_fisher_is_positive(problem, settings, chosen, rule):
    models, _, fishers, base = problem
    chosen %= len(models)
    weights = [float(index == chosen) for index in range(len(models))]
    found = merge(models, weights, fishers, base, rule=rule, **settings)
    for name in SHAPES:
        speaks = fishers[chosen][name] > 0
        assert torch.equal(found[name][speaks], models[chosen][name][speaks])


@pytest.mark.parametrize("rule", cases.AVERAGES)
@given(problem=problems(), settings=settings_of)
def test_every_coordinate_lies_between_the_models(problem, settings, rule):
    models, weights, fishers, _ = problem
    found = merge(models, weights, fishers, models[-1], rule=rule, **settings)
    for name in SHAPES:
        stacked = torch.stack([model[name] for model in models])
        assert (found[name] >= stacked.amin(0)).all()
        assert (found[name] <= stacked.amax(0)).all()


@pytest.mark.parametrize("rule", cases.AVERAGES)
@given(problem=problems(), settings=settings_of)
def test_the_order_of_the_models_does_not_matter(problem, settings, rule):
    models, weights, fishers, base = problem
    assume(settings["zero_rule"] != "target")
    found = merge(models[::-1], weights[::-1], fishers[::-1], base, rule=rule, **settings)
    assert_close(found, merge(*problem, rule=rule, **settings))


@given(problems())
def test_the_order_of_the_models_matters_only_where_no_fisher_speaks_for_zero_rule_target(problem):
    models, weights, fishers, _ = problem
    forward = merge(models, weights, fishers, zero_rule="target")
    backward = merge(models[::-1], weights[::-1], fishers[::-1], zero_rule="target")
    for name in SHAPES:
        silent = sum(w * f[name] for w, f in zip(weights, fishers, strict=True)) == 0
        torch.testing.assert_close(forward[name][~silent], backward[name][~silent], rtol=1e-6, atol=1e-5)
        assert torch.equal(forward[name][silent], models[0][name][silent])
        assert torch.equal(backward[name][silent], models[-1][name][silent])


@given(problems(), settings_of, st.permutations(range(3)))
def test_permuting_hidden_units_permutes_the_result(problem, settings, order):
    def permuted(named):
        return {"w": named["w"][:, list(order)], "b": named["b"][list(order)], "scale": named["scale"]}

    models, weights, fishers, base = problem
    found = merge([permuted(m) for m in models], weights, [permuted(f) for f in fishers], permuted(base), **settings)
    assert_close(found, permuted(merge(*problem, **settings)))


@given(problems(zeros=False))
def test_merging_is_associative_where_the_merged_model_carries_the_sum_of_fishers(problem):
    models, weights, fishers, _ = problem
    assume(sum(weights[:2]) > 0)
    models = [{name: tensor.double() for name, tensor in model.items()} for model in models]
    fishers = [{name: tensor.double() for name, tensor in fisher.items()} for fisher in fishers]
    pair = merge(models[:2], weights[:2], fishers[:2], normalise="none")
    carried = {name: weights[0] * fishers[0][name] + weights[1] * fishers[1][name] for name in SHAPES}
    rest = ([1.0, *weights[2:], 0.0], [pair, *models[2:], pair], [carried, *fishers[2:], carried])
    stepwise = merge(rest[1], rest[0], rest[2], normalise="none")
    assert_close(stepwise, merge(models, weights, fishers, normalise="none"), rtol=1e-10, atol=1e-10)


@given(problems(), settings_of)
def test_no_result_is_ever_nan(problem, settings):
    models, weights, fishers, base = problem
    silent = [{name: torch.zeros_like(tensor) for name, tensor in fisher.items()} for fisher in fishers]
    for these in (fishers, silent, [silent[0], *fishers[1:]]):
        for rule in cases.AVERAGES:
            found = merge(models, weights, these, base, rule=rule, **settings)
            assert all(torch.isfinite(tensor).all() for tensor in found.values())
