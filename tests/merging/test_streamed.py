"""A recipe from file to file: what it writes is what `run` exports, and nothing is left where it stops."""

import gc
import json
import shutil
from dataclasses import replace

import numpy
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import merging
from merging.checkpoints import open_checkpoint
from merging.chunks import CHUNK
from merging.errors import Cancelled, CheckpointError, ExportError, RecipeError, StructureError
from merging.export import export
from merging.families import fit_checkpoint, open_models
from merging.recipe import EvaluationSettings, FisherSettings
from merging.streamed import stream
from tests import cases
from tests.merging import clip
from tests.merging.test_t5_family import LABELS, write_t5, write_task
from tests.references import slow_predict


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
@pytest.mark.parametrize("rule", cases.PLAIN)
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


def pool_recipe(pool, preset, **settings):
    """The first two models of a preset with 16 examples per Fisher, evaluated on 40 rows."""
    recipe = merging.preset_recipe(merging.open_pool(pool), preset, device="cpu")
    recipe = replace(recipe, models=recipe.models[:2], fisher=FisherSettings(examples=16, zero_rule="mean"))
    return replace(recipe, **{"evaluation": EvaluationSettings(examples=40), **settings})


def rewritten(folder, change):
    """The checkpoint with its tensors as `change` leaves them, its folder's path a string for a recipe."""
    state = load_file(folder / "model.safetensors")
    save_file(change(state), folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def both(recipe, folder):
    """What the stream writes, and what `run` and `export` do, with its result."""
    result = merging.run(recipe)
    return stream(merging.Recipe.of(recipe), folder / "out").output, export(result, folder / "run"), result


@pytest.mark.parametrize("rule", cases.PLAIN)
def test_towers_are_exported_as_by_run_and_predict_the_same(tmp_path, rule):
    recipe = pool_recipe("digits-clip", "four-towers", rule=rule)
    found, expected, result = both(recipe, tmp_path)
    assert_same_files(found, expected)
    assert sorted(path.name for path in found.iterdir()) == sorted(path.name for path in expected.iterdir())
    assert (found / "recipe.yaml").read_text() == (expected / "recipe.yaml").read_text()
    code = [(folder / "README.md").read_text().split("```python")[1].split("```")[0] for folder in (found, expected)]
    assert code[0] == code[1]
    base = open_checkpoint(recipe.base, is_base=True)
    for entry in result.prepared.tasks:
        checkpoint = fit_checkpoint(open_checkpoint(str(found)), entry.task, base)
        (model,) = open_models([checkpoint], [entry.task], "cpu")
        batches = entry.task.batches("test", checkpoint, examples=40, seed=recipe.fisher.seed)
        wanted = result.predictions[rule][entry.name].probabilities
        numpy.testing.assert_allclose(slow_predict(model, batches), wanted, atol=1e-5)


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Vision towers under every name that files have for them, their base, and a task."""
    root = tmp_path_factory.mktemp("towers")
    base = clip.write_base(root / "base")
    found = {"base": base, "task": clip.write_task(root / "task"), "whole": clip.write_base(root / "whole", seed=4)}
    found["older"] = clip.write_tower(root / "older", base, seed=2)
    found["newer"] = clip.write_newer_tower(root / "newer", found["older"])
    # Which files of Transformers 4 hold, too.
    places = {"vision_model.embeddings.position_ids": torch.arange(5).unsqueeze(0)}
    rewritten(found["older"], lambda state: state | places)
    found["projected"] = clip.write_tower(root / "projected", base, 3, transformers.CLIPVisionModelWithProjection)
    return found


@pytest.mark.parametrize("first", ["older", "newer", "projected", "whole"])
def test_towers_of_any_class_and_names_are_one_family(tmp_path, towers, first):
    others = [name for name in ("older", "newer", "projected", "whole") if name != first]
    folders = [towers[name] for name in (first, *others)]
    found, expected, _ = both(clip.recipe(towers["base"], folders, towers["task"]), tmp_path)
    assert_same_files(found, expected)
    kinds = [transformers.AutoConfig.from_pretrained(folder) for folder in (found, expected)]
    assert type(kinds[0]) is type(kinds[1]) is transformers.CLIPVisionConfig
    assert transformers.AutoImageProcessor.from_pretrained(found).size["height"] == 16
    stored = load_file(found / "model.safetensors")
    assert not any(
        word in name for name in stored for word in ("text_model", "projection", "logit_scale", "position_ids")
    )


def test_a_tower_in_half_precision_is_written_so_and_within_a_unit(tmp_path, towers):
    halves = [shutil.copytree(towers[name], tmp_path / name) for name in ("whole", "older")]
    for folder in halves:
        rewritten(folder, lambda state: {name: own.half() for name, own in state.items()})
    found, expected, _ = both(clip.recipe(towers["base"], halves, towers["task"]), tmp_path)
    models = [transformers.CLIPVisionModel.from_pretrained(one, dtype=torch.float32) for one in (found, expected)]
    assert {own.dtype for own in load_file(found / "model.safetensors").values()} == {torch.float16}
    for own, wanted in zip(*(model.parameters() for model in models), strict=True):
        numpy.testing.assert_array_max_ulp(own.detach().half().numpy(), wanted.detach().half().numpy(), maxulp=1)


def t5_recipe(root, **settings):
    """Two tiny T5s on one task of label words, with equal weights."""
    task = write_task(root / "task", LABELS["many-words"])
    folders = [write_t5(root / name, seed) for seed, name in enumerate(("first", "second"))]
    models = [{"checkpoint": str(folder), "task": str(task), "weight": 1.0} for folder in folders]
    return {"version": 1, "models": models, "fisher": {"examples": 6}, "device": "cpu", **settings}


@pytest.mark.filterwarnings("ignore::merging.gradients.FallbackWarning")
@pytest.mark.parametrize("heads", ["keep", "merge"])
@pytest.mark.parametrize("alias", [None, "lm_head.weight", "encoder.embed_tokens.weight"])
def test_t5_is_exported_as_by_run_whatever_its_shared_embedding_is_called(tmp_path, alias, heads):
    recipe = t5_recipe(tmp_path, heads=heads)

    def renamed(state):
        (name,) = {"shared.weight", "lm_head.weight", "encoder.embed_tokens.weight"} & set(state)
        return {alias if one == name else one: own for one, own in state.items()}

    if alias:
        rewritten(tmp_path / "second", renamed)
    found, expected, result = both(recipe, tmp_path)
    assert_same_files(found, expected)
    model = transformers.T5ForConditionalGeneration.from_pretrained(found)
    for name, own in model.named_parameters():
        assert torch.equal(own, result.merged[f"language_model.{name}"])
    assert not list(found.glob("*/"))
    assert transformers.AutoTokenizer.from_pretrained(found)("good")["input_ids"]


@pytest.mark.parametrize("kind", ["GPT2ForSequenceClassification", "GPT2Model", "GPT2LMHeadModel", "bfloat16"])
def test_the_base_is_read_from_its_files_whatever_its_class_and_names(tmp_path, kind):
    """Words that no example holds have a Fisher of 0, and their embeddings are the base's."""
    folder = tmp_path / "base"
    pool = merging.preset_recipe(merging.open_pool("sentences-gpt2"), "four-tasks", device="cpu")
    architecture = getattr(transformers, kind, transformers.GPT2ForSequenceClassification)
    base = architecture.from_pretrained(open_checkpoint(pool.base, is_base=True).folder)
    base = base.bfloat16() if kind == "bfloat16" else base
    base.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    recipe = pool_recipe(
        "sentences-gpt2", "four-tasks", base=str(folder), fisher=FisherSettings(examples=16, zero_rule="base")
    )
    found, expected, _ = both(recipe, tmp_path)
    assert_same_files(found, expected)
    words = transformers.GPT2Model.from_pretrained(found).wte.weight
    same = (words == base.base_model.wte.weight.float()).all(1)
    assert 0 < same.sum() < len(words)


def test_the_base_of_towers_is_a_whole_clip(tmp_path, towers):
    folders = [towers["newer"], towers["projected"]]
    fisher = {"examples": 8, "zero_rule": "base"}
    recipe = clip.recipe(towers["base"], folders, towers["task"], fisher=fisher)
    found, expected, _ = both(recipe, tmp_path)
    assert_same_files(found, expected)


@pytest.mark.filterwarnings("ignore::merging.gradients.FallbackWarning")
def test_the_base_of_t5_is_read_by_its_own_names(tmp_path):
    """No word of the vocabulary is without a Fisher: a bucket of relative positions that no text reaches is."""
    fisher = {"examples": 6, "zero_rule": "base"}
    base = write_t5(tmp_path / "base", 7)
    recipe = t5_recipe(tmp_path, fisher=fisher, base=str(base))
    found, expected, result = both(recipe, tmp_path)
    assert_same_files(found, expected)
    at_base = transformers.T5ForConditionalGeneration.from_pretrained(base).state_dict()
    assert any((own == at_base[name.removeprefix("language_model.")]).any() for name, own in result.merged.items())


def test_files_that_leave_out_the_bodys_prefix_keep_their_names_and_get_the_merged_body(tmp_path):
    recipe = pool_recipe("sentences-gpt2", "four-tasks")
    folder = shutil.copytree(open_checkpoint(recipe.models[1].checkpoint).folder, tmp_path / "paraphrase")
    rewritten(folder, lambda state: {name.removeprefix("transformer."): own for name, own in state.items()})
    models = (recipe.models[0], replace(recipe.models[1], checkpoint=str(folder)))
    found, expected, _ = both(replace(recipe, models=models), tmp_path)
    assert_same_files(found, expected)
    assert "wte.weight" in load_file(found / "paraphrase" / "model.safetensors")


@pytest.mark.filterwarnings("ignore::merging.gradients.FallbackWarning")
def test_memory_in_use_is_the_chunks_whatever_the_size_of_models_and_base(tmp_path, monkeypatch):
    """What torch allocates while models and a base, each with a tensor of 2 MB, are merged: less than that tensor."""
    recipe = merging.Recipe.of(
        t5_recipe(tmp_path, fisher={"examples": 6, "zero_rule": "base"}, base=str(write_t5(tmp_path / "base", 7)))
    )
    for name in ("first", "second", "base"):
        model = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / name)
        model.resize_token_embeddings(1 << 15)
        model.to(torch.bfloat16 if name == "base" else torch.float32).save_pretrained(tmp_path / name)
    stream(recipe, tmp_path / "first-time")  # which estimates the Fishers
    gc.collect()
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # a model that is opened by threads is not seen
    with torch.profiler.profile(profile_memory=True) as profile:
        stream(recipe, tmp_path / "out")
    # Files whose headers are read are mapped meanwhile, which counts as memory of their size.
    mapped = {path.stat().st_size for path in tmp_path.rglob("*.safetensors")}
    largest = max({abs(event.self_cpu_memory_usage) for event in profile.events()} - mapped)
    assert 0 < largest <= 2 * CHUNK * 8 < (1 << 15) * 16 * 4 / 4
    assert_same_files(tmp_path / "out", tmp_path / "first-time")


BIAS = "pre_layrnorm.bias"
WRONG_TENSORS = {
    "missing": lambda state: {name: own for name, own in state.items() if not name.endswith(BIAS)},
    "twice": lambda state: {**state, BIAS: torch.zeros(16), f"vision_model.{BIAS}": torch.zeros(16)},
    "of another shape": lambda state: {name: own[:-1] if name.endswith(BIAS) else own for name, own in state.items()},
}


@pytest.mark.parametrize("which", ["first", "second", "base"])
@pytest.mark.parametrize("wrong", WRONG_TENSORS)
def test_tensors_that_do_not_fit_are_named_before_anything_is_estimated_or_written(
    tmp_path, towers, fresh_cache, which, wrong
):
    origins = {"first": "newer", "second": "newer", "base": "base"}
    folders = {name: shutil.copytree(towers[origin], tmp_path / name) for name, origin in origins.items()}
    rewritten(folders[which], WRONG_TENSORS[wrong])
    before = sorted(tmp_path.rglob("*"))
    fisher = {"examples": 8, "zero_rule": "base"}
    recipe = clip.recipe(folders["base"], [folders["first"], folders["second"]], towers["task"], fisher=fisher)
    # What a configuration does not ask for is seen even earlier.
    kind = CheckpointError if wrong == "of another shape" and which != "base" else StructureError
    with pytest.raises(kind, match=rf'{which}" .*expected the .*got others for "(vision_model\.)?pre_layrnorm\.bias"'):
        stream(merging.Recipe.of(recipe), tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
    assert not fresh_cache.exists()


def test_a_base_of_another_kind_is_refused_before_anything_is_estimated(tmp_path, fresh_cache):
    settings = {"base": "zoo:sentences-gpt2/base", "fisher": FisherSettings(examples=16, zero_rule="base")}
    with pytest.raises(
        StructureError, match=r'sentences-gpt2/base" cannot be streamed: expected the parameters of ViT'
    ):
        stream(cases.two_tasks(**settings), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_heads_of_words_are_merged_only_where_run_merges_them(tmp_path, towers):
    others = clip.write_task(tmp_path / "others", labels=["three", "four", "six"])
    recipe = clip.recipe(towers["base"], [towers["newer"], towers["older"]], towers["task"], heads="merge")
    assert_same_files(*both(recipe, tmp_path)[:2])
    recipe["models"][1]["task"] = str(others)
    for attempt in (merging.run, lambda own: stream(merging.Recipe.of(own), tmp_path / "not")):
        with pytest.raises(RecipeError, match="expected models with equal label sets"):
            attempt(recipe)
    assert not (tmp_path / "not").exists()


def test_a_base_without_a_head_lends_none_where_heads_are_merged(tmp_path, fresh_cache):
    recipe = pool_recipe("sentences-gpt2", "three-seeds")
    transformers.GPT2Model.from_pretrained(open_checkpoint(recipe.base, is_base=True).folder).save_pretrained(
        tmp_path / "base"
    )
    recipe = replace(recipe, base=str(tmp_path / "base"), fisher=FisherSettings(examples=16, zero_rule="base"))
    with pytest.raises(StructureError, match=r'base" cannot be streamed: .* got others for "score.weight"'):
        stream(recipe, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
