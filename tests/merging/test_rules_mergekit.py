"""Published rules beside mergekit's, an independent implementation, on the same numbers in the same run."""

import pytest
import torch
from mergekit.merge_methods.base import TensorBatch, TensorGroup
from mergekit.merge_methods.generalized_task_arithmetic import ConsensusMethod, GeneralizedTaskArithmeticMerge
from mergekit.merge_methods.linear import linear_merge
from mergekit.merge_methods.slerp import slerp
from mergekit.sparsify import SparsificationMethod

from merging import merge_parameters
from merging.rules import RuleSettings

WEIGHTS = [0.5, 0.3, 0.2]


@pytest.fixture
def tensors():
    """A base and three models, as one tensor each."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(30, 20, generator=generator, dtype=torch.float64)
    return base, [base + 0.1 * torch.randn(30, 20, generator=generator, dtype=torch.float64) for _ in range(3)]


def ours(tensors, rule, weights=WEIGHTS, **settings):
    base, models = tensors
    named = [{"w": model} for model in models[: len(weights)]]
    return merge_parameters(named, rule, weights, base={"w": base}, settings=RuleSettings(**settings))["w"]


def theirs(tensors, *, consensus=None, sparsification=None, normalize, scale=1.0, density=1.0):
    base, models = tensors
    method = GeneralizedTaskArithmeticMerge(consensus, sparsification, normalize, False, "m", None, None)
    group = TensorGroup.from_tensors([base, *models], base_index=0)
    ids = [entry.id for entry in group.non_base]
    weights, densities = dict(zip(ids, WEIGHTS, strict=True)), dict.fromkeys(ids, density)
    settings = {"int8_mask": False, "normalize": normalize, "rescale": False, "lambda": scale}
    return method.merge_group(group, weight=weights, density=densities, **settings)


def test_isotropic_averaging_is_its_linear_merge(tensors):
    batch = TensorBatch([model[None] for model in tensors[1]])
    expected = linear_merge.merge_batch(batch, weight=torch.tensor([WEIGHTS], dtype=torch.float64))[0]
    torch.testing.assert_close(ours(tensors, "isotropic"), expected)


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.5])
def test_task_arithmetic_agrees(tensors, scale):
    torch.testing.assert_close(
        ours(tensors, "task_arithmetic", scale=scale), theirs(tensors, normalize=False, scale=scale)
    )


@pytest.mark.parametrize("scale", [0.4, 1.0])
@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_agrees(tensors, density, scale):
    asked = {"consensus": ConsensusMethod.sum, "sparsification": SparsificationMethod.magnitude, "normalize": True}
    expected = theirs(tensors, density=density, scale=scale, **asked)
    torch.testing.assert_close(ours(tensors, "ties", density=density, scale=scale), expected)


@pytest.mark.parametrize("second", [0.0, 0.25, 0.5, 1.0])
def test_slerp_agrees(tensors, second):
    for models in (tensors[1], [torch.eye(3).double(), torch.rand(3, 3).double()], [torch.eye(3).double()] * 2):
        expected = slerp(torch.tensor([second]).double(), models[0][None], models[1][None])[0]
        torch.testing.assert_close(ours((models[0], models), "slerp", [1 - second, second]), expected)
