"""The embedded pool digits-clip is what it says it is, merges end to end, and its builder makes it again."""

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPVisionModel

import merging
from merging.errors import PoolError
from merging.evaluation import predict
from merging.export import export
from merging.families import fit_checkpoint, open_models
from merging.recipe import FisherSettings
from merging.zoo import ZOO_FOLDER
from merging.zoo.build_clip import ClipSettings, build, stages
from merging.zoo.clip_captions import CAPTIONED_TASKS, DIGIT, LONGEST_CAPTION, MEDIA, Facts, caption, create_tokenizer
from merging.zoo.clip_training import PROCESSOR
from merging.zoo.digits_data import TASKS, split_digits
from merging.zoo.digits_training import pixels_of

POOL_FOLDER = ZOO_FOLDER / "digits-clip"
SIZE_LIMIT_BYTES = 4_000_000
SHORT = ClipSettings(base_epochs=1, expert_epochs=1)


@pytest.fixture(scope="module")
def pool():
    """The embedded pool."""
    return merging.open_pool("digits-clip")


@pytest.fixture(scope="module")
def result(pool):
    """The four towers merged as the page does it."""
    return merging.run(merging.preset_recipe(pool, "four-towers", device="cpu"))


def test_the_pool_is_small_and_its_checkpoints_are_a_clip_and_its_vision_towers(pool):
    sizes = [path.stat().st_size for path in POOL_FOLDER.rglob("*") if path.is_file()]
    assert sum(sizes) <= SIZE_LIMIT_BYTES
    CLIPModel.from_pretrained(POOL_FOLDER / "checkpoints" / "base")
    for model in pool.models:
        folder = POOL_FOLDER / "checkpoints" / model.name
        assert {path.name for path in folder.iterdir()} == {
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        }
        assert CLIPVisionModel.from_pretrained(folder).dtype == torch.float32
        assert "_name_or_path" not in (folder / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CAPTIONED_TASKS)
def test_a_task_has_the_rows_of_digits_and_label_names_that_fit_its_templates(name):
    fields = yaml.safe_load((POOL_FOLDER / "tasks" / name / "task.yaml").read_text(encoding="utf-8"))
    assert fields["data"] == "../../../digits/data/digits"
    assert tuple(fields["templates"]) == CAPTIONED_TASKS[name].templates
    assert len(fields["labels"]) == len(TASKS[name].labels)
    task = merging.open_task(f"zoo:digits-clip/{name}")
    assert task.rows("test")[name] == merging.open_task(f"zoo:digits/{name}").rows("test")[name]


def test_every_word_of_a_caption_is_a_token_and_no_caption_is_cut():
    tokenizer = create_tokenizer()
    for task in (DIGIT, *CAPTIONED_TASKS.values()):
        for fact in Facts.of(task).texts:
            for medium in MEDIA:
                tokens = tokenizer(caption(fact, medium, is_inverted=True))["input_ids"]
                assert tokenizer.unk_token_id not in tokens
                assert len(tokens) <= LONGEST_CAPTION


def test_facts_are_true_of_the_right_digits():
    facts = Facts.of(*CAPTIONED_TASKS.values())
    expected = {
        "an odd number": [1, 3, 5, 7, 9],
        "a number above four": [5, 6, 7, 8, 9],
        "a digit with a loop": [0, 6, 8, 9],
        "a number with remainder one": [1, 4, 7],
    }
    for text, digits in expected.items():
        assert facts.truth[facts.texts.index(text)].nonzero()[:, 0].tolist() == digits


def test_the_saved_processor_makes_the_pixels_of_the_training():
    saved = CLIPImageProcessorPil.from_pretrained(POOL_FOLDER / "checkpoints" / "parity")
    assert saved.to_dict() == PROCESSOR.to_dict()
    rows = split_digits(0)["validation"]
    merging_task = merging.open_task("zoo:digits-clip/parity")
    checkpoint = merging.open_checkpoint("zoo:digits-clip/parity")
    base = merging.open_checkpoint("zoo:digits-clip/base", is_base=True)
    (batch,) = merging_task.batches(
        "validation", fit_checkpoint(checkpoint, merging_task, base), batch_size=len(rows.digits)
    )
    torch.testing.assert_close(batch["pixel_values"], pixels_of(rows))


def test_experts_are_good_and_the_rules_differ_in_the_middle(result):
    assert min(score.value for score in result.scores["experts"].values()) >= 0.93
    assert result.mean("isotropic") + 0.02 < result.mean("fisher") < result.mean("experts")


def test_the_base_knows_the_digits_that_its_captions_name():
    task = merging.open_task("zoo:digits-clip/digit")
    base = fit_checkpoint(merging.open_checkpoint("zoo:digits-clip/base"), task, None)
    (prediction,) = predict(open_models([base], [task], "cpu"), [task.batches("test", base)])
    assert numpy.mean(prediction.correct) >= 0.93


def test_heads_of_different_tasks_stay_apart(result):
    texts = {name: module.text for name, module in zip(result.prepared.names, result.prepared.modules, strict=True)}
    assert {name: len(text) for name, text in texts.items()} == {"parity": 2, "large": 2, "loop": 2, "remainder": 3}
    for text in texts.values():
        torch.testing.assert_close(text.norm(dim=1), torch.ones(len(text)))


def test_the_merged_tower_is_exported_as_an_ordinary_checkpoint(result, tmp_path):
    tower = CLIPVisionModel.from_pretrained(export(result, tmp_path / "merged"))
    assert all(torch.equal(value, result.merged[f"vision_model.{name}"]) for name, value in tower.named_parameters())
    assert CLIPImageProcessorPil.from_pretrained(tmp_path / "merged").size["height"] == 16


def test_a_recipe_without_the_base_is_refused(pool):
    recipe = merging.preset_recipe(pool, "four-towers", device="cpu", fisher=FisherSettings(examples=8))
    with pytest.raises(merging.MergingError, match='under "base", got none'):
        merging.run(replace(recipe, base=None))


def test_a_short_build_is_twice_the_same_and_leaves_the_global_generator_alone(tmp_path):
    state = torch.get_rng_state()
    for attempt in ("first", "second"):
        for stage in ("base", "loop"):
            build(tmp_path / attempt, seed=3, only=stage, settings=SHORT)
    assert torch.equal(torch.get_rng_state(), state)
    for stage in ("base", "loop"):
        folders = [tmp_path / attempt / "checkpoints" / stage for attempt in ("first", "second")]
        first, second = (load_file(folder / "model.safetensors") for folder in folders)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("seed", [0, 4])
def test_rebuilt_tasks_find_the_rows_of_their_seed_wherever_the_pool_lies(tmp_path: Path, seed: int):
    build(tmp_path / "pool", seed=seed, only="data")
    task = merging.open_task(str(tmp_path / "pool" / "tasks" / "digit"))
    assert task.rows("test")["digit"] == split_digits(seed)["test"].digits.tolist()
    if seed == 0:
        assert (tmp_path / "pool" / "pool.yaml").read_text() == (POOL_FOLDER / "pool.yaml").read_text()
        assert not (tmp_path / "pool" / "data").exists()


def test_a_tower_without_its_base_is_not_built(tmp_path):
    assert stages() == ["data", "base", *CAPTIONED_TASKS]
    with pytest.raises(PoolError, match='"loop" has no start'):
        build(tmp_path, only="loop", settings=SHORT)
