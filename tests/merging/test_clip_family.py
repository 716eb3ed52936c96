"""CLIP's vision towers: zero-shot heads from the base's text tower, Fishers, merges, exports, and bad input."""

import warnings
from pathlib import Path

import pytest
import torch
import transformers as hf

import merging
from merging.checkpoints import open_checkpoint
from merging.errors import CheckpointError, RecipeError, TaskError
from merging.evaluation import predict, with_body
from merging.export import export
from merging.families import fit_checkpoint, open_models
from merging.pipeline import prepare
from merging.suggestions import suggest_for
from merging.summaries import fit_task
from merging.tasks import open_task
from merging.zoo.clip_captions import create_tokenizer
from tests.merging import clip
from tests.references import assert_same_fisher, slow_fisher, slow_predict


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A base, two towers without a processor of their own, one with a projection, a full CLIP, and a task."""
    root = tmp_path_factory.mktemp("clip")
    base = clip.write_base(root / "base")
    found = {"base": base, "task": clip.write_task(root / "task")}
    found["first"] = clip.write_tower(root / "first", base, seed=1)
    found["second"] = clip.write_tower(root / "second", base, seed=2)
    found["projected"] = clip.write_tower(root / "projected", base, seed=3, kind=hf.CLIPVisionModelWithProjection)
    found["whole"] = clip.write_base(root / "whole", seed=4)
    return found


def opened(folders: dict[str, Path], name: str, base: str | None = "base"):
    """A checkpoint as it answers the task, and its model and test batches."""
    task = open_task(str(folders["task"]))
    lender = open_checkpoint(str(folders[base]), is_base=True) if base else None
    checkpoint = fit_checkpoint(open_checkpoint(str(folders[name])), task, lender)
    (model,) = open_models([checkpoint], [task], "cpu")
    return checkpoint, model, task.batches("test", checkpoint, batch_size=5)


def logits_by_hand(whole: hf.CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """One class and template at a time through CLIPModel's own forward: its text_embeds are at length 1."""
    tokenizer, columns = create_tokenizer(), []
    for name in clip.LABELS:
        texts = [tokenizer(template.replace("{}", name), return_tensors="pt") for template in clip.TEMPLATES]
        outputs = [whole(input_ids=text["input_ids"], pixel_values=pixels) for text in texts]
        mean = torch.stack([output.text_embeds[0] for output in outputs]).mean(0)
        columns.append(outputs[0].image_embeds @ (mean / mean.norm()))
    return whole.logit_scale.exp() * torch.stack(columns, dim=1)


@torch.no_grad()
@pytest.mark.parametrize("name", ["first", "projected", "whole"])
def test_the_zero_shot_head_is_that_of_the_whole_clip(folders, name):
    _, model, batches = opened(folders, name, None if name == "whole" else "base")
    whole = hf.CLIPModel.from_pretrained(folders["whole" if name == "whole" else "base"]).eval()
    if name != "whole":
        whole.vision_model.load_state_dict(hf.CLIPVisionModel.from_pretrained(folders[name]).state_dict())
    if name == "projected":
        own = hf.CLIPVisionModelWithProjection.from_pretrained(folders[name])
        whole.visual_projection.load_state_dict(own.visual_projection.state_dict())
    pixels = batches[0]["pixel_values"]
    torch.testing.assert_close(model(pixel_values=pixels).logits, logits_by_hand(whole, pixels), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_with_one_template_the_logits_are_clips_logits_per_image(folders, tmp_path):
    task = open_task(str(clip.write_task(tmp_path / "task", templates=None)))
    base = open_checkpoint(str(folders["base"]), is_base=True)
    checkpoint = fit_checkpoint(open_checkpoint(str(folders["base"])), task, base)
    (model,) = open_models([checkpoint], [task], "cpu")
    (batch,) = task.batches("test", checkpoint)
    texts = create_tokenizer()([f"a photo of a {name}." for name in clip.LABELS], padding=True, return_tensors="pt")
    whole = hf.CLIPModel.from_pretrained(folders["base"]).eval()
    expected = whole(
        input_ids=texts["input_ids"], attention_mask=texts["attention_mask"], pixel_values=batch["pixel_values"]
    ).logits_per_image
    torch.testing.assert_close(model(pixel_values=batch["pixel_values"]).logits, expected)


def test_the_body_is_the_tower_and_the_head_no_parameter(folders):
    _, model, _ = opened(folders, "first")
    tower = hf.CLIPVisionModel.from_pretrained(folders["first"])
    found = dict(model.named_parameters())
    assert list(found) == [f"vision_model.{name}" for name, _ in tower.named_parameters()]
    assert all(torch.equal(found[f"vision_model.{name}"], tensor) for name, tensor in tower.named_parameters())


def test_the_fisher_of_a_tower_is_the_slow_one_and_nothing_is_computed_alone(folders):
    _, model, batches = opened(folders, "first")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fisher = merging.diagonal_fisher(model, batches, "exact")
    assert fisher.fallbacks == {}
    assert_same_fisher(fisher, slow_fisher(model, batches))


def test_a_head_on_another_body_predicts_as_that_towers_own(folders):
    _, first, batches = opened(folders, "first")
    _, second, _ = opened(folders, "second")
    (found,) = predict([with_body(first, second.base_model)], [batches])
    torch.testing.assert_close(torch.tensor(found.probabilities), torch.tensor(slow_predict(second, batches)))


def test_a_merge_runs_with_the_bases_image_processor_and_heads(folders):
    result = merging.run(clip.recipe(folders["base"], [folders["first"], folders["second"]], folders["task"]))
    assert set(result.scores) == {"fisher", "isotropic", "ensemble", "experts"}
    assert {score.n for own in result.scores.values() for score in own.values()} == {24}
    assert all(name.startswith("vision_model.") for name in result.merged)
    _, first, batches = opened(folders, "first")
    for tower in ("first", "second"):
        _, model, _ = opened(folders, tower)
        right = slow_predict(model, batches).argmax(1) == torch.cat([one["labels"] for one in batches]).numpy()
        assert result.singles[tower]["task"].value == pytest.approx(right.mean())
    first.load_state_dict(result.merged, strict=False)
    expected = torch.tensor(slow_predict(first, batches))
    torch.testing.assert_close(torch.tensor(result.predictions["fisher"]["task"].probabilities), expected)


def test_towers_with_and_without_a_projection_and_whole_clips_merge(folders):
    towers = [folders[name] for name in ("first", "projected", "whole")]
    result = merging.run(clip.recipe(folders["base"], towers, folders["task"], rule="isotropic"))
    bodies = [dict(hf.CLIPVisionModel.from_pretrained(tower).named_parameters()) for tower in towers]
    for name, tensor in result.merged.items():
        mean = sum(body[name.removeprefix("vision_model.")].detach() for body in bodies) / 3
        torch.testing.assert_close(tensor, mean)


def test_a_tower_with_the_names_of_newer_files_is_the_same_model(folders, tmp_path):
    newer = clip.write_newer_tower(tmp_path / "second", folders["second"])
    results = [
        merging.run(clip.recipe(folders["base"], [folders["first"], second], folders["task"]))
        for second in (folders["second"], newer)
    ]
    assert results[0].scores == results[1].scores
    assert all(torch.equal(tensor, results[1].merged[name]) for name, tensor in results[0].merged.items())


@pytest.mark.parametrize(("kind", "names"), [("named", clip.LABELS), ("words", tuple(sorted(clip.LABELS)))])
def test_class_names_come_from_the_dataset_where_the_task_has_none(folders, tmp_path, kind, names):
    task = open_task(str(clip.write_task(tmp_path / "task", kind=kind, labels=None)))
    base = open_checkpoint(str(folders["base"]), is_base=True)
    checkpoint = fit_checkpoint(open_checkpoint(str(folders["first"])), task, base)
    assert checkpoint.label_names == names
    (batch,) = task.batches("test", checkpoint)
    assert [names[index] for index in batch["labels"][:3]] == list(clip.LABELS)


def test_the_page_is_told_of_a_towers_labels_before_it_has_a_base(folders):
    tower = open_checkpoint(str(folders["first"]))
    fit = fit_task(open_task(str(folders["task"])), "fisher", tower)
    assert fit.labels == clip.LABELS
    assert tuple(fit.alignment.order) == (0, 1, 2)
    with pytest.raises(CheckpointError, match="needs no suggestion"):
        suggest_for(open_task(str(folders["task"])), tower)


def test_heads_of_words_are_kept_even_where_a_recipe_merges_heads(folders, tmp_path):
    others = clip.write_task(tmp_path / "others", templates=["the {}"])
    recipe = clip.recipe(folders["base"], [folders["first"], folders["second"]], folders["task"])
    recipe["models"][1]["task"] = str(others)
    kept, merged = (merging.run({**recipe, "heads": heads}) for heads in ("keep", "merge"))
    assert kept.scores["fisher"] == merged.scores["fisher"]


def test_clip_as_it_came_and_a_tower_are_compared_on_a_shifted_task(folders, tmp_path):
    shifted = clip.write_task(tmp_path / "shifted")
    settings = {"heads": "merge", "evaluation": {"tasks": [str(shifted)]}}
    recipe = clip.recipe(folders["base"], [folders["base"], folders["first"]], folders["task"], **settings)
    result = merging.run(recipe)
    assert all(set(own) == {"task", "shifted"} for own in (*result.scores.values(), *result.singles.values()))
    assert result.scores["fisher"]["shifted"] == result.scores["fisher"]["task"], "the same rows, and the same heads"


def test_the_base_fills_coordinates_that_no_fisher_knows(folders):
    settings = {"fisher": {"examples": 8, "zero_rule": "base"}}
    towers = [folders["first"], folders["second"]]
    prepared = prepare(merging.Recipe.of(clip.recipe(folders["base"], towers, folders["task"], **settings)))
    base = dict(hf.CLIPVisionModel.from_pretrained(folders["base"]).named_parameters())
    found = prepared.base(prepared.recipe)
    assert all(torch.equal(found[f"vision_model.{name}"], tensor) for name, tensor in base.items())


def test_other_templates_are_another_fisher_in_the_cache(folders, tmp_path):
    others = open_task(str(clip.write_task(tmp_path / "others", templates=["the {}"])))
    own = open_task(str(folders["task"]))
    assert own.content_hash("fisher") != others.content_hash("fisher")
    checkpoint, _, _ = opened(folders, "first")
    assert checkpoint.hash != open_checkpoint(str(folders["first"])).hash, "the base's text tower belongs to the model"


def test_an_exported_tower_opens_as_a_clip_vision_model(folders, tmp_path):
    result = merging.run(clip.recipe(folders["base"], [folders["first"], folders["second"]], folders["task"]))
    folder = export(result, tmp_path / "merged")
    tower = hf.CLIPVisionModel.from_pretrained(folder)
    for name, tensor in tower.named_parameters():
        assert torch.equal(tensor, result.merged[f"vision_model.{name}"])
    assert hf.AutoImageProcessor.from_pretrained(folder).size["height"] == 16
    again = merging.run(clip.recipe(folders["base"], [folder, folders["first"]], folders["task"], rule="isotropic"))
    assert again.singles["merged"]["task"] == result.scores["fisher"]["task"]


def test_a_tower_without_a_base_asks_for_it(folders):
    with pytest.raises(RecipeError, match=r'expected the CLIP that it was fine-tuned from under "base", got none'):
        merging.run(clip.recipe(None, [folders["first"], folders["second"]], folders["task"]))


def test_a_base_that_is_no_clip_is_refused(folders):
    recipe = clip.recipe("zoo:digits/base", [folders["first"], folders["second"]], folders["task"])
    with pytest.raises(CheckpointError, match="expected a CLIPModel with a text tower, got"):
        merging.run(recipe)


def test_a_base_of_another_width_is_refused(folders, tmp_path):
    other = clip.write_base(tmp_path / "wide", width=32)
    with pytest.raises(CheckpointError, match="expected a projection from 16 to 10 numbers, got one from 32 to 10"):
        merging.run(clip.recipe(other, [folders["first"], folders["second"]], folders["task"]))


def test_a_template_without_a_place_for_the_name_is_refused(folders, tmp_path):
    task = clip.write_task(tmp_path / "task", templates=["a photo of a digit"])
    with pytest.raises(TaskError, match=r'expected "{}" in it, got "a photo of a digit"'):
        merging.run(clip.recipe(folders["base"], [folders["first"], folders["second"]], task))


def test_numbers_without_class_names_are_refused(folders, tmp_path):
    task = clip.write_task(tmp_path / "task", labels=None)
    with pytest.raises(TaskError, match="expected words under labels, one per class"):
        merging.run(clip.recipe(folders["base"], [folders["first"], folders["second"]], task))


def test_a_word_that_is_no_class_name_is_refused(folders, tmp_path):
    task = clip.write_task(tmp_path / "task", kind="words", labels=["three", "four", "nine"])
    with pytest.raises(TaskError, match='got "five"'):
        merging.run(clip.recipe(folders["base"], [folders["first"], folders["second"]], task))


def test_a_label_beyond_the_class_names_is_refused(folders, tmp_path):
    task = clip.write_task(tmp_path / "task", labels=["three", "four"])
    with pytest.raises(TaskError, match="expected labels from 0 to 1"):
        merging.run(clip.recipe(folders["base"], [folders["first"], folders["second"]], task))
