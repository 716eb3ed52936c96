"""What a merge needs beside parameters: buffers, and a base that is no classifier."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy
import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification, ViTModel

from merging.checkpoints import open_checkpoint
from merging.errors import CheckpointError
from merging.evaluation import predict
from merging.pipeline import evaluate, prepare
from merging.pools import open_pool
from merging.prepared import Prepared
from merging.recipe import EvaluationSettings, FisherSettings, preset_recipe


def tiny_resnet(running_mean: float, steps: int) -> ResNetForImageClassification:
    config = ResNetConfig(num_channels=1, embedding_size=4, hidden_sizes=[4, 4], depths=[1, 1], layer_type="basic")
    model = ResNetForImageClassification(config).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.fill_(running_mean)
        elif name.endswith("num_batches_tracked"):
            buffer.fill_(steps)
    return model


def test_batch_norm_statistics_are_averaged_by_weight_and_said_so():
    recipe = preset_recipe(open_pool("digits"), "robust")
    checkpoints = [open_checkpoint(entry.checkpoint) for entry in recipe.models]
    modules = [tiny_resnet(1.0, 10), tiny_resnet(5.0, 77)]
    prepared = Prepared(recipe, ["a", "b"], checkpoints, modules, [], [], "cpu")
    merged = prepared.merged_copy({}, [3.0, 1.0])
    means = [buffer for name, buffer in merged.named_buffers() if name.endswith("running_mean")]
    assert means
    assert all(torch.equal(mean, torch.full_like(mean, 2.0)) for mean in means)
    assert any("averaged" in note for note in prepared.notes)


def test_texts_are_read_by_length_and_predictions_are_in_the_order_of_the_rows():
    evaluation = EvaluationSettings(examples=200)
    prepared = prepare(
        preset_recipe(open_pool("sentences-gpt2"), "four-tasks", evaluation=evaluation, rule="isotropic")
    )
    entry = prepared.tasks[0]
    lengths = [batch["attention_mask"].sum(1) for batch in prepared.batches("test")[0]]
    assert lengths[0].min() >= lengths[-1].max()
    singles, _ = prepared.fixed_predictions("test")
    found = singles[prepared.names[0]][entry.name]
    assert found.labels.tolist() == entry.task.rows("test", examples=200)["label"][:]
    plain = entry.task.batches("test", prepared.checkpoints[0], examples=200)
    (expected,) = predict([prepared.modules[0]], [plain])
    numpy.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)


def test_merges_that_are_evaluated_side_by_side_are_those_that_are_evaluated_alone(four_result):
    prepared, recipe = four_result.prepared, four_result.recipe.with_weights([0.1, 0.2, 0.3, 0.4])
    assert prepared.at_once == 2
    together = evaluate(prepared, recipe)
    for rule in ("fisher", "isotropic"):
        alone = prepared.predict_merged(prepared.merge(recipe, rule=rule), recipe.evaluation.split, recipe.weights)
        for task, prediction in alone.items():
            numpy.testing.assert_array_equal(prediction.probabilities, together.predictions[rule][task].probabilities)


def test_a_base_may_be_a_body_without_a_head(tmp_path):
    base = open_checkpoint("zoo:digits/base").model()
    body: ViTModel = base.base_model
    body.save_pretrained(tmp_path / "body")
    settings = FisherSettings(zero_rule="base", examples=16)
    recipe = preset_recipe(open_pool("digits"), "robust", fisher=settings)
    prepared = prepare(replace(recipe, base=str(tmp_path / "body"), rule="isotropic", heads="keep"))
    opened = prepared.base(prepared.recipe)
    for name, tensor in body.named_parameters():
        assert torch.equal(opened[f"vit.{name}"], tensor)
    with pytest.raises(CheckpointError, match="expected a classifier"):
        open_checkpoint(str(tmp_path / "body"))


def test_who_waits_between_batches_keeps_nobody_else_waiting(four_result):
    """Else a move of one visitor waits for the evaluation of another, which waits for the move."""
    prepared, weights = four_result.prepared, four_result.recipe.weights
    waiting, others_are_done = threading.Barrier(prepared.at_once + 2), threading.Event()

    def between():
        if not others_are_done.is_set():
            waiting.wait(60)
            assert others_are_done.wait(60)

    with ThreadPoolExecutor() as threads:
        patient = [
            threads.submit(prepared.predict_merged, four_result.merged, "test", weights, between=between)
            for _ in range(prepared.at_once + 1)
        ]
        waiting.wait(60)
        try:
            quick = threads.submit(prepared.predict_merged, four_result.merged, "test", weights).result(60)
        finally:
            others_are_done.set()
        found = [one.result(60) for one in patient]
    for predictions in [quick, *found]:
        for task, prediction in predictions.items():
            numpy.testing.assert_allclose(
                prediction.probabilities, four_result.predictions["fisher"][task].probabilities, atol=1e-6
            )
