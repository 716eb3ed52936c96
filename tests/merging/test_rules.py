"""The rules as pure functions, and their closed forms."""

import math
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merging.rules import RULES, RuleSettings, fisher, isotropic, mixing_weights
from merging.rules.settings import DEFAULTS
from tests import cases


def double(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def test_every_rule_has_its_row_in_the_table_of_cases():
    assert set(RULES) == set(cases.RULES)


def test_every_rule_and_setting_is_in_the_readme_with_its_default():
    """A row `| `rule` | … | settings |` for each, and each setting with its default in brackets."""
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for name in RULES:
        assert name in rows, name
    for field in fields(RuleSettings):
        assert re.search(rf"`{field.name}`[^|`]*\({getattr(DEFAULTS, field.name):g}[),]", text), field.name


@pytest.mark.parametrize(
    ("fishers", "weights", "expected"),
    [
        ((1, 3), (0.5, 0.5), 2.5),
        ((1, 3), (0.75, 0.25), 2.0),
        ((1, 30), (0.5, 0.5), 91 / 31),
        ((1, 30), (0.5, 0.05), 2.5),
    ],
)
def test_two_scalars_merge_to_the_closed_form(fishers, weights, expected):
    """θ = (1, 3): 2.5; 2.0; 2.935484 with F₂ × 10; and 2.5 again with λ₂ × 0.1."""
    found = fisher(double(1, 3), double(*weights), double(*fishers), torch.zeros((), dtype=torch.float64))
    assert float(found) == pytest.approx(expected, rel=1e-15)


def test_linear_gaussian_models_merge_to_the_closed_forms_of_t2():
    """Sums of Fishers XᵀX: pooled least squares by the full matrix, what the rules give by its diagonal."""
    x1, theta1 = torch.tensor([[1, 0], [1, 0], [0, 1]]).double(), double(1, 2)
    x2, theta2 = torch.tensor([[1, 1], [0, 1]]).double(), double(3, 0)
    x, y = torch.cat([x1, x2]), torch.cat([x1 @ theta1, x2 @ theta2])

    def sse(theta):
        return float((x @ theta - y).square().sum())

    h1, h2 = x1.T @ x1, x2.T @ x2
    full = torch.linalg.solve(h1 + h2, h1 @ theta1 + h2 @ theta2)
    values, halves = torch.stack([theta1, theta2]), double(0.5, 0.5)
    diagonal = fisher(values, halves, torch.stack([h1.diag(), h2.diag()]), lambda: torch.zeros(2).double())
    plain = isotropic(values, halves)
    torch.testing.assert_close(full, double(1.25, 1.25))
    torch.testing.assert_close(diagonal, double(5 / 3, 2 / 3))
    torch.testing.assert_close(plain, double(2, 1))
    assert [sse(full), sse(diagonal), sse(plain)] == pytest.approx([2.5, 32 / 9, 4.0])


def test_a_coordinate_that_no_fisher_speaks_for_takes_the_fallback():
    found = fisher(
        torch.tensor([[1.0, 1.0], [3.0, 3.0]]),
        torch.tensor([0.5, 0.5]),
        torch.tensor([[0.0, 1.0], [0.0, 0.0]]),
        lambda: torch.tensor([42.0, 42.0]),
    )
    assert found.tolist() == [42.0, 1.0]


@given(st.lists(st.tuples(st.floats(0, 1e30), st.floats(0, 1)), min_size=2, max_size=5))
def test_shares_sum_to_one_or_all_are_zero(pairs):
    fishers, weights = (double(*column) for column in zip(*pairs, strict=True))
    shares = mixing_weights(fishers, weights)
    assert (shares >= 0).all()
    speaks = bool(((fishers > 0) & (weights > 0)).any())
    assert math.isclose(float(shares.sum()), 1.0, rel_tol=1e-12) if speaks else not shares.any()


@pytest.mark.parametrize("factor", [1e-300, 1e-30, 1e30, 1e300])
def test_shares_do_not_depend_on_a_common_factor(factor):
    fishers, weights = torch.rand(3, 4, dtype=torch.float64) + 0.1, double(0.2, 0.3, 0.5)
    torch.testing.assert_close(
        mixing_weights(fishers * factor, weights), mixing_weights(fishers, weights), rtol=1e-12, atol=0
    )


def test_a_model_with_weight_zero_has_no_share_whatever_its_fisher():
    shares = mixing_weights(double(1e300, 1e-300, 0), double(0.0, 1.0, 0.0))
    assert shares.tolist() == [0.0, 1.0, 0.0]
