"""Running out of memory: batches are halved, then the CPU takes over; the numbers stay, and it is said."""

import copy
from dataclasses import replace

import numpy
import pytest
import torch

import merging
from components.tables import score_sentence
from merging import cache, forward_passes
from merging.device_memory import DeviceMemory, cpu_copies
from merging.errors import Cancelled, DeviceError
from merging.estimates import fisher_key, fisher_of
from merging.evaluation import predict, share_equal_inputs, with_body
from merging.fisher import Fisher
from merging.gradients.memory import MemoryWarning
from merging.opened import open_recipe
from merging.pipeline import evaluate, prepare
from tests import cases
from tests.merging.test_evaluation import labelled
from tests.merging.test_squares import OUT_OF_MEMORY
from tests.references import slow_predict

pytestmark = pytest.mark.filterwarnings("ignore::merging.gradients.memory.MemoryWarning")
# Stands for a device beside the CPU: the models' own tensors lie on it, copies of them do not.
CROWDED = "crowded"


def refusing(model, *, above, problem=None, only_here=False):
    """Lets a model's body refuse batches of more rows; `only_here` not on copies of its tensors. Returns the sizes seen."""
    sizes, here = [], {parameter.data_ptr() for parameter in model.parameters()}

    def refuse(module, arguments, named):
        rows = len(next(iter([*arguments, *named.values()])))
        if only_here and not here & {parameter.data_ptr() for parameter in module.parameters()}:
            return
        sizes.append(rows)
        if rows > above:
            raise problem or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    body = getattr(model, "base_model", model)
    body.register_forward_pre_hook(refuse, with_kwargs=True)
    return sizes


@pytest.mark.parametrize("problem", OUT_OF_MEMORY, ids=str)
def test_batches_are_halved_until_they_fit_and_predictions_stay(problem):
    model, batches = cases.model_case("vit-10"), labelled("vit-10", 16, examples=16)
    expected = slow_predict(model, batches)
    sizes = refusing(model, above=5, problem=problem)
    (found,) = predict([model], [batches])
    numpy.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.labels.tolist() == batches[0]["labels"].tolist()
    assert sizes == [16, 8, 4, 4, 4, 4]


def test_a_size_that_did_not_fit_is_not_tried_again_and_it_is_said(monkeypatch):
    model, memory = cases.model_case("vit-10"), DeviceMemory()
    monkeypatch.setattr(forward_passes, "MOST_ROWS", 7)
    batches = labelled("vit-10", 7, examples=14)
    expected = slow_predict(model, batches)
    sizes = refusing(model, above=3)
    with pytest.warns(MemoryWarning, match="at most 3 at a time"):
        (found,) = predict([model], [batches], memory=memory)
    numpy.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert sizes == [7, 3, 3, 1, 3, 3, 1]
    sizes.clear()
    predict([model], [batches], memory=memory)
    assert sizes == [3, 3, 1, 3, 3, 1]
    assert memory.notes == ["Memory ran out: examples are evaluated at most 3 at a time."]


def test_where_memory_suffices_nothing_is_cut_and_nothing_is_said():
    model, memory = cases.model_case("vit-10"), DeviceMemory()
    sizes = refusing(model, above=16)
    predict([model], [labelled("vit-10", 16, examples=16)], memory=memory)
    assert sizes == [16]
    assert memory.notes == []


def test_models_that_share_a_body_share_it_in_every_part():
    models = [cases.model_case("vit-10", seed=seed) for seed in range(3)]
    views = [with_body(model, models[0].base_model) for model in models]
    batches = share_equal_inputs([labelled("vit-10", 8, examples=8) for _ in models])
    expected = [slow_predict(view, batches[0]) for view in views]
    calls = []
    models[0].base_model.embeddings.register_forward_hook(lambda *arguments: calls.append(len(arguments[1][0])))
    refusing(models[0], above=4)
    found = predict(views, batches)
    assert calls == [4, 4]
    for prediction, own in zip(found, expected, strict=True):
        numpy.testing.assert_allclose(prediction.probabilities, own, atol=1e-6)


def test_where_one_example_does_not_fit_the_cpu_takes_over_from_the_start():
    models = [cases.model_case("bert-2", seed=seed) for seed in range(2)]
    views = [with_body(model, models[0].base_model) for model in models]
    batches = [labelled("bert-2", 8, examples=8), labelled("bert-2", 8, examples=8)]
    expected = [slow_predict(view, own) for view, own in zip(views, batches, strict=True)]
    sizes, memory = refusing(models[0], above=0, only_here=True), DeviceMemory(CROWDED)
    with pytest.warns(MemoryWarning, match="The memory of crowded ran out: the evaluation is done on the CPU"):
        found = predict(views, batches, memory=memory)
    assert sizes == [16, 8, 4, 2, 1]
    for prediction, own in zip(found, expected, strict=True):
        numpy.testing.assert_allclose(prediction.probabilities, own, atol=1e-6)
    sizes.clear()
    predict(views, batches, memory=memory)
    assert sizes == [], "it is not tried again"
    assert "forward" not in vars(models[0].base_model)
    assert "the evaluation is done on the CPU, which takes longer." in memory.notes[-1]


@pytest.mark.parametrize("device", ["cpu", CROWDED])
def test_where_the_cpu_has_no_memory_either_it_is_an_error_that_says_so(device):
    model = cases.model_case("vit-10")
    refusing(model, above=0)
    with pytest.raises(
        DeviceError, match=r"The evaluation cannot be done: expected enough memory on the CPU, got none"
    ):
        predict([model], [labelled("vit-10", 4)], memory=DeviceMemory(device))


def test_other_errors_and_a_stop_are_passed_on():
    model = cases.model_case("vit-10")
    refusing(model, above=2, problem=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        predict([model], [labelled("vit-10", 4)], memory=DeviceMemory(CROWDED))

    def stop():
        raise Cancelled

    with pytest.raises(Cancelled):
        predict([model], [labelled("vit-10", 4)], between=stop, memory=DeviceMemory(CROWDED))


def test_copies_on_the_cpu_share_what_the_models_share_and_nothing_with_them():
    one, two = cases.model_case("vit-10", seed=0), cases.model_case("vit-10", seed=1)
    views = [one, with_body(two, one.base_model)]
    first, second = cpu_copies(views)
    assert first.base_model.embeddings.cls_token is second.base_model.embeddings.cls_token
    originals = {tensor.data_ptr() for view in views for tensor in [*view.parameters(), *view.buffers()]}
    for view, own in zip(views, (first, second), strict=True):
        assert view.state_dict().keys() == own.state_dict().keys()
        assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in view.state_dict().items())
        assert not originals & {tensor.data_ptr() for tensor in [*own.parameters(), *own.buffers()]}
    tied = cases.model_case("tied-3")
    (copied,) = cpu_copies([tied])
    assert copied.first.weight is copied.second.weight


def full(device, places=None):
    """Work that only the CPU has room for."""
    if places is not None:
        places.append(device)
    if device != "cpu":
        raise torch.OutOfMemoryError("CUDA out of memory")
    return device


@pytest.fixture
def parity(fresh_cache):
    """A checkpoint, its task, a module of its own and settings, with an empty cache."""
    recipe = cases.two_tasks()
    opened = open_recipe(recipe, lambda fraction, text: None)
    checkpoint = opened.checkpoints[0]
    return checkpoint, opened.own[0], checkpoint.model("cpu"), recipe.fisher


def test_a_fisher_whose_example_does_not_fit_is_estimated_on_the_cpu_under_the_cpus_name(parity):
    checkpoint, task, module, settings = parity
    expected = fisher_of(checkpoint, task, copy.deepcopy(module), settings=settings, device="cpu")
    cache.entry_path(fisher_key(checkpoint, task, settings, "cpu")).unlink()
    memory, sizes = DeviceMemory(CROWDED), refusing(module, above=0, only_here=True)
    found = fisher_of(checkpoint, task, module, settings=settings, device=CROWDED, memory=memory)
    assert sizes
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert cache.read_fisher(fisher_key(checkpoint, task, settings, "cpu"), Fisher.load) is not None
    assert not cache.entry_path(fisher_key(checkpoint, task, settings, CROWDED)).exists()
    assert memory.notes == [
        f'The memory of crowded ran out: the estimate of the Fisher of "{checkpoint.name}" is done on the CPU, '
        "which takes longer."
    ]
    assert {name: parameter.requires_grad for name, parameter in module.named_parameters()} == {
        name: True for name, _ in module.named_parameters()
    }


def test_an_estimate_whose_batches_are_halved_says_so():
    model, texts = cases.model_case("vit-10"), []
    expected = merging.diagonal_fisher(model, cases.batches_for("vit-10", 16))
    refusing(model, above=4)
    with pytest.warns(MemoryWarning, match="Memory ran out: the Fisher takes at most 4 examples at a time"):
        found = merging.diagonal_fisher(
            model, cases.batches_for("vit-10", 16), on_progress=lambda fraction, text: texts.append(text)
        )
    assert texts[-1] == "16 examples, at most 4 at a time since memory ran out"
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_a_fisher_that_runs_out_of_memory_midway_starts_again_on_the_cpu(parity):
    checkpoint, task, module, settings = parity
    expected = fisher_of(checkpoint, task, copy.deepcopy(module), settings=settings, device="cpu")
    cache.entry_path(fisher_key(checkpoint, task, settings, "cpu")).unlink()
    calls, here = [], {parameter.data_ptr() for parameter in module.parameters()}

    def refuse(own, arguments):
        calls.append(1)
        if len(calls) > 5 and here & {parameter.data_ptr() for parameter in own.parameters()}:
            raise torch.OutOfMemoryError("CUDA out of memory")

    module.register_forward_pre_hook(refuse)
    found = fisher_of(checkpoint, task, module, settings=settings, device=CROWDED)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert found.examples == expected.examples


def test_a_prepared_recipe_goes_on_on_the_cpu_and_the_page_says_so(fresh_cache):
    recipe = cases.two_tasks()
    expected = evaluate(prepare(recipe), recipe)
    prepared = prepare(recipe)
    prepared.batches(recipe.evaluation.split)
    prepared.memory = DeviceMemory(CROWDED)
    prepared.memory.or_on_cpu(full, "the merge")
    with prepared._targets.one(), prepared._targets.one():
        pass
    for target in [*prepared.modules, *prepared._targets._own.queue]:
        refusing(target, above=0, only_here=True)
    found = evaluate(prepared, recipe)
    assert found.scores == expected.scores
    assert any("the evaluation is done on the CPU" in note for note in prepared.notes)
    assert "the evaluation is done on the CPU, which takes longer." in score_sentence(found)


def test_work_that_has_no_room_on_the_device_is_done_on_the_cpu_from_then_on():
    memory, places = DeviceMemory(CROWDED), []
    assert [memory.or_on_cpu(lambda device: full(device, places), "the merge") for _ in range(2)] == ["cpu"] * 2
    assert places == [CROWDED, "cpu", "cpu"]
    assert memory.notes == ["The memory of crowded ran out: the merge is done on the CPU, which takes longer."]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_whose_memory_is_all_taken_the_scores_are_those_of_the_cpu(fresh_cache):
    recipe = replace(cases.two_tasks(), device="cuda")
    expected = merging.run(replace(recipe, device="cpu"))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        found = merging.run(recipe)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found.scores == expected.scores
    assert found.prepared.notes == ["The memory of cuda ran out: all work is done on the CPU, which takes longer."]
