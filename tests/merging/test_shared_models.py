"""Recipes that differ in what is estimated share their models, rows and what single models predict; others do not."""

import os
from dataclasses import replace

import numpy
import pytest
import torch

from merging.pipeline import evaluate, prepare
from merging.recipe import ModelEntry, Recipe
from tests.cases import quick_recipe


@pytest.fixture
def two_own(pool_folder):
    """A recipe of two models and tasks in a folder that may change."""
    folders = [(pool_folder / "checkpoints" / name, pool_folder / "tasks" / name) for name in ("large", "loop")]
    recipe = quick_recipe("four-tasks")
    return replace(recipe, models=[ModelEntry(str(one), str(task), 0.5) for one, task in folders], base=None)


def _other_fishers(recipe: Recipe) -> Recipe:
    return replace(recipe, fisher=replace(recipe.fisher, labels="empirical", examples=8, seed=3))


@pytest.fixture
def first(two_own):
    """It, prepared and evaluated."""
    prepared = prepare(two_own)
    evaluate(prepared, two_own)
    return prepared


@pytest.mark.parametrize("rule", ["fisher", "kfac"])
def test_other_fishers_of_the_same_models_give_what_they_give_alone(two_own, first, rule):
    other = replace(_other_fishers(two_own), rule=rule)
    before = [fisher.tensors for fisher in first.fishers]
    shared = prepare(other, others=lambda: [first])
    assert shared.modules is first.modules
    assert shared.fixed is first.fixed
    assert shared.fixed.has(other.evaluation.split)
    assert all(one is fisher.tensors for one, fisher in zip(before, first.fishers, strict=True))
    found, alone = evaluate(shared, other), evaluate(prepare(other), other)
    assert found.scores == alone.scores
    assert found.singles == alone.singles
    assert all(torch.equal(found.merged[name], own) for name, own in alone.merged.items())
    again = prepare(replace(two_own, rule=rule), others=lambda: [first])
    assert again.sampled(8).fixed is first.sampled(8).fixed


def test_models_in_use_are_not_those_of_an_estimate(fresh_cache, two_own, first, monkeypatch):
    estimated = []
    monkeypatch.setattr(
        "merging.pipeline.fisher_of", lambda checkpoint, task, module, **_: estimated.append(module) or first.fishers[0]
    )
    prepare(_other_fishers(two_own), others=lambda: [first])
    assert len(estimated) == 2
    assert not {id(module) for module in estimated} & {id(module) for module in first.modules}
    estimated.clear()
    prepare(two_own, others=lambda: [first])  # from the cache nothing is estimated
    assert [id(module) for module in estimated] == [id(module) for module in first.modules]


def test_what_is_prepared_without_fishers_has_read_no_hashes_and_shares_nothing(two_own, first):
    bare = replace(two_own, rule="isotropic", compare=())
    opened = prepare(bare, others=lambda: [first])
    assert opened.modules is not first.modules
    assert prepare(two_own, others=lambda: [opened]).modules is not opened.modules


@pytest.mark.parametrize(
    "change",
    [
        lambda recipe: replace(recipe, heads="merge", models=[recipe.models[0]] * 2),
        lambda recipe: replace(recipe, models=recipe.models[::-1]),
        lambda recipe: replace(recipe, evaluation=replace(recipe.evaluation, examples=20)),
        lambda recipe: replace(recipe, evaluation=replace(recipe.evaluation, tasks=["zoo:digits/large"])),
    ],
    ids=["heads", "order", "rows", "tasks"],
)
def test_other_models_rows_or_tasks_are_their_own(two_own, first, change):
    assert prepare(change(two_own), others=lambda: [first]).modules is not first.modules


def test_another_draw_of_the_rows_is_its_own(two_own):
    few = replace(two_own, evaluation=replace(two_own.evaluation, examples=20))
    first = prepare(few)
    same = replace(few, fisher=replace(few.fisher, labels="empirical"))
    assert prepare(same, others=lambda: [first]).modules is first.modules
    assert prepare(_other_fishers(few), others=lambda: [first]).modules is not first.modules


@pytest.mark.parametrize(
    "what", ["checkpoints/large/model.safetensors", "data/digits/test.parquet", "tasks/large/task.yaml"]
)
def test_a_file_that_has_changed_since_is_read_again(two_own, first, pool_folder, what):
    path = pool_folder / what
    if path.name == "model.safetensors":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1  # another number in the last tensor
        path.write_bytes(content)
    elif path.suffix == ".yaml":
        path.write_text(path.read_text() + "\nmax_tokens: 64\n")
    else:
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert prepare(two_own, others=lambda: [first]).modules is not first.modules


def test_what_single_models_answer_on_a_sample_is_known_of_all_rows(monkeypatch):
    recipe = quick_recipe("four-tasks")
    recipe = replace(recipe, evaluation=replace(recipe.evaluation, examples="all"))
    few = replace(recipe, evaluation=replace(recipe.evaluation, examples=40))
    split, prepared = recipe.evaluation.split, prepare(recipe)
    expected = prepare(few).fixed_predictions(split)
    prepared.fixed_predictions(split)
    monkeypatch.setattr("merging.prepared.predict", None)
    found = prepared.sampled(40).fixed_predictions(split)
    for own, other in zip([*expected[0].values(), expected[1]], [*found[0].values(), found[1]], strict=True):
        assert list(own) == list(other)
        for task, prediction in own.items():
            assert numpy.array_equal(prediction.labels, other[task].labels)
            assert len(prediction.labels) == 40
            numpy.testing.assert_allclose(prediction.probabilities, other[task].probabilities, rtol=0, atol=1e-5)


def test_a_sample_of_another_seed_has_rows_of_its_own(two_own, first):
    split, mine = two_own.evaluation.split, first.sampled(8)
    mine.batches(split)  # and nobody has asked yet what single models answer on them
    theirs = prepare(_other_fishers(two_own), others=lambda: [first]).sampled(8)
    for sample in (theirs, mine):
        for batches, prediction in zip(sample.batches(split), sample.fixed_predictions(split)[1].values(), strict=True):
            labels = torch.cat([batch["labels"] for batch in batches])  # pictures stay in their order
            assert numpy.array_equal(labels.numpy(), prediction.labels)
    assert any(
        not numpy.array_equal(one.probabilities, other.probabilities)
        for one, other in zip(*[own.fixed_predictions(split)[1].values() for own in (mine, theirs)], strict=True)
    )
