"""A recipe from file to file: what it writes is what `run` exports, and nothing is left where it stops."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import merging
from merging.errors import Cancelled, ExportError, RecipeError
from merging.export import export
from merging.recipe import FisherSettings
from merging.streamed import stream
from tests import cases

VIT = transformers.ViTForImageClassification


def assert_same_files(found, expected):
    """Checkpoints with the same tensors under the same names in the same folders."""
    places = {path.parent.relative_to(found) for path in found.rglob("*.safetensors")}
    assert places == {path.parent.relative_to(expected) for path in expected.rglob("*.safetensors")}
    for place in places:
        opened = [transformers.AutoConfig.from_pretrained(folder / place) for folder in (found, expected)]
        assert opened[0].architectures == opened[1].architectures
        architecture = getattr(transformers, opened[0].architectures[0])
        states = [architecture.from_pretrained(folder / place).state_dict() for folder in (found, expected)]
        pooled = {name for name in states[0] if "pooler" in name}  # new in a body alone, and not stored
        assert all(torch.equal(own, states[1][name]) for name, own in states[0].items() if name not in pooled)


@pytest.mark.parametrize("zero_rule", cases.ZERO_RULES)
@pytest.mark.parametrize("rule", cases.RULES)
def test_kept_heads_are_exported_as_by_run(tmp_path, rule, zero_rule):
    recipe = cases.two_tasks(rule=rule, fisher=FisherSettings(examples=16, zero_rule=zero_rule))
    expected = export(merging.run(recipe), tmp_path / "run")
    done = stream(recipe.with_weights([0.5, 0.5]), tmp_path / "out")
    assert done.output == tmp_path / "out"
    assert_same_files(done.output, expected)
    assert (done.output / "large" / "preprocessor_config.json").is_file()


def test_merged_heads_are_exported_as_by_run(tmp_path, seeds_recipe, seeds_result):
    assert_same_files(stream(seeds_recipe, tmp_path / "out").output, export(seeds_result, tmp_path / "run"))


def test_heads_of_different_labels_are_not_merged(tmp_path):
    with pytest.raises(RecipeError, match="expected models with equal label sets"):
        stream(cases.two_tasks(heads="merge"), tmp_path / "out")


def test_an_earlier_export_is_replaced_and_other_folders_are_refused(tmp_path):
    recipe = cases.two_tasks()
    folder = stream(recipe, tmp_path / "out").output
    (folder / "left-over.txt").write_text("old")
    stream(recipe, folder)
    assert not (folder / "left-over.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="nothing was changed"):
        stream(recipe, tmp_path / "mine")


def test_a_damaged_fisher_in_the_cache_is_estimated_again(tmp_path, fresh_cache):
    recipe = cases.two_tasks()
    stream(recipe, tmp_path / "first")
    for path in fresh_cache.iterdir():
        path.write_bytes(path.read_bytes()[:-10])
    stream(recipe, tmp_path / "second")
    assert_same_files(tmp_path / "first", tmp_path / "second")


def test_cancelling_the_merge_leaves_the_fishers_and_nothing_else(tmp_path, fresh_cache):
    def cancel(fraction, text):
        if text.startswith("Writing"):
            raise Cancelled

    with pytest.raises(Cancelled):
        stream(cases.two_tasks(), tmp_path / "out", cancel)
    assert list(tmp_path.iterdir()) == [fresh_cache]
    assert len(list(fresh_cache.iterdir())) == 2


def test_a_disk_that_is_too_small_is_seen_before_the_first_byte(tmp_path, monkeypatch):
    recipe = cases.two_tasks()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(ExportError, match=r'out" cannot be written: expected 3 MB of free space, got 1 MB'):
        stream(recipe, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_tensors_that_the_model_does_not_have_are_left_out_and_missing_ones_named(tmp_path, pool_folder):
    recipe = cases.two_tasks()
    folder = pool_folder / "checkpoints" / "parity"
    changed = replace(recipe, models=(replace(recipe.models[0], checkpoint=str(folder)), recipe.models[1]))
    state = load_file(folder / "model.safetensors")
    save_file({**state, "old.position_ids": torch.arange(3)}, folder / "model.safetensors")
    stream(changed, tmp_path / "out")
    assert "old.position_ids" not in load_file(tmp_path / "out" / "model.safetensors")
    del state["vit.layernorm.bias"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(merging.MergingError, match=r"vit\.layernorm\.bias"):
        stream(changed, tmp_path / "out")


def test_half_precision_stays_half_precision(tmp_path, pool_folder):
    recipe = cases.two_tasks(rule="isotropic")
    folders = [pool_folder / "checkpoints" / name for name in ("parity", "large")]
    for folder in folders:
        state = load_file(folder / "model.safetensors")
        save_file({name: own.half() for name, own in state.items()}, folder / "model.safetensors")
    models = [replace(one, checkpoint=str(folder)) for one, folder in zip(recipe.models, folders, strict=True)]
    out = stream(replace(recipe, models=tuple(models)), tmp_path / "out").output
    assert {own.dtype for own in load_file(out / "parity" / "model.safetensors").values()} == {torch.float16}
    assert json.loads((out / "scores.json").read_text()) == {}
