"""The picture that the page opens on: the same as the merge's own, and only for the recipe and code that made it."""

from dataclasses import replace

import pytest

from components import first_picture
from components.first_picture import keep, kept, picture_of
from components.job_panel import first_recipe
from merging.pipeline import evaluate, prepare
from merging.recipe import FisherSettings


@pytest.fixture(scope="module")
def result():
    recipe = replace(first_recipe(), fisher=FisherSettings(examples=16))
    return evaluate(prepare(recipe), recipe)


@pytest.mark.parametrize("width_px", [390, 1360])
def test_what_is_kept_is_the_results_own_picture(result, tmp_path, monkeypatch, width_px):
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path))
    assert kept(result.recipe, width_px) is None
    keep(result)
    sentence, figure, table = kept(result.recipe, width_px)
    own_sentence, own_figure, own_table = picture_of(result, width_px)
    assert (sentence, table) == (own_sentence, own_table)
    assert figure == own_figure


def test_another_recipe_or_other_code_has_no_picture(result, tmp_path, monkeypatch):
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path))
    keep(result)
    assert kept(result.recipe.with_weights([0.3, 0.3, 0.3, 0.1]), 1360) is None
    monkeypatch.setattr(first_picture, "_code_and_pools", lambda: "another byte somewhere")
    assert kept(result.recipe, 1360) is None


def test_a_damaged_picture_counts_as_none(result, tmp_path, monkeypatch):
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path))
    keep(result)
    next(tmp_path.glob("picture-*.json")).write_text("{")
    assert kept(result.recipe, 1360) is None


def test_a_cache_that_cannot_be_written_keeps_nothing_and_says_nothing(result, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path / "file" / "below"))
    keep(result)
    assert kept(result.recipe, 1360) is None
