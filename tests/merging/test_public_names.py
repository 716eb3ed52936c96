"""The public surface, as architecture.md writes it."""

import inspect
import pkgutil
import subprocess
import sys

import pytest
import torch

import merging
from merging import Fisher, MergingError, errors
from tests import cases


def test_the_public_names_are_these_and_sorted():
    assert merging.__all__ == [
        "Cancelled",
        "Checkpoint",
        "Fisher",
        "MergingError",
        "Pool",
        "Recipe",
        "Result",
        "RuleSettings",
        "Score",
        "Task",
        "diagonal_fisher",
        "full_fisher",
        "merge_full",
        "merge_parameters",
        "open_checkpoint",
        "open_pool",
        "open_task",
        "prepare",
        "preset_recipe",
        "recipe_for_pool",
        "run",
        "search_weights",
    ]
    assert merging.__all__ == sorted(merging.__all__) == dir(merging)


@pytest.mark.parametrize("name", merging.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert inspect.getdoc(getattr(merging, name))


def test_no_public_name_is_a_modules():
    """Importing merging.NAME would put the module in the place of the function."""
    assert not set(merging.__all__) & {module.name for module in pkgutil.iter_modules(merging.__path__)}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r'"merging" has no attribute "marge"'):
        _ = merging.marge


def test_importing_merging_does_not_import_torch():
    code = "import sys, merging; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_error_is_a_merging_error_but_a_cancel_is_not():
    own = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert {kind for kind in own if not issubclass(kind, MergingError)} == {merging.Cancelled}


def test_the_calls_of_the_architecture_page_work_as_written():
    pool = merging.open_pool("digits")
    checkpoint = merging.open_checkpoint("zoo:digits/parity")
    assert pool.model("parity").checkpoint == checkpoint.reference

    model = cases.model_case("softmax-3")
    batches = cases.batches_for("softmax-3", 3)
    fa = merging.diagonal_fisher(model, batches, labels="exact", seed=0, on_progress=None)
    fb = merging.diagonal_fisher(model, batches[:1], labels="sampled", seed=0, on_progress=None)
    assert isinstance(fa, Fisher)
    a = dict(model.named_parameters())
    b = {name: tensor + 1 for name, tensor in a.items()}
    merged = merging.merge_parameters(
        [a, b], rule="fisher", weights=[0.5, 0.5], fishers=[fa, fb], floor=0.0, normalise="trace", zero_rule="mean"
    )
    assert isinstance(merged, dict)
    assert {name: tensor.shape for name, tensor in merged.items()} == {name: tensor.shape for name, tensor in a.items()}
    assert not torch.equal(merged["head.weight"], a["head.weight"])


def test_a_result_has_scores_merged_and_timings(four_result):
    assert set(four_result.timings) == {"open", "fisher", "merge", "evaluate", "compare"}
    assert set(four_result.scores) == {"fisher", "isotropic", "ensemble", "experts"}
    assert all(isinstance(tensor, torch.Tensor) for tensor in four_result.merged.values())
