"""What is said about a recipe before any weight is read: from configurations and headers alone."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import merging
from merging import hub as hub_module
from merging.checkpoints import Checkpoint
from merging.errors import CheckpointError, RecipeError, StructureError
from merging.preflight import NOTE, OK, PROBLEM, preflight
from merging.recipe import FisherSettings, ModelEntry
from merging.zoo import ZOO_FOLDER
from tests import cases

CHECKPOINTS = ZOO_FOLDER / "digits" / "checkpoints"


@pytest.fixture
def loop(tmp_path):
    """A copy of the second model of the two-task recipe, to be changed."""
    return shutil.copytree(CHECKPOINTS / "loop", tmp_path / "changed")


def recipe_with(*references, **settings):
    """The two-task recipe with other checkpoints."""
    recipe = cases.two_tasks(**settings)
    models = [
        replace(model, checkpoint=str(other or model.checkpoint))
        for model, other in zip(recipe.models, references, strict=True)
    ]
    return replace(recipe, models=tuple(models))


def levels(report):
    """Each check's level by name; the worst where there are several."""
    worst = {}
    for check in report.checks:
        worst[check.name] = max(worst.get(check.name, OK), check.level, key=[OK, NOTE, PROBLEM].index)
    return worst


def test_a_sound_recipe_has_no_problems():
    report = preflight(cases.two_tasks())
    assert levels(report) == dict.fromkeys(
        ("architecture", "labels", "tensors", "data types", "memory", "licence", "disk"), OK
    )
    assert report.require() is report
    shown = " ".join(check.text for check in report.checks)
    for fact in ("All 2 are ViTForImageClassification", "F32", "have the same shapes", "memory", "apache-2.0"):
        assert fact in shown


def test_no_weight_is_read(monkeypatch):
    def read(*arguments, **settings):
        raise AssertionError("weights were read")

    for name in ("model", "parameters"):
        monkeypatch.setattr(Checkpoint, name, read)
    preflight(cases.two_tasks()).require()


def test_no_weight_is_downloaded(hub, monkeypatch):
    for name in ("parity", "loop"):
        hub.add(f"lab/{name}", CHECKPOINTS / name)
    report = preflight(recipe_with("lab/parity", "lab/loop")).require()
    assert all(span and span.startswith("bytes=0-") for span in hub.downloads("model.safetensors"))
    size = sum(header.download_bytes for header in report.headers)
    assert size >= 2 * (CHECKPOINTS / "loop" / "model.safetensors").stat().st_size
    commit = hub.repositories["model", "lab/loop"].refs["main"]
    assert any(f"lab/loop at commit {commit[:10]}" in check.text for check in report.checks)
    assert any(f"{size / 1e6:,.1f} MB are to be downloaded" in check.text for check in report.checks)
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=size - 1))
    with pytest.raises(CheckpointError, match=r"expected .* GB of free disk, got .* set HF_HOME"):
        merging.run(recipe_with("lab/parity", "lab/loop"))
    assert all(span for span in hub.downloads("model.safetensors")), "nothing was downloaded"


def test_other_architectures_are_named(tmp_path):
    cases.model_case("bert-2").save_pretrained(tmp_path / "bert")
    report = preflight(recipe_with(None, tmp_path / "bert"))
    assert levels(report)["architecture"] == PROBLEM
    with pytest.raises(RecipeError, match=r"expected the same architecture \(ViT.*\), got BertForSequence"):
        report.require()


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("hidden_size", 32, "hidden_size is 16 in one and 32 in the other"),
        ("vocab_size", 23, "vocab_size is 19 in one and 23 in the other"),
        ("num_hidden_layers", 1, "num_hidden_layers is 2 in one and 1 in the other"),
        ("max_position_embeddings", 30, "max_position_embeddings is 20 in one and 30 in the other"),
    ],
)
def test_other_sizes_are_named_with_the_tensors(tmp_path, setting, value, named):
    import transformers

    for name, more in (("one", {}), ("two", {setting: value})):
        sizes = {"vocab_size": cases.VOCABULARY, "max_position_embeddings": 20, **cases.TEXT, **more}
        transformers.BertForSequenceClassification(transformers.BertConfig(**sizes)).save_pretrained(tmp_path / name)
    with pytest.raises(
        StructureError, match=rf"cannot be merged: expected .*bert\..*Their configurations differ: {named}"
    ):
        preflight(recipe_with(tmp_path / "one", tmp_path / "two")).require()


def test_different_label_counts_keep_their_heads_but_cannot_merge_them():
    other = recipe_with(None, "zoo:digits/remainder")
    models = (other.models[0], replace(other.models[1], task="zoo:digits/remainder"))
    assert not preflight(replace(other, models=models)).problems
    with pytest.raises(RecipeError, match=r"The heads cannot be merged: .* Choose heads: keep"):
        preflight(replace(other, models=models, heads="merge")).require()


def test_labels_that_the_model_does_not_have_are_a_problem_or_a_note(loop):
    config = json.loads((loop / "config.json").read_text())
    for names, level in ((["LABEL_0", "LABEL_1"], NOTE), (["x", "y"], (NOTE, PROBLEM))):
        changed = {**config, "id2label": {str(index): name for index, name in enumerate(names)}}
        (loop / "config.json").write_text(json.dumps(changed))
        assert levels(preflight(recipe_with(None, loop)))["labels"] in level


def test_half_precision_is_fine_and_said(loop):
    weights = loop / "model.safetensors"
    for dtype, name in ((torch.float16, "F16"), (torch.bfloat16, "BF16")):
        save_file({key: tensor.to(dtype) for key, tensor in load_file(weights).items()}, weights, {"format": "pt"})
        report = preflight(recipe_with(None, loop)).require()
        assert any(f"Stored as {', '.join(sorted(['F32', name]))}" in check.text for check in report.checks)


def test_integer_buffers_beside_the_parameters_are_fine(loop):
    weights = loop / "model.safetensors"
    save_file({**load_file(weights), "vit.embeddings.position_ids": torch.arange(17)}, weights, {"format": "pt"})
    assert not preflight(recipe_with(None, loop)).problems


def test_quantised_weights_are_refused(loop):
    weights = loop / "model.safetensors"
    save_file({key: tensor.to(torch.int8) for key, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r'got "I8", that is quantised ones'):
        preflight(recipe_with(None, loop)).require()


def test_weights_that_are_not_what_the_configuration_says_are_refused(loop):
    tensors = load_file(loop / "model.safetensors")
    tensors["vit.layernorm.bias"] = torch.zeros(3)
    save_file(tensors, loop / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r'the shapes that its config.json asks for.*"vit.layernorm.bias" is \[3\]'
    ):
        preflight(recipe_with(None, loop)).require()


def test_a_configuration_that_is_none_is_refused(loop):
    config = json.loads((loop / "config.json").read_text())
    (loop / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))
    with pytest.raises(CheckpointError, match=r"is damaged: expected a configuration of ViTForImageClassification"):
        preflight(recipe_with(None, loop)).require()


def test_pickles_and_missing_checkpoints_are_problems_all_at_once(loop, tmp_path):
    (loop / "model.safetensors").rename(loop / "pytorch_model.bin")
    report = preflight(recipe_with(tmp_path / "nowhere", loop))
    assert len(report.problems) == 2
    assert "pickled weights" in report.problems[1].text
    assert report.headers == (None, None)


def test_licences_are_listed(loop):
    (loop / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    report = preflight(recipe_with(None, loop))
    assert levels(report)["licence"] == NOTE
    assert "parity: apache-2.0, changed: cc-by-nc-4.0" in report.notes[-1].text


def test_too_little_memory_is_a_note(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    report = preflight(cases.two_tasks())
    assert levels(report)["memory"] == NOTE
    assert not report.problems


def test_the_base_is_looked_at_where_it_is_needed(tmp_path):
    recipe = replace(cases.two_tasks(), base=str(tmp_path / "nowhere"))
    assert not preflight(recipe).problems
    needed = replace(recipe, fisher=replace(recipe.fisher, zero_rule="base"))
    assert isinstance(needed.fisher, FisherSettings)
    with pytest.raises(CheckpointError, match="nowhere"):
        preflight(needed).require()


def test_a_recipe_of_one_checkpoint_twice_is_fine():
    recipe = cases.two_tasks()
    entry = recipe.models[0]
    assert isinstance(entry, ModelEntry)
    assert not preflight(replace(recipe, models=(entry, entry))).problems
