"""Fishers that can be written down, and how the three kinds of labels relate."""

import math

import pytest
import torch

from merging import diagonal_fisher
from tests import cases

# One of three examples together, and one of each alone.
CHECK = 4


def _regression(weight, x, *, bias=None):
    """The Fisher of softmax regression z = Wx + b with these weights, in float64."""
    weight = torch.tensor(weight, dtype=torch.float64)
    model = cases.softmax_regression(len(weight), weight.shape[1]).double()
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.zero_()
    return diagonal_fisher(model, [{"x": torch.tensor(x, dtype=torch.float64)}])


@pytest.mark.parametrize(
    ("weight", "x", "expected"),
    [
        ([[0, 0], [0, 0]], [[1, 2], [3, 0]], [[1.25, 0.5]] * 2),
        ([[math.log(9), 0], [0, 0]], [[1, 2]], [[0.09, 0.36]] * 2),
        ([[math.log(2), 0], [0, 0], [0, 0]], [[1, 1]], [[0.25] * 2, [0.1875] * 2, [0.1875] * 2]),
        ([[0, 0]] * 5, [[1, 2], [3, 0]], [[0.16 * 5, 0.16 * 2]] * 5),
        ([[math.log(3)], [0]], [[1], [2]], [[(0.1875 + 0.09) / 2 + 0.09 * 1.5]] * 2),
    ],
    ids=["no information", "two classes", "three classes", "K classes", "logistic"],
)
def test_softmax_regression_has_its_closed_form(weight, x, expected):
    """F[k, j] = mean p_k (1 − p_k) x_j²."""
    found = _regression(weight, x)["head.weight"]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_the_bias_has_the_variance_of_its_class():
    found = _regression([[math.log(9), 0], [0, 0]], [[1, 2]])["head.bias"]
    torch.testing.assert_close(found, torch.tensor([0.09, 0.09], dtype=torch.float64))


def test_a_confident_model_has_a_small_fisher_and_not_zero():
    """p(1 − p) = e^-30 to 13 digits, which float32 probabilities round to 0."""
    model = cases.softmax_regression(2, 1)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[30.0], [0.0]]))
        model.head.bias.zero_()
    fisher = diagonal_fisher(model, [{"x": torch.ones(1, 1)}])
    expected = math.exp(-30) / (1 + math.exp(-30)) ** 2
    torch.testing.assert_close(fisher["head.weight"], torch.full((2, 1), expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["vit-2", "bert-2", "gpt2-2", "softmax-2"])
def test_two_classes_take_exactly_one_backward_pass_per_batch(name, monkeypatch):
    passes = _counted_passes(monkeypatch)
    diagonal_fisher(cases.model_case(name), cases.batches_for(name, 4))
    # The bare parameters of a ViT's embeddings are found by differentiating that module alone once more.
    alone = 5 if name == "vit-2" else 0
    assert len(passes) == 4 + CHECK + alone


@pytest.mark.parametrize("labels", ["rademacher", "sampled", "empirical"])
def test_one_label_takes_one_backward_pass_per_batch(labels, monkeypatch):
    passes = _counted_passes(monkeypatch)
    batches = [{**batch, "labels": torch.zeros(len(batch["x"]))} for batch in cases.batches_for("softmax-10", 4)]
    diagonal_fisher(cases.model_case("softmax-10"), batches, labels)
    assert len(passes) == 4 + CHECK


def _counted_passes(monkeypatch):
    """Counts calls of the engine itself, by whatever function it is reached."""
    passes, engine = [], torch.autograd.graph._engine_run_backward

    def counting(*arguments, **named):
        passes.append(1)
        return engine(*arguments, **named)

    monkeypatch.setattr("torch.autograd._engine_run_backward", counting)
    monkeypatch.setattr("torch.autograd.graph._engine_run_backward", counting)
    return passes


def test_sampled_labels_converge_to_the_exact_fisher_like_one_over_root_n():
    """Sixteen times as many draws, a quarter of the error."""
    model = cases.model_case("softmax-3").double()
    rows = torch.cat([batch["x"] for batch in cases.batches_for("softmax-3", 16)]).double()
    exact = diagonal_fisher(model, [{"x": rows}])

    def error(repeats, seed):
        found = diagonal_fisher(model, [{"x": rows.repeat(repeats, 1)}], "sampled", seed=seed)
        return float(sum((found[name] - exact[name]).square().sum() for name in exact))

    few = sum(error(2, seed) for seed in range(24)) / 24
    many = sum(error(32, seed) for seed in range(24)) / 24
    assert 2.5 < math.sqrt(few / many) < 6


def test_sampled_labels_do_not_depend_on_batch_size_for_a_seed():
    model = cases.model_case("vit-10")
    found = [diagonal_fisher(model, cases.batches_for("vit-10", size), "sampled", seed=7) for size in (1, 3, 16)]
    other = diagonal_fisher(model, cases.batches_for("vit-10", 3), "sampled", seed=8)
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-5, atol=1e-9)
        torch.testing.assert_close(found[2][name], found[0][name], rtol=1e-5, atol=1e-9)
    assert not torch.allclose(other["classifier.weight"], found[0]["classifier.weight"], rtol=0.01)


def test_the_empirical_fisher_vanishes_on_fitted_data_and_the_exact_one_does_not_follow_the_labels():
    """With z = c·(x, −x) and labels sign(x), p(label) → 1: score² = (1 − p)², while E = p(1 − p)."""
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    model = cases.softmax_regression(2, 1).double()
    right, wrong = torch.tensor([0, 1]), torch.tensor([1, 0])
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[5.0], [-5.0]]))
        model.head.bias.zero_()
    p = 1 / (1 + math.exp(-10))
    for labels, target, expected in (
        ("empirical", right, (1 - p) ** 2),
        ("empirical", wrong, p**2),
        ("exact", wrong, p * (1 - p)),
    ):
        found = diagonal_fisher(model, [{"x": x, "labels": target}], labels)["head.weight"]
        torch.testing.assert_close(found, torch.full((2, 1), expected, dtype=torch.float64), rtol=1e-9, atol=0)
