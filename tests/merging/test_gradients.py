"""The vectors that are sent backward from the logits."""

import decimal

import numpy
import pytest
import torch

from merging.errors import FisherError
from merging.gradients import columns_for, squared_gradients
from merging.gradients.factors import exact_columns
from tests import cases

GENERATOR = numpy.random.default_rng(0)


def _covariance(probabilities):
    return torch.diag(probabilities) - torch.outer(probabilities, probabilities)


@pytest.mark.parametrize("classes", [2, 3, 10, 50])
def test_exact_columns_factor_the_covariance_of_the_label(classes):
    for seed in range(20):
        logits = 3 * torch.randn(classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        columns = columns_for(logits, "exact", generator=GENERATOR)
        assert columns.shape == (classes - 1, classes)
        torch.testing.assert_close(columns.T @ columns, _covariance(logits.softmax(0)), atol=1e-15, rtol=0)


def test_columns_sum_to_zero_so_that_a_constant_added_to_all_logits_has_no_gradient():
    for labels in ("exact", "sampled", "empirical"):
        logits = torch.tensor([0.3, -1.0, 2.0, 0.5])
        columns = columns_for(logits, labels, generator=GENERATOR, target=1)
        assert columns.sum(1).abs().max() < 1e-15


def test_two_classes_need_one_column():
    columns = columns_for(torch.tensor([1.2, -0.7]), "exact", generator=GENERATOR)
    p = torch.tensor([1.2, -0.7], dtype=torch.float64).softmax(0)
    assert columns.shape == (1, 2)
    expected = (p[0] * p[1]).sqrt() * torch.tensor([1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(columns[0] * columns[0, 0].sign(), expected)


@pytest.mark.parametrize("scale", [1, 10, 30, 100])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_exact_columns_stay_exact_for_confident_logits(classes, scale):
    """1 − p is down to 1e-40 here: every entry of LᵀL keeps its relative precision, against 80 decimal digits."""
    logits = scale * torch.linspace(1, 0, classes, dtype=torch.float64) ** 2
    columns = columns_for(logits, "exact", generator=GENERATOR)
    product = columns.T @ columns
    with decimal.localcontext(prec=80):
        weights = [decimal.Decimal(float(z)).exp() for z in logits]
        p = [w / sum(weights) for w in weights]
        exact = [[float(p[i] * ((i == j) - p[j])) for j in range(classes)] for i in range(classes)]
    torch.testing.assert_close(product, torch.tensor(exact, dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_certain_model_has_no_information():
    columns = columns_for(torch.tensor([0.0, 2000.0, -5.0]), "exact", generator=GENERATOR)
    assert torch.equal(columns, torch.zeros(2, 3, dtype=torch.float64))


def test_exact_columns_of_equal_probabilities_are_the_closed_form():
    columns = exact_columns(torch.full((4,), 0.25, dtype=torch.float64))
    torch.testing.assert_close(columns.T @ columns, (torch.eye(4) - 0.25).double() / 4)


def test_sampled_labels_follow_the_models_probabilities():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64))
    generator = numpy.random.default_rng(3)
    draws = [int(columns_for(logits, "sampled", generator=generator)[0].argmax()) for _ in range(4000)]
    counts = numpy.bincount(draws, minlength=4)
    expected = 4000 * logits.exp().numpy()
    # Chi-squared with 3 degrees of freedom exceeds 16.3 once in a thousand seeds.
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_an_empirical_column_is_the_score_of_the_datas_label():
    logits = torch.tensor([0.1, 0.9, -0.4], dtype=torch.float64, requires_grad=True)
    (score,) = torch.autograd.grad(logits.log_softmax(0)[2], logits)
    torch.testing.assert_close(columns_for(logits, "empirical", generator=GENERATOR, target=2)[0], score)


def test_squared_gradients_add_to_what_is_there_and_count_the_examples():
    model = cases.model_case("softmax-3")
    (batch,) = cases.batches_for("softmax-3", 5, examples=5)
    once = [torch.zeros_like(p) for p in model.parameters()]
    twice = [torch.zeros_like(p) for p in model.parameters()]

    def columns(logits, index):
        return columns_for(logits, "exact", generator=GENERATOR)

    assert squared_gradients(model, batch, columns, once) == 5
    for _ in range(2):
        squared_gradients(model, batch, columns, twice)
    for one, two in zip(once, twice, strict=True):
        torch.testing.assert_close(two, 2 * one)
        assert one.max() > 0


@pytest.mark.parametrize(
    "batch",
    [{}, {"x": torch.zeros(2, 5), "y": torch.zeros(3, 5)}, {"x": "text"}, {"x": torch.tensor(1.0)}],
    ids=["empty", "two lengths", "no tensor", "no axis"],
)
def test_a_batch_without_one_length_is_refused(batch):
    with pytest.raises(FisherError, match=r"expected tensors of one length .*, got "):
        squared_gradients(cases.model_case("softmax-3"), batch, lambda logits, index: logits, [])
