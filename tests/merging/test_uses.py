"""The numbers behind the lessons: their ends and middles are the pipeline's own merges."""

from dataclasses import replace

import numpy
import pytest

import merging
from merging.diagnostics import growing_merge, share_curves
from merging.diagnostics.uses import mean_of
from merging.errors import Cancelled
from merging.pipeline import evaluate
from merging.recipe import FisherSettings

POINTS = 5


@pytest.fixture(scope="module")
def donor():
    """A target with little data and its donor: recipe, prepared, curves."""
    recipe = merging.preset_recipe(merging.open_pool("digits"), "intermediate", fisher=FisherSettings(examples=16))
    prepared = merging.prepare(recipe)
    return recipe, prepared, share_curves(prepared, recipe, points=POINTS)


def test_every_point_is_the_merge_at_its_weights(donor):
    recipe, prepared, curves = donor
    assert curves.shares == (0, 0.25, 0.5, 0.75, 1)
    for split in ("validation", "test"):
        on_split = replace(recipe, evaluation=replace(recipe.evaluation, split=split))
        for place, share in enumerate(curves.shares):
            result = evaluate(prepared, on_split.with_weights([1 - share, share]))
            for rule in ("isotropic", "fisher"):
                for task in ("few", "digit"):
                    assert curves.curve(rule, split, [task])[place] == pytest.approx(result.scores[rule][task].value)
        assert mean_of(curves.ensemble[split], ["few"]) == pytest.approx(result.scores["ensemble"]["few"].value)


def test_the_ends_are_the_single_models(donor):
    _, prepared, curves = donor
    for split in ("validation", "test"):
        own = prepared.fixed_predictions(split)[0]
        for answers, (model, task) in zip(curves.singles[split], (("few", "few"), ("seed-0", "digit")), strict=True):
            numpy.testing.assert_array_equal(answers[task], own[model][task].correct)
        for rule in ("isotropic", "fisher"):
            ends = [curves.merges[rule, split][place] for place in (0, -1)]
            assert [mean_of(end, ["few", "digit"]) for end in ends] == pytest.approx(
                [mean_of(own, ["few", "digit"]) for own in curves.singles[split]]
            )


def test_the_chosen_share_is_the_best_on_validation(donor):
    _, _, curves = donor
    for rule in ("isotropic", "fisher"):
        curve = curves.curve(rule, "validation", ["few"])
        assert curve[curves.chosen(rule, ["few"])] == max(curve)


def test_the_nearest_share_is_found(donor):
    assert [donor[2].place(share) for share in (-1, 0.1, 0.13, 0.5, 7)] == [0, 0, 1, 2, 4]


def test_ever_more_seeds_end_at_the_merge_of_all(seeds_result):
    prepared, recipe = seeds_result.prepared, seeds_result.recipe
    found = growing_merge(prepared, recipe)
    assert found.models == tuple(prepared.names)
    for method in ("isotropic", "fisher", "ensemble"):
        values = [score.value for score in found.scores(method)]
        assert len(values) == 5
        assert values[-1] == pytest.approx(seeds_result.scores[method]["digit"].value)
        # One model merged is that model.
        numpy.testing.assert_array_equal(found.answers[method][0], found.singles[0])


def test_both_can_be_stopped(donor, seeds_result):
    def stop(fraction: float, text: str) -> None:
        if fraction > 0:
            raise Cancelled

    recipe, prepared, _ = donor
    with pytest.raises(Cancelled):
        share_curves(prepared, recipe, points=3, on_progress=stop)
    with pytest.raises(Cancelled):
        growing_merge(seeds_result.prepared, seeds_result.recipe, on_progress=stop)
