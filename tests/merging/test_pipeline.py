"""The whole job on the pool `digits`: scores against references, the cache, and stopping."""

from dataclasses import replace

import numpy
import pytest
import torch
from safetensors.torch import load

import merging
from merging import Cancelled, Recipe
from merging.errors import CacheError, DeviceError, FisherError, RecipeError
from merging.evaluation import with_body
from merging.pipeline import evaluate
from merging.recipe import EvaluationSettings, FisherSettings
from tests import cases
from tests.references import slow_fisher, slow_merge, slow_predict

TASKS = ["parity", "large", "loop", "remainder"]


def modules(recipe):
    return [merging.open_checkpoint(model.checkpoint).model() for model in recipe.models]


def batches(recipe, index, split="test", examples=None):
    task = merging.open_task(recipe.models[index].task)
    checkpoint = merging.open_checkpoint(recipe.models[index].checkpoint)
    return task.batches(split, checkpoint, examples=examples)


def share_right(probabilities, own):
    return float(numpy.mean(probabilities.argmax(1) == torch.cat([batch["labels"] for batch in own]).numpy()))


def test_scores_hold_every_method_and_task(four_result):
    for method in ("fisher", "isotropic", "ensemble", "experts"):
        assert list(four_result.scores[method]) == TASKS
        for score in four_result.scores[method].values():
            assert score.low <= score.value <= score.high
            assert score.n == len(merging.open_task("zoo:digits/parity").rows("test"))
        values = [score.value for score in four_result.scores[method].values()]
        assert four_result.mean(method) == pytest.approx(sum(values) / 4)


def test_experts_are_the_single_models_on_their_own_tasks(four_tasks, four_result):
    for index, name in enumerate(TASKS):
        own = batches(four_tasks, index)
        expected = share_right(slow_predict(modules(four_tasks)[index], own), own)
        assert four_result.scores["experts"][name].value == pytest.approx(expected)
        assert list(four_result.singles[name]) == [name], "its head knows no other task"


def test_the_ensemble_of_different_labels_puts_the_tasks_head_on_every_body(four_tasks, four_result):
    models = modules(four_tasks)
    own = batches(four_tasks, 2)
    expected = numpy.mean([slow_predict(with_body(models[2], one.base_model), own) for one in models], axis=0)
    found = four_result.predictions["ensemble"]["loop"]
    numpy.testing.assert_allclose(found.probabilities, expected, atol=1e-5)
    assert four_result.scores["ensemble"]["loop"].value == pytest.approx(numpy.mean(found.correct))


def test_the_ensemble_of_equal_labels_averages_the_models_own_outputs(seeds_recipe, seeds_result):
    own = batches(seeds_recipe, 0)
    expected = numpy.mean([slow_predict(model, own) for model in modules(seeds_recipe)], axis=0)
    found = seeds_result.predictions["ensemble"]["digit"]
    numpy.testing.assert_allclose(found.probabilities, expected, atol=1e-5)


def test_the_merged_model_is_that_of_the_slow_references(four_tasks):
    recipe = replace(cases.two_tasks().with_weights([0.3, 0.9]), fisher=FisherSettings(examples=4, normalise="l2"))
    result = merging.run(recipe)
    models = modules(recipe)
    fishers = [slow_fisher(model, batches(recipe, i, "fisher", 4)) for i, model in enumerate(models)]
    names = [name for name, _ in models[0].named_parameters() if name.startswith("vit.")]
    assert list(result.merged) == names
    chosen = [names[0], "vit.layernorm.weight", "vit.layernorm.bias"]
    parameters = [{name: dict(model.named_parameters())[name].detach() for name in names} for model in models]
    scale = [float(sum(tensor[n].square().sum() for n in names)) ** 0.5 for tensor in fishers]
    scaled = [{n: fisher[n] / s for n in chosen} for fisher, s in zip(fishers, scale, strict=True)]
    expected = slow_merge([{n: p[n] for n in chosen} for p in parameters], [0.3, 0.9], scaled)
    for name in chosen:
        numpy.testing.assert_allclose(result.merged[name], expected[name], rtol=1e-4, atol=1e-5)


def test_each_task_is_evaluated_with_its_own_head_on_the_merged_body(four_tasks, four_result):
    for index, name in enumerate(TASKS[:2]):
        model = modules(four_tasks)[index]
        model.load_state_dict(four_result.merged, strict=False)
        own = batches(four_tasks, index)
        found = four_result.predictions["fisher"][name]
        numpy.testing.assert_allclose(found.probabilities, slow_predict(model, own), atol=1e-5)


def test_isotropic_is_the_mean_of_the_bodies(four_tasks, four_result):
    models = modules(four_tasks)
    view = modules(four_tasks)[0]
    states = [model.state_dict() for model in models]
    mean = {name: sum(state[name] for state in states) / 4 for name in states[0] if name.startswith("vit.")}
    view.load_state_dict(mean, strict=False)
    found = four_result.predictions["isotropic"]["parity"]
    numpy.testing.assert_allclose(found.probabilities, slow_predict(view, batches(four_tasks, 0)), atol=1e-5)


def test_heads_are_merged_only_where_the_recipe_says_so(seeds_recipe, seeds_result):
    assert any(name.startswith("classifier") for name in seeds_result.merged)
    kept = merging.run(replace(seeds_recipe, heads="keep", evaluation=EvaluationSettings(examples=40)))
    assert not any(name.startswith("classifier") for name in kept.merged)


def test_heads_of_different_labels_cannot_be_merged(four_tasks):
    with pytest.raises(RecipeError, match=r"The heads cannot be merged: .* Choose heads: keep"):
        merging.run(replace(four_tasks, heads="merge"))


def test_one_weight_alone_gives_its_expert(four_tasks):
    result = merging.run(four_tasks.with_weights([0, 0, 1, 0]))
    assert result.scores["fisher"]["loop"] == result.scores["experts"]["loop"]


def test_extra_tasks_are_evaluated_and_not_estimated_on():
    recipe = cases.quick_recipe("robust")
    recipe = replace(recipe, evaluation=replace(recipe.evaluation, examples=40))
    result = merging.run(recipe)
    assert list(result.scores["fisher"]) == ["digit", "rotated", "inverted", "noisy", "blurred"]
    assert {score.n for score in result.scores["ensemble"].values()} == {40}
    mean = numpy.mean([result.singles[name]["noisy"].value for name in ("robust", "narrow")])
    assert result.scores["experts"]["noisy"].value == pytest.approx(mean)


def test_an_extra_task_whose_labels_no_model_has_is_refused():
    recipe = cases.two_tasks(evaluation=EvaluationSettings(tasks=("zoo:digits/rotated",)))
    with pytest.raises(RecipeError, match=r'Task "rotated" cannot be evaluated: expected a model with its labels'):
        merging.run(recipe)


def test_compare_chooses_the_methods(four_tasks):
    result = merging.run(replace(four_tasks, compare=(), rule="isotropic"))
    assert list(result.scores) == ["isotropic"]
    assert result.prepared.fishers == []


def test_the_paired_test_compares_predictions_on_the_same_rows(four_result):
    test = four_result.compare("fisher", "ensemble", "loop")
    first, second = (four_result.predictions[m]["loop"].correct for m in ("fisher", "ensemble"))
    assert (test.only_first, test.only_second) == (sum(first & ~second), sum(second & ~first))
    assert 0 < test.p_value <= 1


def test_a_recipe_saved_and_loaded_gives_the_same_tensors_bit_for_bit(tmp_path, four_result):
    recipe = four_result.recipe.with_weights([0.1, 0.2, 1 / 3, 0.7])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    live = evaluate(four_result.prepared, recipe)
    again = merging.run(Recipe.load(tmp_path / "recipe.yaml"))
    assert list(again.merged) == list(live.merged)
    assert all(torch.equal(again.merged[name], live.merged[name]) for name in live.merged)
    assert again.scores == live.scores
    assert any(not torch.equal(live.merged[name], four_result.merged[name]) for name in live.merged)


def test_the_zero_rule_base_is_applied_to_what_was_prepared_without_it():
    recipe = cases.two_tasks()
    prepared = merging.prepare(recipe)
    for fisher in prepared.fishers:
        fisher["vit.layernorm.bias"].zero_()
    result = evaluate(prepared, replace(recipe, fisher=replace(recipe.fisher, zero_rule="base")))
    base = merging.open_checkpoint(recipe.base).model()
    assert torch.equal(result.merged["vit.layernorm.bias"], base.vit.layernorm.bias)


def test_finished_fishers_are_read_from_the_cache_and_not_estimated_again(fresh_cache, monkeypatch):
    estimated = []
    original = merging.diagonal_fisher
    monkeypatch.setattr(
        "merging.estimates.diagonal_fisher", lambda *a, **k: (estimated.append(1), original(*a, **k))[1]
    )
    recipe = cases.two_tasks()
    first = merging.run(recipe)
    assert len(estimated) == 2
    assert len(list(fresh_cache.iterdir())) == 2
    again = merging.run(recipe.with_weights([0.9, 0.1]))
    assert len(estimated) == 2
    for one, two in zip(first.prepared.fishers, again.prepared.fishers, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    merging.run(replace(recipe, fisher=FisherSettings(examples=8, seed=1)))
    assert len(estimated) == 4


def test_stopping_keeps_finished_fishers_and_what_the_unfinished_one_has(fresh_cache):
    recipe = cases.two_tasks(fisher=FisherSettings(examples=128))
    whole = merging.run(recipe).prepared.fishers
    for path in fresh_cache.iterdir():
        path.unlink()

    def stop_in_the_second(fraction, text):
        if fraction > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        merging.run(recipe, stop_in_the_second)
    assert sorted(path.suffix for path in fresh_cache.iterdir()) == [".safetensors", ".state"]
    seen = []
    resumed = merging.run(recipe, lambda fraction, text: seen.append((fraction, text))).prepared.fishers
    assert sum("examples" in text for _, text in seen) == 1, "128 examples in batches of 64, of one model, the second"
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)
    assert {path.suffix for path in fresh_cache.iterdir()} == {".safetensors"}
    for one, other in zip(whole, resumed, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_fisher_of_other_shapes_in_the_cache_is_refused_and_named(fresh_cache):
    recipe = cases.two_tasks()
    prepared = merging.prepare(recipe)
    path = min(fresh_cache.iterdir())
    short = {name: tensor.flatten()[:3] for name, tensor in prepared.fishers[0].items()}
    merging.Fisher(short, 16).save(path)
    with pytest.raises(FisherError, match=rf'The cached Fisher of .* expected shape .* got \[3\].* Delete "{path}"'):
        merging.run(recipe)
    path.unlink()
    merging.run(recipe)


def test_a_damaged_fisher_in_the_cache_is_estimated_again(fresh_cache):
    recipe = cases.two_tasks()
    first = merging.run(recipe)
    path = min(fresh_cache.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    again = merging.run(recipe)
    # safetensors writes the fields of its metadata in any order.
    assert len(path.read_bytes()) == len(whole)
    assert load(path.read_bytes()).keys() == load(whole).keys()
    assert all(torch.equal(tensor, load(path.read_bytes())[name]) for name, tensor in load(whole).items())
    assert all(torch.equal(first.merged[name], again.merged[name]) for name in first.merged)


def test_an_unwritable_cache_is_seen_before_anything_is_estimated(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FISHER_CACHE_DIR", str(tmp_path / "file"))
    seen = []
    with pytest.raises(CacheError, match=r"The Fisher cache cannot be written"):
        merging.run(cases.two_tasks(), lambda fraction, text: seen.append(text))
    assert not any("examples" in text for text in seen)


def test_a_device_that_is_not_there_is_refused(four_tasks):
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    missing = [device for device, is_there in there.items() if not is_there]
    assert missing, "no machine has both"
    for device in missing:
        with pytest.raises(DeviceError, match=rf'Unknown device: expected one of .*"cpu".*, got "{device}"'):
            merging.run(replace(four_tasks, device=device))
