"""K-FAC merging, RegMean and the whole Fisher: the theorems that tie them together."""

import os
import subprocess
import sys

import pytest
import torch

from merging.errors import FisherError, RecipeError
from merging.rules import kronecker
from merging.rules.full import full
from merging.rules.kronecker import Pair, conditioned, kfac, regmean

M, L, OUT, IN = 3, 2, 4, 5


def positive(*shape, generator):
    """Random factors of full rank."""
    root = torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64)
    return root @ root.mT


@pytest.fixture
def layers():
    """Values, shares, and factors of three models and two layers."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(M, L, OUT, IN, generator=generator, dtype=torch.float64)
    shares = torch.rand(M, L, generator=generator, dtype=torch.float64) + 0.1
    inputs, outputs = positive(M, L, IN, generator=generator), positive(M, L, OUT, generator=generator)
    return values, shares, conditioned(inputs, damping=0.1, shrinkage=0.5), conditioned(outputs, damping=0.1)


def dense(values, shares, inputs, outputs):
    """(Σ w A ⊗ G)⁻¹ Σ w (A ⊗ G) vec W, with the Kronecker products written out; vec stacks columns."""
    found = []
    for layer in range(values.shape[1]):
        whole = [torch.kron(a, g) for a, g in zip(inputs[:, layer], outputs[:, layer], strict=True)]
        vectors = [value.T.reshape(-1) for value in values[:, layer]]
        total = sum(w * one for w, one in zip(shares[:, layer], whole, strict=True))
        right = sum(w * one @ vec for w, one, vec in zip(shares[:, layer], whole, vectors, strict=True))
        found.append(torch.linalg.solve(total, right).reshape(IN, OUT).T)
    return torch.stack(found)


@pytest.mark.parametrize("models", [2, 3])
def test_a_dense_solve_of_the_kronecker_products_agrees(layers, models):
    own = [part[:models] for part in layers]
    torch.testing.assert_close(kfac(*own), dense(*own), rtol=1e-8, atol=1e-8)


def test_the_eigendecomposition_and_conjugate_gradients_agree(layers):
    """A third model that is the second one, with half of its share each, changes nothing but the way of solving."""
    values, shares, inputs, outputs = (part[:2] for part in layers)
    thrice = [torch.cat([part, part[1:]]) for part in (values, inputs, outputs)]
    halved = torch.cat([shares[:1], shares[1:] / 2, shares[1:] / 2])
    torch.testing.assert_close(
        kfac(values, shares, inputs, outputs), kfac(thrice[0], halved, *thrice[1:]), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("models", [2, 3])
def test_with_outputs_that_count_alike_it_is_regmean(layers, models):
    values, shares, inputs, _ = (part[:models] for part in layers)
    alike = torch.eye(OUT, dtype=torch.float64).expand(models, L, OUT, OUT)
    torch.testing.assert_close(kfac(values, shares, inputs, alike), regmean(values, shares, inputs), rtol=0, atol=1e-8)


@pytest.mark.parametrize("models", [2, 3])
def test_with_factors_that_are_equal_it_is_the_mean(layers, models):
    """Also where they are not the identity."""
    values, shares, inputs, outputs = (part[:models] for part in layers)
    mean = (shares / shares.sum(0))[..., None, None].mul(values).sum(0)
    for a, g in ((inputs, outputs), (inputs * 0 + torch.eye(IN), outputs * 0 + torch.eye(OUT))):
        equal_a, equal_g = a[:1].expand_as(a), g[:1].expand_as(g)
        torch.testing.assert_close(kfac(values, shares, equal_a, equal_g), mean, rtol=0, atol=1e-8)
        torch.testing.assert_close(regmean(values, shares, equal_a), mean, rtol=0, atol=1e-8)


@pytest.mark.parametrize("models", [2, 3])
def test_identical_models_and_a_model_alone_merge_to_themselves(layers, models):
    values, shares, inputs, outputs = (part[:models] for part in layers)
    same = values[:1].expand_as(values)
    torch.testing.assert_close(kfac(same, shares, inputs, outputs), values[0], rtol=0, atol=1e-8)
    alone = torch.zeros_like(shares)
    alone[1] = 0.3
    assert torch.equal(kfac(values, alone, inputs, outputs), values[1])
    assert torch.equal(regmean(values, alone, inputs), values[1])


@pytest.mark.parametrize("models", [2, 3])
def test_a_common_factor_of_shares_or_factors_cancels(layers, models):
    values, shares, inputs, outputs = (part[:models] for part in layers)
    found = kfac(values, shares, inputs, outputs)
    for factor in (1e-30, 1e30):
        torch.testing.assert_close(kfac(values, shares * factor, inputs, outputs), found, rtol=0, atol=1e-8)


@pytest.mark.parametrize("models", [2, 3])
def test_layers_that_no_model_has_a_share_in_are_the_mean(layers, models):
    values, shares, inputs, outputs = (part[:models].clone() for part in layers)
    before = kfac(values, shares, inputs, outputs)
    shares[:, 0] = 0
    found = kfac(values, shares, inputs, outputs)
    torch.testing.assert_close(found[0], values[:, 0].mean(0))
    torch.testing.assert_close(found[1], before[1], rtol=0, atol=1e-8)
    torch.testing.assert_close(regmean(values, shares, inputs)[0], values[:, 0].mean(0))


@pytest.mark.parametrize("damping", [0.0, 1e-3])
def test_factors_without_full_rank_give_finite_numbers(layers, damping):
    """One example and no damping: every factor has rank 1."""
    generator = torch.Generator().manual_seed(1)
    rank_one = [torch.randn(2, L, size, 1, generator=generator).double() for size in (IN, OUT)]
    inputs, outputs = (conditioned(one @ one.mT, damping=damping) for one in rank_one)
    assert kfac(layers[0][:2], layers[1][:2], inputs, outputs).isfinite().all()
    assert regmean(layers[0][:2], layers[1][:2], inputs).isfinite().all()


def test_conjugate_gradients_that_do_not_converge_are_told_about(monkeypatch):
    monkeypatch.setattr(kronecker, "MOST_STEPS", 3)
    generator = torch.Generator().manual_seed(2)
    size = 40
    values = torch.randn(3, 1, size, size, generator=generator).double()
    roots = [torch.randn(3, 1, size, 3, generator=generator).double() for _ in range(2)]
    inputs, outputs = (conditioned(root @ root.mT, damping=0.0) for root in roots)
    with pytest.raises(RecipeError, match=r"expected a residual of 1e-10 within 3 steps.*Raise the damping"):
        kfac(values, torch.ones(3, 1).double(), inputs, outputs)


def test_conditioning_shrinks_off_diagonals_and_adds_a_share_of_the_mean_eigenvalue():
    factor = torch.tensor([[3.0, 2.0], [2.0, 1.0]]).double()
    found = conditioned(factor, damping=0.2, shrinkage=0.5)
    torch.testing.assert_close(found, torch.tensor([[0.75 + 0.1, 0.25], [0.25, 0.25 + 0.1]]).double())
    nothing = conditioned(torch.zeros(2, 2).double(), damping=0.2)
    torch.testing.assert_close(nothing, 0.1 * torch.eye(2).double())


def test_a_pair_that_was_factored_once_serves_every_weight(layers):
    values, shares, inputs, outputs = (part[:2] for part in layers)
    pair = Pair.of(values, inputs, outputs)
    for first in (0.1, 0.5, 0.9):
        weights = shares.new_tensor([[first], [1 - first]]).expand(2, L)
        torch.testing.assert_close(pair.merged(weights), dense(values, weights, inputs, outputs), rtol=1e-8, atol=1e-8)


def test_the_whole_fisher_of_two_linear_models_is_pooled_least_squares():
    """T2: θ₁ = (1, 2), θ₂ = (3, 0), sums of Fishers XᵀX: (1.25, 1.25)."""
    x1, x2 = torch.tensor([[1, 0], [1, 0], [0, 1]]).double(), torch.tensor([[1, 1], [0, 1]]).double()
    values, halves = torch.tensor([[1, 2], [3, 0]]).double(), torch.tensor([0.5, 0.5]).double()
    found = full(values, halves, torch.stack([x1.T @ x1, x2.T @ x2]))
    torch.testing.assert_close(found, torch.tensor([1.25, 1.25]).double())


def test_the_whole_fisher_takes_the_mean_where_no_data_speak():
    values, halves = torch.tensor([[1.0, 2.0], [3.0, 0.0]]).double(), torch.tensor([0.5, 0.5]).double()
    only_first = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[3.0, 0.0], [0.0, 0.0]]]).double()
    torch.testing.assert_close(full(values, halves, only_first), torch.tensor([2.5, 1.0]).double())
    torch.testing.assert_close(full(values, halves, 0 * only_first), torch.tensor([2.0, 1.0]).double())


def test_a_whole_fisher_of_a_large_model_is_refused():
    with pytest.raises(FisherError, match="at most 4096 parameters, got 5000"):
        full(torch.zeros(2, 5000), torch.ones(2), torch.zeros(2, 1, 1))


WIDE = """
import torch
from merging.rules.kronecker import conditioned, kfac, regmean

generator = torch.Generator().manual_seed(0)


def positive(*shape):
    root = torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64)
    return root @ root.mT


for models in (2, 3):
    values = torch.randn(models, 3, 64, 200, generator=generator, dtype=torch.float64)
    shares = torch.rand(models, 3, generator=generator, dtype=torch.float64) + 0.1
    inputs = conditioned(positive(models, 3, 200), damping=0.1)
    outputs = conditioned(positive(models, 3, 64), damping=0.1)
    for rule, own in ((regmean, (inputs,)), (kfac, (inputs, outputs))):
        found = []
        for threads in (2, 1):
            torch.set_num_threads(threads)
            found.append(rule(values, shares, *own))
        torch.testing.assert_close(*found, rtol=1e-8, atol=1e-8)
print("equal")
"""


def test_wide_layers_merge_alike_with_one_thread_and_with_several():
    """In a process of its own, so that a linear algebra library that hangs is seen (pytorch/pytorch#142815)."""
    run = subprocess.run(
        [sys.executable, "-c", WIDE],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.stdout.strip() == "equal", run.stderr
    assert "ERROR" not in run.stdout + run.stderr
