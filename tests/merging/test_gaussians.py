"""Two quadratic models of two parameters: the merges against closed forms."""

import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merging.diagnostics import Gaussian, optima
from merging.diagnostics.gaussians import ellipse, kept_fisher, ladder, loss_at, total_fisher
from merging.errors import RecipeError
from merging.fisher import Fisher
from merging.layer_factors import LayerFactors
from merging.merge import merge_parameters
from merging.rules import RuleSettings

# Least squares: X₁ = [[1,0],[1,0],[0,1]] with θ₁ = (1,2), X₂ = [[1,1],[0,1]] with θ₂ = (3,0); F = XᵀX.
X1, X2 = numpy.array([[1, 0], [1, 0], [0, 1]]), numpy.array([[1, 1], [0, 1]])
REGRESSIONS = (Gaussian((1, 2), 2, 1, 0), Gaussian((3, 0), 1, 2, 1))
NUMBERS = st.floats(-3, 3)
PRECISIONS = st.floats(0.01, 8)
SETTINGS = st.builds(RuleSettings, shrinkage=st.floats(0, 1), damping=st.floats(0, 2))
RULES = ["isotropic", "diagonal", "kfac", "full"]


@st.composite
def gaussians(draw) -> Gaussian:
    """A model with a proper precision: its tilt is less than √(F₁₁F₂₂)."""
    first, second = draw(PRECISIONS), draw(PRECISIONS)
    return Gaussian(
        (draw(NUMBERS), draw(NUMBERS)), first, second, draw(st.floats(-0.9, 0.9)) * math.sqrt(first * second)
    )


def test_two_regressions_have_the_merges_that_are_known():
    found = optima(REGRESSIONS, [0.5, 0.5])
    expected = {"full": ((1.25, 1.25), 2.5), "diagonal": ((5 / 3, 2 / 3), 32 / 9), "isotropic": ((2, 1), 4)}
    assert list(found) == RULES
    for rule, (point, loss) in expected.items():
        assert found[rule].point == pytest.approx(point)
        assert found[rule].loss == pytest.approx(loss)
        assert found[rule].unanswered == ()


def test_the_full_fisher_is_the_regression_on_the_data_of_both_and_the_loss_its_squared_errors():
    features = numpy.concatenate([X1, X2])
    answers = numpy.concatenate([X1 @ (1, 2), X2 @ (3, 0)])
    pooled, errors, *_ = numpy.linalg.lstsq(features, answers, rcond=None)
    full = optima(REGRESSIONS, [0.5, 0.5])["full"]
    assert full.point == pytest.approx(tuple(pooled))
    assert full.loss == pytest.approx(errors[0])
    for x, model in zip((X1, X2), REGRESSIONS, strict=True):
        numpy.testing.assert_allclose(model.fisher, x.T @ x)


@given(gaussians(), gaussians(), st.floats(0.05, 0.95))
def test_no_rule_and_no_other_point_has_a_smaller_loss_than_the_full_fisher(one, two, share):
    models, weights = (one, two), (share, 1 - share)
    found = optima(models, weights)
    least = found["full"].loss
    around = [numpy.add(found["full"].point, step) for step in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1))]
    others = [*(own.loss for own in found.values()), *(loss_at(models, weights, point) for point in around)]
    assert all(other >= least - 1e-9 * (1 + least) for other in others)


@given(gaussians(), st.tuples(NUMBERS, NUMBERS), st.floats(0.05, 0.95))
def test_equal_precisions_make_every_rule_isotropic(one, centre, share):
    two = Gaussian(centre, one.along_1, one.along_2, one.tilt)
    found = optima((one, two), (share, 1 - share))
    for rule in ("diagonal", "kfac", "full"):
        assert found[rule].point == pytest.approx(found["isotropic"].point, abs=1e-6)


@given(gaussians(), gaussians(), st.floats(0.05, 0.95))
def test_without_tilt_the_diagonal_is_the_full_fisher(one, two, share):
    models = [Gaussian(own.centre, own.along_1, own.along_2) for own in (one, two)]
    found = optima(models, (share, 1 - share))
    assert found["diagonal"].point == pytest.approx(found["full"].point, abs=1e-9)


@given(gaussians(), gaussians(), st.floats(0.05, 0.95), st.floats(0.01, 100))
def test_a_common_scale_of_the_weights_cancels(one, two, share, scale):
    plain, scaled = (
        optima((one, two), weights) for weights in ((share, 1 - share), (scale * share, scale * (1 - share)))
    )
    for rule, own in plain.items():
        assert scaled[rule].point == pytest.approx(own.point, abs=1e-9)
        assert scaled[rule].loss == pytest.approx(own.loss, abs=1e-9)


@pytest.mark.parametrize("rule", RULES)
def test_all_weight_on_one_model_returns_it(rule):
    for index, weights in enumerate(((1, 0), (0, 1))):
        own = optima(REGRESSIONS, weights)[rule]
        assert own.point == pytest.approx(REGRESSIONS[index].centre)
        assert own.loss == pytest.approx(0, abs=1e-12)


def test_a_parameter_that_no_data_speak_of_has_no_answer_and_takes_the_mean():
    found = optima((Gaussian((1, 2), 0, 1), Gaussian((3, 0), 0, 2)), (0.5, 0.5))
    for rule in ("diagonal", "full"):
        assert found[rule].unanswered == (1,)
        assert found[rule].point == pytest.approx((2, 2 / 3))
    nothing = optima((Gaussian((1, 2), 0, 0), Gaussian((3, 0), 0, 0)), (0.25, 0.75))
    for rule in ("diagonal", "kfac", "full"):
        assert nothing[rule].unanswered == (1, 2)
        assert nothing[rule].point == pytest.approx((2.5, 0.5))


def test_k_facs_damping_answers_where_no_data_speak_by_each_models_trace():
    """Traces 1 and 2: along θ₁ the mean of 1 and 3 with those weights, whatever the damping."""
    for settings in (RuleSettings(), RuleSettings(damping=0, shrinkage=1)):
        found = optima((Gaussian((1, 2), 0, 1), Gaussian((3, 0), 0, 2)), (0.5, 0.5), settings)["kfac"]
        assert found.unanswered == ()
        assert found.point == pytest.approx((7 / 3, 2 / 3))


def test_k_fac_at_its_defaults_has_the_merge_of_two_regressions_that_was_worked_out_by_hand():
    """A′ = [[2.15, 0], [0, 1.15]] and [[1.15, .5], [.5, 2.15]]: [[3.3, .5], [.5, 3.3]] θ = (5.6, 3.8)."""
    numpy.testing.assert_allclose(kept_fisher(REGRESSIONS[0]), [[2.15, 0], [0, 1.15]])
    numpy.testing.assert_allclose(kept_fisher(REGRESSIONS[1]), [[1.15, 0.5], [0.5, 2.15]])
    assert optima(REGRESSIONS, [0.5, 0.5])["kfac"].point == pytest.approx((16.58 / 10.64, 9.74 / 10.64))


def test_k_fac_goes_from_the_diagonal_to_the_full_fisher_as_off_diagonals_are_kept():
    """With a damping of nothing; of two regressions each bit of the off-diagonals that is kept makes the loss smaller."""
    kept = numpy.linspace(0, 1, 21)
    found = [optima(REGRESSIONS, [0.5, 0.5], RuleSettings(shrinkage=float(own), damping=0)) for own in kept]
    for place, rule in ((0, "diagonal"), (-1, "full")):
        assert found[place]["kfac"].point == pytest.approx(found[place][rule].point, abs=1e-5)
        assert found[place]["kfac"].loss == pytest.approx(found[place][rule].loss, abs=1e-5)
    assert (numpy.diff([own["kfac"].loss for own in found]) < 0).all()


@given(gaussians(), gaussians(), st.floats(0.05, 0.95), SETTINGS)
def test_k_fac_is_the_full_fisher_of_what_it_keeps_and_without_off_diagonals_the_diagonal(one, two, share, settings):
    kept = []
    for own in (one, two):
        fisher = kept_fisher(own, settings)
        kept.append(Gaussian(own.centre, fisher[0, 0], fisher[1, 1], fisher[0, 1]))
    found, expected = optima((one, two), (share, 1 - share), settings), optima(kept, (share, 1 - share))
    assert found["kfac"].point == pytest.approx(expected["full"].point, abs=1e-7)
    if settings.shrinkage == 0:
        assert found["kfac"].point == pytest.approx(expected["diagonal"].point, abs=1e-7)


@given(gaussians(), gaussians(), st.floats(0.05, 0.95), st.floats(0, 2))
def test_with_whole_factors_k_fac_loses_at_most_its_damping(one, two, share, damping):
    """What it makes least is the loss plus the damping's own, which at the full Fisher's point is as much as is allowed."""
    models, weights = (one, two), (share, 1 - share)
    found = optima(models, weights, RuleSettings(shrinkage=1, damping=damping))
    part = max(damping, 1e-6)
    round_ = [Gaussian(own.centre, *[part * (own.along_1 + own.along_2) / 2] * 2) for own in models]
    allowed = loss_at(round_, weights, found["full"].point)
    assert -1e-9 <= found["kfac"].loss - found["full"].loss <= allowed + 1e-9


@given(gaussians(), gaussians(), st.floats(0.05, 0.95), SETTINGS)
def test_k_fac_is_what_a_merge_of_linear_layers_gives(one, two, share, settings):
    output = torch.ones(1, 1, dtype=torch.float64)
    layers = [{"w": torch.tensor([own.centre], dtype=torch.float64)} for own in (one, two)]
    inputs = [torch.tensor(own.fisher) for own in (one, two)]
    fishers = [Fisher({"w": a.diagonal()[None]}, 1, "exact", factors={"w": LayerFactors(a, output, a)}) for a in inputs]
    weights = (share, 1 - share)
    merged = merge_parameters(layers, "kfac", weights, fishers=fishers, normalise="none", settings=settings)
    expected = pytest.approx(tuple(merged["w"][0].tolist()), abs=1e-9)
    assert optima((one, two), weights, settings)["kfac"].point == expected


def test_the_ladder_of_two_regressions_tells_what_each_step_gains():
    steps = ladder(optima(REGRESSIONS, [0.5, 0.5], RuleSettings(shrinkage=1, damping=0)))
    assert [step.rule for step in steps] == RULES
    assert [step.excess for step in steps] == pytest.approx([1.5, 32 / 9 - 2.5, 0, 0], abs=1e-9)
    assert steps[0].gained is None
    assert [step.gained for step in steps[1:]] == pytest.approx([4 - 32 / 9, 32 / 9 - 2.5, 0], abs=1e-9)


@given(gaussians(), gaussians(), st.floats(0.05, 0.95), SETTINGS)
def test_the_ladders_gains_add_up_and_none_stands_below_the_full_fisher(one, two, share, settings):
    steps = ladder(optima((one, two), (share, 1 - share), settings))
    assert all(step.excess >= 0 for step in steps)
    assert steps[-1].excess == 0
    assert sum(step.gained for step in steps[1:]) == pytest.approx(steps[0].excess)


def test_without_tilt_the_ladder_ends_at_the_diagonal_and_k_fac_pays_for_its_damping():
    models = (Gaussian((1, 2), 4, 0.5), Gaussian((3, 0), 0.5, 4))
    _, diagonal, kfac, full = ladder(optima(models, (0.5, 0.5)))
    assert diagonal.gained > 1
    assert diagonal.excess == pytest.approx(0, abs=1e-12)
    assert kfac.gained < 0 < full.gained


def test_a_diagonal_that_ignores_a_tilt_can_lose_to_no_fisher_at_all():
    models = (Gaussian((1, 2), 7, 6, 4), Gaussian((3, 0), 2, 4, -2.5))
    steps = {step.rule: step for step in ladder(optima(models, (0.5, 0.5)))}
    assert steps["diagonal"].gained < 0


def test_where_both_are_blind_along_one_diagonal_only_the_full_fisher_notices():
    # F = [[1, 1], [1, 1]] twice: only θ₁ + θ₂ is known, which is 3 to both.
    found = optima((Gaussian((1, 2), 1, 1, 1), Gaussian((3, 0), 1, 1, 1)), (0.5, 0.5))
    assert found["diagonal"].unanswered == ()
    assert found["full"].unanswered == (1, 2)
    assert sum(found["full"].point) == pytest.approx(3)
    assert found["full"].loss == pytest.approx(0, abs=1e-12)


def test_more_tilt_than_there_can_be_is_cut_to_a_line():
    model = Gaussian((0, 0), 4, 1, 100)
    assert model.largest_tilt == 2
    assert numpy.linalg.det(model.fisher) == pytest.approx(0)
    assert numpy.linalg.eigvalsh(model.fisher).min() >= -1e-12
    assert Gaussian((0, 0), 4, 1, -100).fisher[0, 1] == -2


@given(gaussians(), st.floats(0.1, 3))
def test_an_ellipse_is_where_its_model_is_equally_unhappy(model, level):
    for point in ellipse(model.centre, model.fisher, level, reach=1e6, count=9):
        assert loss_at((model,), (1,), point) == pytest.approx(level)


def test_a_flat_models_ellipse_ends_at_its_reach():
    points = ellipse((0, 0), numpy.zeros((2, 2)), 1, reach=20)
    assert numpy.linalg.norm(points, axis=1) == pytest.approx(20)


def test_the_total_fisher_is_the_weighted_sum():
    numpy.testing.assert_allclose(total_fisher(REGRESSIONS, (0.5, 0.5)), [[1.5, 0.5], [0.5, 1.5]])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_told(bad):
    for numbers in ((bad, 1, 0), (1, bad, 0), (1, 1, bad)):
        with pytest.raises(RecipeError, match="expected"):
            Gaussian((0, 0), *numbers)


def test_negative_precisions_and_weights_are_told():
    with pytest.raises(RecipeError, match="expected precisions of 0 or more, got -1"):
        Gaussian((0, 0), -1, 1)
    for weights in ((-1, 2), (0, 0), (math.nan, 1)):
        with pytest.raises(RecipeError, match="weights"):
            optima(REGRESSIONS, weights)
