"""Presets of the Hub: their files name checkpoints and datasets in full, without a network."""

import re

import pytest

from merging import open_pool, open_task
from merging.errors import PoolError
from merging.pools import hub_names
from merging.recipe import Recipe, preset_recipe

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@pytest.mark.parametrize("name", hub_names())
def test_a_preset_of_the_hub_is_whole(name):
    pool = open_pool(name)
    assert pool.name == name
    assert pool.description
    assert all(HUB_ID.fullmatch(reference) for reference in [pool.base, *[model.checkpoint for model in pool.models]])
    for model in pool.models:
        task = open_task(model.task)
        assert HUB_ID.fullmatch(task.source.dataset)
        assert all(task.has(split) for split in ("fisher", "validation", "test"))
        assert all(template.count("{}") == 1 for template in task.templates)
    for preset in pool.presets:
        assert 2 <= len(preset.models) <= 8
        recipe = preset_recipe(pool, preset.name)
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe
        assert len(recipe.evaluation.tasks) == len(preset.evaluate)
        assert [open_task(task).name for task in recipe.evaluation.tasks] == list(preset.evaluate)


@pytest.mark.parametrize("name", hub_names())
def test_published_rows_belong_to_a_preset(name):
    pool = open_pool(name)
    if pool.published is None:
        return
    assert pool.preset(pool.published.preset).models
    assert {"isotropic", "fisher"} <= set(pool.published.mean)
    assert all(0 < value < 100 for value in pool.published.mean.values())
    assert pool.published.task in (None, *pool.tasks)


def test_the_systems_that_papers_report_on_are_there():
    assert {"clip-vit-base-patch32", "clip-vit-base-patch16", "clip-vit-large-patch14", "gpt2-glue"} <= set(hub_names())
    assert len(open_pool("clip-vit-large-patch14").preset("eight-tasks").models) == 8
    assert len(open_pool("gpt2-glue").preset("seven-tasks").models) == 7


def test_an_unknown_preset_of_the_hub_offers_the_nearest():
    with pytest.raises(PoolError, match='Did you mean "gpt2-glue"'):
        open_pool("gpt2-glu")
