"""Fishers of ever more examples: nested, and the last one is that of all."""

from dataclasses import replace

import pytest
import torch

import merging
from merging.diagnostics import fisher_quality
from merging.diagnostics.quality import cosine, nested_counts, running_fishers
from merging.errors import Cancelled
from merging.metrics import accuracy
from merging.pipeline import evaluate

MOST = 24


@pytest.fixture(scope="module")
def quality(four_result):
    return fisher_quality(four_result.prepared, four_result.recipe, most=MOST)


@pytest.mark.parametrize(
    ("most", "counts"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8, 9])]
)
def test_the_counts_double_up_to_the_last(most, counts):
    assert nested_counts(most) == counts


def test_a_running_fisher_is_the_fisher_of_its_first_examples(four_result):
    module, recipe = four_result.prepared.modules[3], four_result.recipe
    batch = {"pixel_values": torch.randn(9, 1, 16, 16, generator=torch.Generator().manual_seed(1))}
    names, counts = four_result.prepared.merged_names, nested_counts(9)
    found = running_fishers(module, batch, counts, recipe, names, lambda examples: None)
    for count, own in zip(counts, found, strict=True):
        whole = merging.diagonal_fisher(module, [{"pixel_values": batch["pixel_values"][:count]}], "exact")
        assert set(own) == set(names)
        for name in names:
            torch.testing.assert_close(own[name], whole[name], rtol=1e-4, atol=1e-9)


def test_with_all_examples_the_cosine_is_one_and_before_it_is_a_cosine(quality, four_result):
    assert quality.counts == (1, 2, 4, 8, 16, MOST)
    assert list(quality.cosines) == four_result.prepared.names
    for own in quality.cosines.values():
        assert own[-1] == pytest.approx(1, abs=1e-6)
        assert all(0 < value <= 1 for value in own)
        assert own[0] < own[-2], "sixteen examples say more than one"


def test_the_merge_of_all_examples_is_that_of_their_own_fishers(quality, four_result):
    prepared, recipe = four_result.prepared, four_result.recipe
    plain = prepared.predict_merged(prepared.merge(recipe, rule="isotropic"), "test", recipe.weights)
    assert quality.isotropic == pytest.approx(sum(accuracy(one.correct).value for one in plain.values()) / 4)
    assert quality.split == "test"
    assert len(quality.accuracies) == len(quality.counts)
    assert all(0 <= value <= 1 for value in quality.accuracies)


def test_another_split_is_scored_where_it_is_asked_for(four_result):
    prepared, recipe = four_result.prepared, four_result.recipe
    found = fisher_quality(prepared, recipe, most=2, split="validation")
    on_validation = evaluate(prepared, replace(recipe, evaluation=replace(recipe.evaluation, split="validation")))
    assert found.split == "validation"
    assert found.isotropic == pytest.approx(on_validation.mean("isotropic"))


def test_progress_rises_and_stops_the_work(four_result):
    seen = []

    def watch(fraction: float, text: str) -> None:
        seen.append(fraction)
        if len(seen) == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        fisher_quality(four_result.prepared, four_result.recipe, most=8, on_progress=watch)
    assert seen == sorted(seen)


def test_the_cosine_of_multiples_is_one_of_strangers_zero_and_of_nothing_zero():
    first, second = {"a": torch.tensor([1.0, 3.0, 0.0])}, {"a": torch.tensor([4.0, 1.0, 1.0])}
    # Task2Vec's example: the raw cosine distance of these two is .478251.
    assert 1 - cosine(first, second) == pytest.approx(0.478251, abs=1e-6)
    assert cosine(first, {"a": 7 * first["a"]}) == pytest.approx(1)
    assert cosine({"a": torch.tensor([1.0, 0.0])}, {"a": torch.tensor([0.0, 1.0])}) == 0
    assert cosine(first, {"a": torch.zeros(3)}) == 0


def test_few_rows_are_all_there_is(pool_folder):
    recipe = merging.preset_recipe(merging.open_pool(str(pool_folder)), "intermediate")
    found = fisher_quality(merging.prepare(replace(recipe, fisher=replace(recipe.fisher, examples=4))), recipe)
    assert found.counts[-1] == 30
