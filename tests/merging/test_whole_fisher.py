"""The whole Fisher matrix: its diagonal, its blocks, and merging by it."""

import pytest
import torch

from merging import diagonal_fisher
from merging.errors import FisherError, RecipeError, StructureError
from merging.rules.kronecker import kfac
from merging.whole_fisher import FullFisher, full_fisher, merge_full
from tests import cases


@pytest.mark.parametrize("name", ["softmax-2", "softmax-3", "tied-3"])
def test_its_diagonal_is_the_diagonal_fisher(name):
    model, batches = cases.model_case(name).double(), cases.batches_for(name, 5)
    whole, diagonal = full_fisher(model, batches), diagonal_fisher(model, batches, "exact")
    flat = torch.cat([diagonal[own].reshape(-1) for own in whole.names])
    torch.testing.assert_close(whole.matrix.diagonal(), flat, rtol=1e-10, atol=1e-15)
    assert torch.equal(whole.matrix, whole.matrix.T)
    assert float(torch.linalg.eigvalsh(whole.matrix).min()) > -1e-12


def test_of_one_example_a_linear_layers_is_the_kronecker_product_of_its_factors():
    """F = E[(g gᵀ) ⊗ (a aᵀ)] is G ⊗ A where one example is the whole mean: rows of W, then its inputs."""
    model, batches = cases.model_case("softmax-3").double(), cases.batches_for("softmax-3", 1)[:1]
    ((weight, own),) = diagonal_fisher(model, batches, "exact", factors=True).factors.items()
    size = dict(model.named_parameters())[weight].shape[1]
    whole = full_fisher(model, batches, [weight])
    torch.testing.assert_close(whole.matrix, torch.kron(own.outputs, own.inputs[:size, :size]))


def test_kfac_with_undamped_factors_of_one_example_each_agrees_where_both_speak():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 1, 3, 4, generator=generator).double()
    roots = [torch.randn(2, 1, size, size, generator=generator).double() for size in (4, 3)]
    inputs, outputs = (root @ root.mT for root in roots)
    shares = torch.tensor([[0.3], [0.7]]).double()
    matrices = [FullFisher(torch.kron(g[0], a[0]), ("w",), 1) for a, g in zip(inputs, outputs, strict=True)]
    found = merge_full([{"w": one[0]} for one in values], matrices, [0.3, 0.7])["w"]
    torch.testing.assert_close(kfac(values, shares, inputs, outputs)[0], found, rtol=1e-7, atol=1e-7)


def test_what_is_too_large_or_does_not_fit_is_refused():
    with pytest.raises(FisherError, match="at most 4096 parameters"):
        full_fisher(cases.model_case("bert-2"), cases.batches_for("bert-2", 4))
    with pytest.raises(FisherError, match="expected at least one example"):
        full_fisher(cases.model_case("softmax-2"), [])
    one = FullFisher(torch.eye(2).double(), ("w",), 1)
    with pytest.raises(FisherError, match="do not fit"):
        merge_full([{"w": torch.zeros(2)}] * 2, [one])
    for models, told in [
        ([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}], "do not fit their Fishers"),
        ([{"w": torch.zeros(2)}, {"v": torch.zeros(2)}], "do not fit their Fishers"),
        ([{"w": torch.zeros(2)}, {"w": torch.tensor([1.0, float("nan")])}], "in model 2"),
    ]:
        with pytest.raises(StructureError, match=told):
            merge_full(models, [one] * 2)
    for damping in (-1.0, float("nan")):
        with pytest.raises(RecipeError, match="damping"):
            merge_full([{"w": torch.zeros(2)}] * 2, [one] * 2, damping=damping)
    with pytest.raises(FisherError, match="do not fit"):
        merge_full([{"w": torch.zeros(2)}] * 2, [])
    for names in ([], ["nobody"]):
        with pytest.raises(FisherError, match="expected parameters of the model"):
            full_fisher(cases.model_case("softmax-2"), cases.batches_for("softmax-2", 2), names)
