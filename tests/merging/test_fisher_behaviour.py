"""What the estimation leaves behind, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from merging import Cancelled, MergingError, diagonal_fisher
from merging.errors import FisherError, RecipeError
from merging.fisher import Fisher
from tests import cases


class Stop(Exception):
    """An error of the caller's own."""


def _state(model):
    return [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]


def _mixed_model():
    model = cases.model_case("vit-2")
    model.train()
    model.base_model.eval()
    next(model.parameters()).requires_grad_(False)
    return model


@pytest.mark.parametrize("error", [None, Cancelled, Stop])
def test_mode_and_requires_grad_are_restored(error):
    model = _mixed_model()
    before = _state(model)
    seen = []

    def on_progress(fraction, text):
        seen.append(_state(model))
        if error:
            raise error

    if error:
        with pytest.raises(error):
            diagonal_fisher(model, cases.batches_for("vit-2", 3), on_progress=on_progress)
    else:
        diagonal_fisher(model, cases.batches_for("vit-2", 3), on_progress=on_progress)
    assert seen[0] != before, "while estimating it is in evaluation mode with gradients"
    assert not any(seen[0][0])
    assert _state(model) == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_parameters_and_their_gradients_are_left_alone():
    model = cases.model_case("softmax-3")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    diagonal_fisher(model, cases.batches_for("softmax-3", 3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())


def test_dropout_does_not_enter_the_fisher():
    plain = cases.softmax_regression(3)
    dropping = cases.Classifier(head=nn.Sequential(nn.Dropout(0.5), plain.head)).train()
    batches = cases.batches_for("softmax-3", 3)
    found, expected = diagonal_fisher(dropping, batches), diagonal_fisher(plain, batches)
    assert torch.equal(found["head.1.weight"], expected["head.weight"])


def test_frozen_parameters_are_estimated_too():
    model = cases.model_case("vit-2")
    expected = diagonal_fisher(model, cases.batches_for("vit-2", 3))
    model.requires_grad_(False)
    found = diagonal_fisher(model, cases.batches_for("vit-2", 3))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_gets_the_same_fisher(context):
    model, batches = cases.model_case("vit-2"), cases.batches_for("vit-2", 3)
    expected = diagonal_fisher(model, batches)
    with context():
        found = diagonal_fisher(model, batches)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_progress_rises_to_one():
    seen = []
    diagonal_fisher(
        cases.model_case("softmax-2"), cases.batches_for("softmax-2", 3), on_progress=lambda f, t: seen.append((f, t))
    )
    fractions = [fraction for fraction, _ in seen]
    assert len(seen) == 6
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert seen[-1][1] == "16 examples"


def test_batches_may_come_from_a_generator():
    batches = cases.batches_for("softmax-2", 3)
    found = diagonal_fisher(cases.model_case("softmax-2"), iter(batches), on_progress=lambda f, t: None)
    expected = diagonal_fisher(cases.model_case("softmax-2"), batches)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class Wrapped(nn.Module):
    """A model whose forward is spoiled in some way."""

    def __init__(self, spoil):
        super().__init__()
        self.inner, self.spoil = cases.softmax_regression(3), spoil

    def forward(self, x):
        """The spoiled output."""
        return self.spoil(self.inner, x)


def _without_gradients(inner, x):
    with torch.no_grad():
        return inner(x)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_gradients, "must not run under torch.no_grad"),
        (lambda inner, x: SimpleNamespace(logits=inner(x).logits.detach()), "must not run under torch.no_grad"),
        (lambda inner, x: SimpleNamespace(logits=inner(x).logits * torch.nan), "expected finite logits"),
        (lambda inner, x: SimpleNamespace(logits=inner(x).logits + torch.inf), "expected finite logits"),
        (lambda inner, x: SimpleNamespace(logits=inner(x).logits[:, :0]), r"got logits of shape \[3, 0\]"),
        (lambda inner, x: SimpleNamespace(logits=inner(x).logits[None]), r"got logits of shape \[1, 3, 3\]"),
        (lambda inner, x: SimpleNamespace(logits=inner(x).logits[:1]), r"each of the 3 examples, got .* \[1, 3\]"),
        (lambda inner, x: inner(x).logits, "got a Tensor"),
    ],
    ids=["no_grad", "detached", "nan", "infinite", "no class", "token axis", "one row", "bare tensor"],
)
def test_a_model_without_a_fisher_is_refused(spoil, message):
    with pytest.raises(FisherError, match=message):
        diagonal_fisher(Wrapped(spoil), cases.batches_for("softmax-3", 3))


@pytest.mark.parametrize(
    ("batches", "labels", "message"),
    [
        ([], "exact", "expected at least one example, got none"),
        ([{"x": torch.zeros(2, 5)}], "empirical", 'expected "labels" in every batch'),
        ([{"x": torch.zeros(2, 5), "labels": torch.tensor([0])}], "empirical", "expected 2, one per example, got 1"),
        ([{"x": torch.zeros(1, 5), "labels": torch.tensor([3])}], "empirical", "expected 0 to 2, got 3"),
        ([{"x": torch.zeros(1, 5), "labels": torch.tensor([-1])}], "empirical", "expected 0 to 2, got -1"),
    ],
)
def test_batches_without_a_fisher_are_refused(batches, labels, message):
    with pytest.raises(FisherError, match=message):
        diagonal_fisher(cases.model_case("softmax-3"), batches, labels)


def test_an_unknown_kind_of_labels_offers_the_nearest():
    with pytest.raises(RecipeError, match=r'Did you mean "sampled"'):
        diagonal_fisher(cases.model_case("softmax-3"), [], "sample")


def test_a_model_without_parameters_is_refused():
    with pytest.raises(MergingError, match=r"no parameters"):
        diagonal_fisher(cases.Classifier(head=nn.Identity()), cases.batches_for("softmax-3", 3))


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_damaged_fisher_file_is_refused(tmp_path, content):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(FisherError, match=r'"damaged.safetensors" cannot be read'):
        Fisher.load(path)


@pytest.mark.parametrize("about", ["{}", "[]", '{"examples": null, "labels": "exact", "seed": 0}', "text"])
def test_a_fisher_file_with_other_metadata_is_refused(tmp_path, about):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"w": torch.zeros(2)}, path, metadata={"fisher": about})
    with pytest.raises(FisherError, match=r'"other.safetensors" cannot be read'):
        Fisher.load(path)
