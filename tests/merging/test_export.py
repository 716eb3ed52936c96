"""Exported folders: ordinary checkpoints that predict what the evaluation predicted."""

import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

import merging
from merging import Recipe
from merging.errors import ExportError
from merging.export import export, model_card, require_exportable
from merging.model_card import card_text
from merging.recipe import EvaluationSettings
from merging.streamed import stream
from tests import cases
from tests.references import slow_predict

VIT = transformers.ViTForImageClassification


@pytest.fixture(scope="module")
def exported(four_result, tmp_path_factory):
    return export(four_result, tmp_path_factory.mktemp("export") / "four")


@pytest.fixture(scope="module")
def exported_seeds(seeds_result, tmp_path_factory):
    return export(seeds_result, tmp_path_factory.mktemp("export") / "seeds")


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def own_batches(result, index):
    task = merging.open_task(result.recipe.models[index].task)
    return task.batches("test", result.prepared.checkpoints[index])


@pytest.mark.parametrize("index", range(4))
def test_every_tasks_folder_opens_and_predicts_what_was_evaluated(four_result, exported, index):
    name = four_result.prepared.names[index]
    model = VIT.from_pretrained(exported, subfolder=name)
    found = slow_predict(model, own_batches(four_result, index))
    numpy.testing.assert_allclose(found, four_result.predictions["fisher"][name].probabilities, atol=1e-5)
    assert model.config.id2label == dict(enumerate(four_result.prepared.checkpoints[index].label_names))


def test_the_root_of_kept_heads_is_the_merged_body(four_result, exported):
    body = transformers.AutoModel.from_pretrained(exported, add_pooling_layer=False)
    found = {f"vit.{name}": tensor for name, tensor in body.named_parameters()}
    assert found.keys() == four_result.merged.keys()
    assert all(torch.equal(found[name], four_result.merged[name]) for name in found)


def test_heads_that_are_kept_are_bit_identical(four_result, exported):
    for index, name in enumerate(four_result.prepared.names):
        original = load_file(four_result.prepared.checkpoints[index].folder / "model.safetensors")
        found = load_file(exported / name / "model.safetensors")
        assert found.keys() == original.keys()
        for tensor in ("classifier.weight", "classifier.bias"):
            assert torch.equal(found[tensor], original[tensor])
            assert torch.equal(four_result.prepared.modules[index].state_dict()[tensor], original[tensor])
        assert not torch.equal(found["vit.layernorm.bias"], original["vit.layernorm.bias"])


def test_merged_heads_make_one_checkpoint(seeds_result, exported_seeds):
    assert not [path for path in exported_seeds.iterdir() if path.is_dir()]
    found = slow_predict(VIT.from_pretrained(exported_seeds), own_batches(seeds_result, 0))
    numpy.testing.assert_allclose(found, seeds_result.predictions["fisher"]["digit"].probabilities, atol=1e-5)


def test_an_export_can_be_opened_as_a_checkpoint_again(seeds_result, exported_seeds):
    checkpoint = merging.open_checkpoint(str(exported_seeds))
    assert checkpoint.label_names == seeds_result.prepared.checkpoints[0].label_names
    task = merging.open_task("zoo:digits/digit")
    assert torch.equal(
        task.batches("test", checkpoint)[0]["pixel_values"], own_batches(seeds_result, 0)[0]["pixel_values"]
    )


def test_the_recipe_in_an_export_reproduces_it_bit_for_bit(four_result, exported):
    again = merging.run(Recipe.load(exported / "recipe.yaml"))
    assert all(torch.equal(again.merged[name], four_result.merged[name]) for name in four_result.merged)


def test_scores_and_card_say_what_was_measured(four_result, exported):
    scores = json.loads((exported / "scores.json").read_text())
    assert scores["fisher"]["loop"] == four_result.scores["fisher"]["loop"].as_dict()
    card = (exported / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    assert f"{100 * four_result.scores['ensemble']['large'].value:.1f}" in card


@pytest.mark.parametrize("kept", ["four", "seeds"])
def test_the_card_names_folders_that_are_there(four_result, seeds_recipe, tmp_path, kept):
    result = four_result
    if kept == "seeds":
        result = merging.run(replace(seeds_recipe, heads="keep", evaluation=EvaluationSettings(examples=40)))
    folder = export(result, tmp_path / "out")
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir())
    card = (folder / "README.md").read_text()
    assert sorted(folders) == sorted(result.prepared.names)
    assert all(f"`{name}`" in card.split("in a folder")[1].split(".\n")[0] for name in folders)
    subfolder = card.split('subfolder="')[1].split('"')[0]
    assert (folder / subfolder / "config.json").is_file()


def test_an_export_over_an_earlier_one_replaces_it(four_result, tmp_path):
    folder = export(four_result, tmp_path / "out")
    (folder / "left-over.txt").write_text("old")
    changed = four_result.recipe.with_weights([1, 0, 0, 0])
    export(replace(four_result, recipe=changed), folder)
    assert Recipe.load(folder / "recipe.yaml").weights == [1, 0, 0, 0]
    assert not (folder / "left-over.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("there", [["notes.txt"], ["recipe.yaml", "thesis.tex"], ["recipe.yaml", "README.md"]])
def test_a_folder_with_other_files_is_refused_and_untouched(four_result, tmp_path, there):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in there:
        (folder / name).write_text("mine")
    before = everything(tmp_path)
    for attempt in (lambda: require_exportable(folder), lambda: export(four_result, folder)):
        with pytest.raises(ExportError, match=r"expected a new or empty folder, or an earlier export.*nothing was"):
            attempt()
    assert everything(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_refused(four_result, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ExportError, match=r"expected a folder, got a file"):
        export(four_result, tmp_path / "out")
    with pytest.raises(ExportError, match=r"cannot be written"):
        export(four_result, tmp_path / "out" / "below")
    assert everything(tmp_path) == {"out": b"a file"}


def test_an_empty_folder_is_used(four_result, tmp_path):
    (tmp_path / "out").mkdir()
    assert (export(four_result, tmp_path / "out") / "parity" / "model.safetensors").is_file()


@pytest.mark.parametrize("earlier", [True, False])
def test_a_failure_in_the_middle_changes_nothing(four_result, tmp_path, monkeypatch, earlier):
    folder = tmp_path / "out"
    if earlier:
        export(four_result, folder)
    before = everything(tmp_path)

    def full(result):
        assert any(tmp_path.glob(".exporting-*/loop/model.safetensors")), "the models are written by now"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("merging.export.model_card", full)
    with pytest.raises(ExportError, match=r'got "No space left on device".*nothing was changed'):
        export(four_result, folder)
    assert everything(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if earlier else [])


def test_an_export_leaves_the_prepared_models_alone(four_result, tmp_path):
    before = [{n: t.clone() for n, t in module.state_dict().items()} for module in four_result.prepared.modules]
    export(four_result, tmp_path / "out")
    for module, state in zip(four_result.prepared.modules, before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())


def test_a_weight_in_the_card_is_normalised(four_result):
    card = model_card(replace(four_result, recipe=four_result.recipe.with_weights([3, 1, 0, 0])))
    assert "`parity`: λ = 0.750" in card
    assert "`large`: λ = 0.250" in card


def test_the_cards_metadata_is_what_the_hub_reads(four_result):
    card = huggingface_hub.ModelCard(model_card(four_result))
    assert card.data.tags == ["merge", "fisher-merging"]
    assert card.data.base_model is None
    assert card.data.datasets is None
    found = {result.dataset_name: result.metric_value for result in card.data.eval_results}
    assert found == pytest.approx({task: one.value for task, one in four_result.scores["fisher"].items()}, abs=1e-6)
    assert Recipe.from_yaml(card.text.split("```yaml\n")[1].split("```")[0]) == four_result.recipe


def test_the_card_names_parents_and_datasets_of_the_hub(four_result):
    entries = [
        replace(entry, checkpoint=f"org/{name}@abc", task={"dataset": "nyu-mll/glue", "config": "rte"})
        for name, entry in zip("abcd", four_result.recipe.models, strict=True)
    ]
    recipe = replace(four_result.recipe, models=tuple(entries), base="org/base")
    text = card_text(recipe, four_result.prepared.checkpoints, four_result.prepared.names)
    data = huggingface_hub.ModelCard(text).data
    assert data.base_model == ["org/a", "org/b", "org/c", "org/d", "org/base"]
    assert data.datasets == ["nyu-mll/glue"]


def test_no_path_of_this_machine_is_in_an_export(tmp_path, pool_folder):
    recipe = cases.two_tasks(base=str(pool_folder / "checkpoints" / "base"))
    models = []
    for entry in recipe.models:
        name = entry.checkpoint.rpartition("/")[2]
        folder, task = pool_folder / "checkpoints" / name, pool_folder / "tasks" / name
        config = json.loads((folder / "config.json").read_text()) | {"_name_or_path": str(folder)}
        (folder / "config.json").write_text(json.dumps(config))
        models.append(replace(entry, checkpoint=str(folder), task=str(task)))
    recipe = replace(recipe, models=tuple(models))
    folders = [export(merging.run(recipe), tmp_path / "run"), stream(recipe, tmp_path / "stream").output]
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        text = path.read_bytes().split(b"\0")[0] if path.suffix == ".safetensors" else path.read_bytes()
        assert str(tmp_path).encode() not in text, path
        assert b"/tmp" not in text, path
        assert str(Path.home()).encode() not in text, path
    found = Recipe.load(folders[0] / "recipe.yaml")
    assert [entry.checkpoint for entry in found.models] == ["parity", "large"]
    assert [entry.task for entry in found.models] == ["parity", "large"]
    assert found.base == "base"


def test_tasks_of_one_name_get_folders_of_their_own(tmp_path, pool_folder):
    recipe = cases.two_tasks()
    twin = replace(
        recipe.models[1], checkpoint=str(pool_folder / "checkpoints/parity"), task=str(pool_folder / "tasks/parity")
    )
    result = merging.run(replace(recipe, models=(recipe.models[0], twin)))
    folder = export(result, tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["parity", "parity-2"]
