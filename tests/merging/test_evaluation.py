"""Predictions equal those of one example at a time, however models and inputs are shared."""

import copy

import numpy
import pytest
import torch

from merging import forward_passes
from merging.evaluation import predict, share_equal_inputs, with_body
from tests import cases
from tests.references import slow_predict


def labelled(name, batch_size, examples=7):
    batches = cases.batches_for(name, batch_size, examples=examples)
    count = cases.MODELS[name][1]
    return [{**b, "labels": torch.arange(len(next(iter(b.values())))).remainder(count)} for b in batches]


@pytest.mark.parametrize("name", ["bert-2", "distilbert-2", "gpt2-3", "vit-10"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_predictions_are_those_of_single_examples(name, batch_size):
    model, batches = cases.model_case(name), labelled(name, batch_size)
    (found,) = predict([model], [batches])
    numpy.testing.assert_allclose(found.probabilities, slow_predict(model, batches), atol=1e-6)
    assert found.labels.tolist() == torch.cat([batch["labels"] for batch in batches]).tolist()
    assert found.correct.tolist() == (found.probabilities.argmax(1) == found.labels).tolist()


def test_models_that_share_a_body_and_inputs_run_the_body_once_per_batch(monkeypatch):
    monkeypatch.setattr(forward_passes, "MOST_ROWS", 3)
    models = [cases.model_case("vit-10", seed=seed) for seed in range(3)]
    body = models[0].base_model
    shared = [with_body(model, body) for model in models]
    batches = share_equal_inputs([labelled("vit-10", 3) for _ in models])
    calls = []
    handle = body.embeddings.register_forward_hook(lambda *arguments: calls.append(1))
    try:
        found = predict(shared, batches)
    finally:
        handle.remove()
    assert len(calls) == len(batches[0])
    for view, prediction in zip(shared, found, strict=True):
        numpy.testing.assert_allclose(prediction.probabilities, slow_predict(view, batches[0]), atol=1e-6)
    assert not numpy.allclose(found[0].probabilities, found[1].probabilities, atol=1e-3)


def test_models_with_other_bodies_or_inputs_do_not_share():
    one, two = cases.model_case("vit-10", seed=0), cases.model_case("vit-10", seed=1)
    first, second = labelled("vit-10", 4), [{**b, "pixel_values": -b["pixel_values"]} for b in labelled("vit-10", 4)]
    found = predict([one, two, one], share_equal_inputs([first, first, second]))
    for prediction, (model, batches) in zip(found, [(one, first), (two, first), (one, second)], strict=True):
        numpy.testing.assert_allclose(prediction.probabilities, slow_predict(model, batches), atol=1e-6)


def counted(body):
    """The rows of every pass through a body, from now on."""
    rows = []
    body.embeddings.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    return rows


def test_small_batches_of_tasks_with_one_body_go_through_it_together(monkeypatch):
    monkeypatch.setattr(forward_passes, "MOST_ROWS", 10)
    models = [cases.model_case("vit-10", seed=seed) for seed in range(3)]
    views = [with_body(model, models[0].base_model) for model in models]
    tasks = [
        [{**batch, "pixel_values": batch["pixel_values"] + task} for batch in labelled("vit-10", 4)]
        for task in range(3)
    ]
    expected = [slow_predict(view, own) for view, own in zip(views, tasks, strict=True)]
    rows = counted(models[0].base_model)
    found = predict(views, tasks)
    assert rows == [7, 7, 7]  # 4 + 3 of each: a third batch of 4 would be one row too many
    rows.clear()
    predict(views, tasks[:1] + [own[:1] for own in tasks[1:]])
    assert rows == [7, 8]
    rows.clear()
    predict([models[0]], [labelled("vit-10", 16, examples=16)])
    assert rows == [16], "a single batch may have more rows"
    for prediction, own in zip(found, expected, strict=True):
        numpy.testing.assert_allclose(prediction.probabilities, own, atol=1e-6)


def test_texts_of_other_lengths_do_not_go_together():
    model = cases.model_case("bert-2")
    first, second = labelled("bert-2", 8, examples=8), labelled("bert-2", 8, examples=8)
    shorter = [{name: value[:, :-1] if value.dim() == 2 else value for name, value in b.items()} for b in second]
    expected = [slow_predict(model, own) for own in (first, shorter)]
    rows = counted(model.base_model)
    found = predict([model, model], [first, shorter])
    assert rows == [8, 8]
    for prediction, own in zip(found, expected, strict=True):
        numpy.testing.assert_allclose(prediction.probabilities, own, atol=1e-6)


def test_examples_come_back_in_the_order_of_their_rows():
    model, batches = cases.model_case("gpt2-3"), labelled("gpt2-3", 3)
    (straight,) = predict([model], [batches])
    count, places = len(straight.labels), torch.tensor([4, 0, 6, 1, 5, 2, 3])
    starts = range(0, count, 3)
    numbered = [{**batch, "rows": places[at : at + 3]} for batch, at in zip(batches, starts, strict=True)]
    (sorted_back,) = predict([model], [numbered])
    numpy.testing.assert_array_equal(sorted_back.probabilities[places], straight.probabilities)
    assert sorted_back.labels[places].tolist() == straight.labels.tolist()


def test_predicting_leaves_the_models_as_they_were():
    model = cases.model_case("vit-2")
    forward = model.base_model.forward
    predict([model], [labelled("vit-2", 3)])
    assert model.base_model.forward == forward
    assert "forward" not in vars(model.base_model)

    class Stop(Exception):
        pass

    def stop(*arguments):
        raise Stop

    handle = model.classifier.register_forward_hook(stop)
    with pytest.raises(Stop):
        predict([model], [labelled("vit-2", 3)])
    handle.remove()
    assert "forward" not in vars(model.base_model)


def test_a_view_with_another_body_shares_tensors_and_leaves_the_model_alone():
    one, two = cases.model_case("vit-10", seed=0), cases.model_case("vit-10", seed=1)
    own = one.base_model
    view = with_body(one, two.base_model)
    assert one.base_model is own
    assert view.base_model is two.base_model
    assert view.classifier.weight is one.classifier.weight


def test_equal_inputs_are_one_tensor_and_labels_stay_apart():
    first, second = labelled("vit-2", 3), labelled("vit-2", 3)
    second[0]["labels"] = 1 - second[0]["labels"]
    shared = share_equal_inputs([first, second])
    assert shared[0][1]["pixel_values"] is shared[1][1]["pixel_values"]
    assert not torch.equal(shared[0][0]["labels"], shared[1][0]["labels"])
    other = share_equal_inputs([labelled("vit-2", 3), labelled("vit-2", 4)])
    assert other[0][0]["pixel_values"] is not other[1][0]["pixel_values"]


def test_models_are_as_they_were_while_something_is_predicted_with_them(four_result):
    """Others copy them, and predict with them, at any time: what is written into a copy must be what answers there."""
    prepared = four_result.prepared
    model, batches = prepared.modules[0], prepared.batches("test")[0]
    copies = []

    def copied():
        with torch.inference_mode(False):  # as another thread copies it
            copies.append(copy.deepcopy(model))

    (plain,) = predict([model], [batches], between=copied)
    assert copies
    with torch.no_grad():
        for own in copies[-1].parameters():
            own.zero_()
    (changed,) = predict([copies[-1]], [batches])
    assert not numpy.allclose(changed.probabilities, plain.probabilities)
    assert numpy.ptp(changed.probabilities, axis=0).max() == 0, "a model of zeros answers every input alike"
    (nested,) = predict([model], [batches], between=lambda: predict([model], [batches[:1]]))
    numpy.testing.assert_allclose(nested.probabilities, plain.probabilities, atol=1e-6)
