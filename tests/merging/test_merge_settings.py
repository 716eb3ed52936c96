"""What floor, normalisation, zero rule and dtype do, and what merging refuses."""

import math

import pytest
import torch

from merging import MergingError, merge_parameters
from merging.errors import FisherError, RecipeError, StructureError
from tests import cases

A, B = {"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([3.0, 3.0])}
NAN = float("nan")


def fishers(*rows):
    return [{"w": torch.tensor(row, dtype=torch.float64)} for row in rows]


def merged(*rows, models=(A, B), **settings):
    return merge_parameters(models, fishers=fishers(*rows), **settings)["w"].tolist()


def test_each_normalisation_has_its_closed_form():
    """F = (3, 4) and (0, 1): sums 7 and 1, norms 5 and 1."""
    rows = ([3.0, 4.0], [0.0, 1.0])
    assert merged(*rows, normalise="none") == pytest.approx([1, (4 + 3) / 5])
    assert merged(*rows, normalise="trace") == pytest.approx([1, (4 / 7 + 3) / (4 / 7 + 1)])
    assert merged(*rows, normalise="l2") == pytest.approx([1, (0.8 + 3) / 1.8])


def test_trace_is_the_default_normalisation_and_zero_the_default_floor():
    rows = ([3.0, 4.0], [0.0, 1.0])
    assert merged(*rows) == merged(*rows, normalise="trace", floor=0.0, zero_rule="mean")


def test_normalisation_counts_the_merged_parameters_only():
    with_head = [{**fisher, "head": torch.full((9,), 100.0)} for fisher in fishers([3.0, 4.0], [0.0, 1.0])]
    for normalise in cases.NORMALISATIONS:
        found = merge_parameters([A, B], fishers=with_head, normalise=normalise)
        assert list(found) == ["w"]
        assert found["w"].tolist() == merged([3.0, 4.0], [0.0, 1.0], normalise=normalise)


def test_the_floor_is_a_maximum_taken_before_the_normalisation():
    """F₁ = (0, 9) and floor 1 → (1, 9), sum 10; F₂ = (0, 0) → (1, 1), sum 2."""
    found = merged([0.0, 9.0], [0.0, 0.0], floor=1.0, normalise="trace")
    assert found == pytest.approx([(0.1 + 3 * 0.5) / 0.6, (0.9 + 3 * 0.5) / 1.4])
    # A floor below every Fisher does nothing; a sum would.
    assert merged([2.0, 3.0], [5.0, 7.0], floor=2.0) == merged([2.0, 3.0], [5.0, 7.0])


@pytest.mark.parametrize(("zero_rule", "expected"), [("mean", 1.5), ("target", 1.0), ("base", 7.0)])
def test_each_zero_rule_decides_where_no_fisher_speaks(zero_rule, expected):
    base = {"w": torch.tensor([7.0, 7.0])}
    found = merged([0.0, 1.0], [0.0, 1.0], zero_rule=zero_rule, base=base, weights=[3, 1], normalise="none")
    assert found == pytest.approx([expected, 1.5])


def test_a_zero_rule_ignores_the_fisher_of_a_model_with_weight_zero():
    assert merged([0.0, 1.0], [9.0, 9.0], zero_rule="target", weights=[1, 0]) == [1.0, 1.0]


def test_a_fisher_that_is_zero_everywhere_has_no_say_and_does_not_divide_by_zero():
    for normalise in cases.NORMALISATIONS:
        assert merged([0.0, 0.0], [1.0, 2.0], normalise=normalise) == [3.0, 3.0]
        assert merged([0.0, 0.0], [0.0, 0.0], normalise=normalise) == [2.0, 2.0]


@pytest.mark.parametrize("normalise", cases.NORMALISATIONS)
@pytest.mark.parametrize("factor", [1e-40, 1e-300, 5e-324, 1e200, 1e300])
def test_fishers_at_the_edge_of_the_number_range_are_used(factor, normalise):
    """Squares and sums of such numbers are 0 or infinite."""
    halved = {"none": 2.0, "trace": 7 / 3, "l2": (1 + 3 * 2**0.5) / (1 + 2**0.5)}[normalise]
    if factor > 1e-320:  # the last but one numbers above 0 have no digits left
        assert merged([factor, factor], [factor, 0.0], normalise=normalise) == pytest.approx([halved, 1.0])
    assert merged([factor, 0.0], [0.0, factor], normalise=normalise) == [1.0, 3.0]


def test_weights_default_to_equal_ones():
    assert merge_parameters([A, B, B], "isotropic")["w"].tolist() == pytest.approx([7 / 3, 7 / 3])


@pytest.mark.parametrize("rule", cases.AVERAGES)
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_the_result_has_the_models_dtype_but_at_least_float32(given, expected, rule):
    models = [{"w": model["w"].to(given)} for model in (A, B)]
    found = merge_parameters(models, rule, fishers=fishers([1.0, 3.0], [1.0, 1.0]))["w"]
    assert found.dtype == expected
    assert models[0]["w"].dtype == given


def test_half_precision_models_are_not_averaged_in_half_precision():
    """2048 + 1 is 2048 in float16."""
    models = [{"w": torch.tensor([number], dtype=torch.float16)} for number in (2048.0, 2050.0)]
    assert merge_parameters(models, "isotropic", [0.75, 0.25])["w"].item() == 2048.5


def test_double_precision_is_kept():
    models = [{"w": torch.tensor([1 + offset], dtype=torch.float64)} for offset in (1e-12, 3e-12)]
    assert merge_parameters(models, "isotropic")["w"].item() == pytest.approx(1 + 2e-12, abs=1e-15)


def test_buffers_that_are_not_floating_point_are_passed_on_when_equal():
    ids = torch.arange(3)
    found = merge_parameters([{**A, "ids": ids}, {**B, "ids": ids.clone()}], fishers=fishers([1.0, 1.0], [1.0, 1.0]))
    assert torch.equal(found["ids"], ids)
    assert found["ids"].dtype == torch.int64


def test_buffers_that_are_not_floating_point_and_differ_are_refused():
    models = [{**A, "ids": torch.arange(3)}, {**B, "ids": torch.arange(3) + 1}]
    with pytest.raises(StructureError, match=r'expected "ids", which holds torch.int64, to be equal'):
        merge_parameters(models, "isotropic")


def test_the_models_are_not_changed():
    models = [{"w": A["w"].clone()}, {"w": B["w"].clone()}]
    found = merge_parameters(models, fishers=fishers([1.0, 3.0], [1.0, 1.0]))
    found["w"] += 1
    assert torch.equal(models[0]["w"], A["w"])
    assert torch.equal(models[1]["w"], B["w"])


def test_progress_rises_to_one_tensor_by_tensor():
    seen = []
    model = {str(index): torch.ones(2) for index in range(4)}
    merge_parameters([model, model], "isotropic", on_progress=lambda fraction, text: seen.append(fraction))
    assert seen == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0, 0], r"expected at least one above 0, got \[0.0, 0.0\]"),
        ([1, -1], r"expected finite numbers of 0 or more, got \[1.0, -1.0\]"),
        ([1, NAN], r"expected finite numbers of 0 or more, got \[1.0, nan\]"),
        ([1, math.inf], r"expected finite numbers of 0 or more, got \[1.0, inf\]"),
        ([1, 1, 1], r"expected one for each of the 2 models, got 3"),
    ],
)
def test_weights_without_a_meaning_are_refused(weights, message):
    with pytest.raises(RecipeError, match=message):
        merge_parameters([A, B], "isotropic", weights)


@pytest.mark.parametrize(
    ("these", "message"),
    [
        (None, "expected 2, got 0"),
        (fishers([1.0, 1.0]), "expected 2, got 1"),
        ([{}, {}], 'Fisher 1 .* got none for "w"'),
        (fishers([1.0, 1.0], [1.0]), r'Fisher 2 .* expected shape \[2\] for "w", got \[1\]'),
        (fishers([1.0, 1.0], [1.0, -1.0]), 'Fisher 2 .* expected finite numbers of 0 or more, got others in "w"'),
        (fishers([NAN, 1.0], [1.0, 1.0]), 'Fisher 1 .* expected finite numbers of 0 or more, got others in "w"'),
    ],
)
def test_fishers_that_do_not_fit_are_refused(these, message):
    with pytest.raises(FisherError, match=message):
        merge_parameters([A, B], fishers=these)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "fischer"}, 'Unknown rule: .* got "fischer". Did you mean "fisher"'),
        ({"normalise": "trce"}, 'Did you mean "trace"'),
        ({"zero_rule": "bases"}, 'Did you mean "base"'),
        ({"floor": -1.0}, "expected a finite number of 0 or more, got -1.0"),
        ({"floor": NAN}, "expected a finite number of 0 or more, got nan"),
        ({"zero_rule": "base"}, 'zero_rule "base" needs the base checkpoint'),
        ({"zero_rule": "base", "base": {"w": torch.zeros(3)}}, 'expected the same parameters, got others for "w"'),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, message):
    with pytest.raises(MergingError, match=message):
        merge_parameters([A, B], fishers=fishers([1.0, 1.0], [1.0, 1.0]), **settings)


@pytest.mark.parametrize("models", [[], [A]])
def test_fewer_than_two_models_are_refused(models):
    with pytest.raises(RecipeError, match=f"expected two or more models, got {len(models)}"):
        merge_parameters(models, "isotropic")


def test_models_that_are_not_finite_are_refused():
    with pytest.raises(StructureError, match=r'NaN or infinity in "w"'):
        merge_parameters([A, {"w": torch.tensor([1.0, NAN])}], "isotropic")
