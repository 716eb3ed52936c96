"""The vectors that are sent backward from the logits."""

import decimal

import numpy
import pytest
import torch

from merging.errors import FisherError
from merging.gradients.factors import Draws, causal_columns, columns_for, exact_columns, resolve_labels


def _columns(logits, labels, *, likelihood="softmax", targets=None, seed=0, first=0):
    """All columns of a batch of logits (N, K), as (N, C, K)."""
    draws = Draws(seed, range(first, first + len(logits)))
    columns = columns_for(logits, labels, draws=draws, likelihood=likelihood, targets=targets)
    return torch.stack([columns.column(c) for c in range(columns.count)], 1)


def _covariance(probabilities):
    return torch.diag(probabilities) - torch.outer(probabilities, probabilities)


def _logits(examples, classes, scale=1.0, seed=0):
    return scale * torch.randn(examples, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("classes", [2, 3, 10, 50])
def test_exact_columns_factor_the_covariance_of_the_label(classes):
    logits = _logits(20, classes, 3)
    columns = _columns(logits, "exact")
    assert columns.shape == (20, classes - 1, classes)
    for column, row in zip(columns, logits, strict=True):
        torch.testing.assert_close(column.T @ column, _covariance(row.softmax(0)), atol=1e-15, rtol=0)


@pytest.mark.parametrize("labels", ["exact", "rademacher", "sampled", "empirical"])
def test_columns_sum_to_zero_so_that_a_constant_added_to_all_logits_has_no_gradient(labels):
    columns = _columns(_logits(7, 4), labels, targets=torch.ones(7, dtype=torch.long))
    assert columns.sum(2).abs().max() < 1e-15


def test_two_classes_need_one_column():
    logits = torch.tensor([[1.2, -0.7]])
    columns = _columns(logits, "exact")
    p = logits[0].double().softmax(0)
    assert columns.shape == (1, 1, 2)
    expected = (p[0] * p[1]).sqrt() * torch.tensor([1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(columns[0, 0] * columns[0, 0, 0].sign(), expected)


@pytest.mark.parametrize("scale", [1, 10, 30, 100])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_exact_columns_stay_exact_for_confident_logits(classes, scale):
    """1 − p is down to 1e-40 here: every entry of LᵀL keeps its relative precision, against 80 decimal digits."""
    logits = scale * torch.linspace(1, 0, classes, dtype=torch.float64) ** 2
    (columns,) = _columns(logits[None], "exact")
    with decimal.localcontext(prec=80):
        weights = [decimal.Decimal(float(z)).exp() for z in logits]
        p = [w / sum(weights) for w in weights]
        exact = [[float(p[i] * ((i == j) - p[j])) for j in range(classes)] for i in range(classes)]
    torch.testing.assert_close(columns.T @ columns, torch.tensor(exact, dtype=torch.float64), rtol=1e-12, atol=0)


def test_a_certain_model_has_no_information():
    columns = _columns(torch.tensor([[0.0, 2000.0, -5.0]]), "exact")
    assert torch.equal(columns, torch.zeros(1, 2, 3, dtype=torch.float64))


def test_exact_columns_of_equal_probabilities_are_the_closed_form():
    columns = exact_columns(torch.full((1, 4), 0.25, dtype=torch.float64))
    stacked = torch.cat([columns.column(c) for c in range(3)])
    torch.testing.assert_close(stacked.T @ stacked, (torch.eye(4) - 0.25).double() / 4)


def test_sampled_labels_follow_the_models_probabilities():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64))
    drawn = _columns(logits.expand(4000, 4), "sampled", seed=3)[:, 0].argmax(1)
    counts, expected = numpy.bincount(drawn, minlength=4), 4000 * logits.exp().numpy()
    # Chi-squared with 3 degrees of freedom exceeds 16.3 once in a thousand seeds.
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


@pytest.mark.parametrize(
    ("labels", "likelihood"),
    [
        ("rademacher", "softmax"),
        ("sampled", "softmax"),
        ("rademacher", "bernoulli"),
        ("sampled", "bernoulli"),
        ("rademacher", "gaussian"),
        ("sampled", "gaussian"),
    ],
)
def test_one_random_column_is_right_on_average(labels, likelihood):
    """E[l lᵀ] over 20,000 draws is what the exact columns give, within five standard errors of each entry."""
    logits = torch.tensor([0.8, -0.3, 1.5], dtype=torch.float64)
    (exact,) = _columns(logits[None], "exact", likelihood=likelihood)
    found = _columns(logits.expand(20_000, 3), labels, likelihood=likelihood, seed=1)[:, 0]
    products = found[:, :, None] * found[:, None, :]
    error = (products.mean(0) - exact.T @ exact).abs()
    assert (error <= 5 * products.std(0) / 20_000**0.5 + 1e-12).all()


def test_several_labels_have_independent_variances():
    logits = torch.tensor([[0.4, -2.0, 40.0]], dtype=torch.float64)
    (columns,) = _columns(logits, "exact", likelihood="bernoulli")
    p = logits[0].sigmoid()
    expected = p * torch.tensor([1 - p[0], 1 - p[1], torch.tensor(-40.0, dtype=torch.float64).exp()])
    torch.testing.assert_close(columns.T @ columns, torch.diag(expected), rtol=1e-12, atol=0)


def test_a_regression_has_variance_one():
    (columns,) = _columns(torch.tensor([[3.0, -1.0]]), "exact", likelihood="gaussian")
    assert torch.equal(columns.T @ columns, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("likelihood", "log_density", "targets"),
    [
        ("softmax", lambda z, y: z.log_softmax(0)[y], torch.tensor([2])),
        ("gaussian", lambda z, y: -0.5 * (y - z).square().sum(), torch.tensor([[0.3, 2.0, -1.0]])),
        ("bernoulli", lambda z, y: (y * z - torch.log1p(z.exp())).sum(), torch.tensor([[1.0, 0.0, 1.0]])),
    ],
)
def test_an_empirical_column_is_the_score_of_the_datas_label(likelihood, log_density, targets):
    logits = torch.tensor([0.1, 0.9, -0.4], dtype=torch.float64, requires_grad=True)
    (score,) = torch.autograd.grad(log_density(logits, targets[0]), logits)
    found = _columns(logits[None], "empirical", likelihood=likelihood, targets=targets)
    torch.testing.assert_close(found[0, 0], score)


@pytest.mark.parametrize("labels", ["rademacher", "sampled"])
def test_random_numbers_belong_to_the_examples_place_and_not_to_its_batch(labels):
    logits = _logits(12, 30)
    whole = _columns(logits, labels, seed=4)
    parts = [_columns(part, labels, seed=4, first=first) for first, part in [(0, logits[:5]), (5, logits[5:])]]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, _columns(logits, labels, seed=5))
    assert len({tuple(row) for row in (whole / whole.abs())[:, 0].tolist()}) > 1, "not one draw for all"


@pytest.mark.parametrize("labels", ["rademacher", "sampled", "empirical"])
def test_a_language_models_columns_are_those_of_its_positions(labels):
    """Position by position, nothing where nothing follows, and the same whatever the padding on either side."""
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[1, 2, 3, 4, 5], [6, 1, 2, 0, 0]])
    counts = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], dtype=torch.bool)
    draws = Draws(2, range(2))
    found = causal_columns(logits, labels, draws=draws, counts=counts, tokens=tokens).column(0)
    assert not found[~counts].any()
    assert found[counts].abs().amax(1).min() > 0
    assert found.sum(2).abs().max() < 1e-6
    left = [torch.nn.functional.pad(tensor, pad) for tensor, pad in [(logits, (0, 0, 2, 0)), (tokens, (2, 0))]]
    counts = torch.nn.functional.pad(counts, (2, 0))
    padded = causal_columns(left[0], labels, draws=draws, counts=counts, tokens=left[1]).column(0)
    torch.testing.assert_close(padded[:, 2:], found)
    if labels == "empirical":
        score = -logits[0, 1].softmax(0)
        score[3] += 1
        torch.testing.assert_close(found[0, 1], score)


def test_the_exact_fisher_of_a_language_model_is_refused():
    with pytest.raises(FisherError, match="expected labels of sampled, rademacher or empirical, got exact"):
        causal_columns(torch.zeros(1, 2, 3), "exact", draws=Draws(0, [0]), counts=torch.ones(1, 2))


def test_auto_is_exact_where_that_is_cheap():
    assert [resolve_labels("auto", classes) for classes in (1, 2, 16, 17, 1000)] == ["exact"] * 3 + ["rademacher"] * 2
    assert resolve_labels("auto", 50257, "causal") == "sampled"
    assert resolve_labels("empirical", 50257, "causal") == "empirical"
