"""Rules beyond the diagonal in the whole job: factors through the cache, several rules at once, notes, cards."""

import json
from dataclasses import replace

import pytest
import torch

import merging
from merging import cache
from merging.__main__ import main
from merging.drift import FAR, drift, drift_notes
from merging.errors import RecipeError
from merging.estimates import FACTORS, fisher_key
from merging.export import export
from merging.layer_factors import Factors
from merging.pipeline import evaluate, prepare
from merging.rules import RULES, RuleSettings
from merging.streamed import stream
from merging.tasks import open_task
from tests import cases

BESIDE = tuple(name for name in cases.RULES if name not in ("kfac", "slerp"))


@pytest.fixture(scope="module")
def result():
    return merging.run(cases.two_tasks(rule="kfac", compare=(*BESIDE, "slerp", "ensemble", "experts")))


def entry(recipe, prepared, index, part=""):
    key = fisher_key(prepared.checkpoints[index], open_task(recipe.models[index].task), recipe.fisher, "cpu")
    return cache.entry_path(key, part)


def test_every_rule_is_merged_scored_and_timed(result):
    assert set(result.scores) == {*cases.RULES, "ensemble", "experts"}
    assert set(result.merge_seconds) == set(cases.RULES)
    for rule in cases.RULES:
        alone = evaluate(result.prepared, replace(result.recipe, rule=rule, compare=()))
        assert alone.scores[rule] == result.scores[rule]
    own = merging.merge_parameters(result.prepared.parameters(), "kfac", fishers=result.prepared.fishers)
    assert all(torch.equal(result.merged[name], tensor) for name, tensor in own.items())


def test_factors_are_cached_beside_their_fishers_and_read_layer_by_layer(result):
    recipe, prepared = result.recipe, result.prepared
    paths = [entry(recipe, prepared, index, FACTORS) for index in (0, 1)]
    stored = [Factors.load(path) for path in paths]
    before = [path.read_bytes() for path in paths]
    again = prepare(recipe)
    assert [path.read_bytes() for path in paths] == before
    for fisher, own in zip(again.fishers, stored, strict=True):
        assert list(fisher.factors) == list(own)
        assert fisher.factors.seconds == own.seconds
    merged = again.merge(recipe)
    assert all(torch.equal(merged[name], tensor) for name, tensor in result.merged.items())


def test_damaged_factors_are_estimated_again_with_the_same_numbers(result):
    path = entry(result.recipe, result.prepared, 0, FACTORS)
    content = bytearray(path.read_bytes())
    content[-2] ^= 32
    path.write_bytes(content)
    merged = prepare(result.recipe).merge(result.recipe)
    assert all(torch.equal(merged[name], tensor) for name, tensor in result.merged.items())


def test_a_fisher_that_was_estimated_without_factors_is_the_same_with_them(result):
    plain = replace(result.recipe, rule="fisher", compare=())
    prepared = prepare(plain)
    assert all(fisher.factors is None for fisher in prepared.fishers)
    for own, other in zip(prepared.fishers, result.prepared.fishers, strict=True):
        assert all(torch.equal(own[name], other[name]) for name in own)


def test_regmean_needs_factors_and_no_fisher_in_its_formula():
    recipe = cases.two_tasks(rule="regmean", compare=())
    assert recipe.needs_fishers
    assert not RULES["regmean"].needs_fisher
    scores = merging.run(recipe).scores["regmean"]
    assert {0 <= score.value <= 1 for score in scores.values()} == {True}


def test_a_merge_that_runs_away_is_told_about(result):
    assert not any("run away" in note for note in result.notes)
    wild = evaluate(result.prepared, replace(result.recipe, compare=(), settings=RuleSettings(scale=10.0)))
    assert wild.drifts["kfac"] > FAR
    assert any("“K-FAC Fisher” has run away" in note for note in wild.notes)


def test_drift_is_measured_in_the_models_own_distance():
    models = [{"w": torch.tensor([0.0, 0.0])}, {"w": torch.tensor([2.0, 0.0])}]
    assert drift({"w": torch.tensor([1.0, 3.0])}, models) == 3.0
    assert drift({"w": torch.tensor([1.0, 0.0])}, models) == 0.0
    assert drift({"w": torch.tensor([0.0, 0.0])}, [models[0]] * 2) == 0.0


def test_an_export_names_rule_settings_and_source(result, tmp_path):
    folder = export(result, tmp_path / "out")
    card = (folder / "README.md").read_text()
    assert "Settings of the rule: damping 0.1, shrinkage 0.5." in card
    assert "arXiv:2312.04339" in card
    assert merging.Recipe.load(folder / "recipe.yaml").rule == "kfac"


def test_the_command_line_prints_every_method(tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(cases.two_tasks(rule="kfac", compare=("ties", "experts")).to_yaml())
    assert main(["evaluate", str(path), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["scores"]) == {"kfac", "ties", "experts"}


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "kfac"},
        {"rule": "ties"},
        {"settings": RuleSettings(scale=1.5)},
        {"layer_weights": {"layer 0": (1.0, 0.0)}},
    ],
)
def test_what_cannot_be_streamed_says_so_before_anything_is_estimated(changes, tmp_path):
    with pytest.raises(RecipeError, match="cannot be merged from file to file"):
        stream(cases.two_tasks(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_slider_move_of_two_models_reuses_what_was_factored(result):
    (layers,) = [own for (rule, *_), own in result.prepared.merger._layers.items() if rule == "kfac"]
    kept = dict(layers._kept)
    assert kept
    result.prepared.merge(result.recipe.with_weights([0.3, 0.7]))
    assert layers._kept == kept
    assert result.prepared.size_bytes() > layers.size_bytes > 0


def test_the_seconds_of_a_rule_are_those_of_its_first_merge(result):
    moved = evaluate(result.prepared, result.recipe.with_weights([0.3, 0.7]))
    assert moved.merge_seconds == {rule: result.merge_seconds[rule] for rule in moved.merge_seconds}


def test_equal_models_cannot_be_run_away_from():
    own = {"w": torch.tensor([0.1, 0.2, 0.3])}
    assert drift({"w": own["w"] + 1e-7}, [own, own, own]) == 0.0


@pytest.mark.parametrize(
    ("rule", "told"), [("kfac", "Raise the damping"), ("dare", "Raise the density"), ("isotropic", "Lower the scale")]
)
def test_who_has_run_away_is_told_what_helps_there(rule, told):
    (note,) = drift_notes({rule: 7.0, "fisher": 1.0})
    assert told in note
