"""Costs: operations against a count by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from merging.diagnostics import measure_costs
from merging.diagnostics.costs import counted, fastest, fisher_flops, merge_flops, training_step
from merging.errors import Cancelled

FEATURES, CLASSES, ROWS = 7, 2, 8
PRODUCT = 2 * FEATURES * CLASSES  # of one row with the weight: a multiply and an add for each entry


class Linear(nn.Module):
    """Softmax regression, whose every pass is one matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(FEATURES, CLASSES, bias=False)

    def forward(self, x: torch.Tensor) -> SimpleNamespace:
        """Logits (N, K)."""
        return SimpleNamespace(logits=self.head(x))


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"x": torch.randn(ROWS, FEATURES, generator=generator), "labels": torch.zeros(ROWS, dtype=torch.long)}


def test_a_forward_pass_of_a_linear_model_is_two_operations_for_each_weight_and_row(batch):
    model = Linear()
    assert counted(lambda: model(batch["x"])) == ROWS * PRODUCT


def test_a_training_step_adds_one_product_for_the_weight(batch):
    # The inputs need no gradient; of a deeper model each further layer adds one more.
    model = Linear()
    before = model.head.weight.clone()
    assert counted(lambda: training_step(model, batch)) == 2 * ROWS * PRODUCT
    torch.testing.assert_close(model.head.weight, before)
    assert model.head.weight.grad is None


def test_a_fisher_costs_a_multiple_of_the_forward_pass_that_does_not_depend_on_the_batch(batch):
    model = Linear()
    small = {name: value[:5] for name, value in batch.items()}
    # Forward, and (δ²)ᵀ(x²), which is a product of the same size.
    assert fisher_flops(model, batch, "exact") == fisher_flops(model, small, "exact") == 2 * PRODUCT


def test_products_that_are_added_in_place_and_attention_are_counted():
    total, left, right = torch.zeros(3, 5), torch.ones(3, 4), torch.ones(4, 5)
    assert counted(lambda: total.addmm_(left, right)) == 2 * 3 * 4 * 5
    tokens = torch.ones(1, 2, 6, 4)  # heads, tokens, width: scores and their product with the values
    attention = nn.functional.scaled_dot_product_attention
    assert counted(lambda: attention(tokens, tokens, tokens)) == 2 * (2 * 6 * 6 * 4 * 2)


@pytest.mark.parametrize(
    ("rule", "models", "each"), [("fisher", 2, 7), ("fisher", 4, 15), ("isotropic", 2, 3), ("isotropic", 4, 7)]
)
def test_a_merge_costs_what_its_formula_says(rule, models, each):
    # Fisher, M = 2: λ₁F₁, λ₂F₂, two products with θ, two sums, one division.
    assert merge_flops(rule, models, 1000) == 1000 * each


def test_the_fastest_run_counts():
    assert 0 <= fastest(lambda: None) < 0.1


def test_the_costs_of_four_models_stand_in_their_order(four_result):
    costs = measure_costs(four_result.prepared, four_result.recipe, epochs=3)
    work = {cost.name: cost for cost in costs.work}
    assert list(work) == ["fine-tuning", "Fisher", "Fisher merge", "isotropic merge"]
    flops = [cost.flops for cost in costs.work]
    assert flops == sorted(flops, reverse=True)
    assert costs.rows == 4 * 600
    assert costs.fisher_examples == 4 * four_result.recipe.fisher.examples
    assert all(cost.seconds > 0 for cost in (*costs.work, *costs.each_input))
    merge, ensemble = costs.each_input
    assert ensemble.flops == pytest.approx(4 * merge.flops)
    # Forward and backward are three times a forward pass, less what the first layer need not hand back, and more where
    # attention computes its scores a second time on the way back.
    step = work["fine-tuning"].flops / (costs.rows * 3)
    assert 2.5 * merge.flops < step < 3.1 * merge.flops
    assert work["Fisher merge"].flops == 15 * sum(tensor.numel() for tensor in four_result.merged.values())


def test_measuring_can_be_stopped(four_result):
    def stop(fraction: float, text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        measure_costs(four_result.prepared, four_result.recipe, on_progress=stop)
