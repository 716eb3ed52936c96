"""Small models merged as one long tensor: the numbers of `merge_parameters`, bit for bit."""

import threading

import pytest
import torch

from merging.errors import FisherError, RecipeError, StructureError
from merging.flat import KEPT_LAYOUTS, MOST_NUMBERS, FlatModels, flat_models
from merging.merge import merge_parameters
from merging.scales import NORMALISATIONS
from merging.weights import ZERO_RULES

SHAPES = {"a.weight": (5, 7), "a.bias": (), "b.weight": (3, 1, 4), "empty": (0, 2)}
WEIGHTS = [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 0.7, 0.3], [1e-8, 1.0, 3.0]]
PLAIN = {"floor": 0.0, "normalise": "trace", "zero_rule": "mean"}


def drawn(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.fixture
def models():
    return [drawn(seed) for seed in range(3)]


@pytest.fixture
def fishers():
    """Of all magnitudes; one coordinate without any, one that the first model alone speaks for."""
    found = [{name: own.square() * 10.0**-seed for name, own in drawn(seed).items()} for seed in (11, 24, 3)]
    for position, fisher in enumerate(found):
        fisher["head"] = torch.ones(2)  # which is not merged
        fisher["b.weight"][1, 0, 2] = 0.0
        if position:
            fisher["a.weight"][0, 3] = 0.0
    return found


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("zero_rule", ZERO_RULES)
@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_every_setting_gives_the_same_bits(models, fishers, floor, normalise, zero_rule, weights):
    flat = FlatModels(models, fishers, "cpu")
    settings = {"floor": floor, "normalise": normalise, "zero_rule": zero_rule, "base": drawn(7)}
    for rule in ("fisher", "isotropic"):
        expected = merge_parameters(models, rule, weights, fishers=fishers, **settings)
        for _ in range(2):  # what is kept is not overwritten
            merged = flat.merge(rule, weights, **settings)
            assert list(merged) == list(expected)
            for name, own in merged.items():
                assert (own.dtype, own.shape) == (expected[name].dtype, expected[name].shape)
                assert torch.equal(own, expected[name]), (rule, name)


def test_only_tensors_without_a_fisher_somewhere_are_merged_apart(models, fishers):
    flat = FlatModels(models, fishers, "cpu")
    assert "b.weight" not in flat._laid((True, True, True), 0.0).names
    assert "a.weight" in flat._laid((True, True, True), 0.0).names
    assert "a.weight" not in flat._laid((False, True, True), 0.0).names
    assert flat._laid((False, True, True), 1e-6).names == list(SHAPES)
    assert len(flat._layouts) == KEPT_LAYOUTS
    everything = sum(own.nbytes for model in models for own in model.values())
    flat.merge("isotropic", WEIGHTS[0], **PLAIN)  # the values of a layout of the same tensors are not laid again
    assert everything < flat.size_bytes() < KEPT_LAYOUTS * 2 * everything
    assert len({id(layout.values) for layout in flat._layouts.values()}) < len(flat._layouts)


def test_the_models_of_a_pool_are_merged_so_and_give_the_same_bits(four_result):
    prepared, recipe = four_result.prepared, four_result.recipe.with_weights([0.1, 0.4, 0.3, 0.2])
    assert isinstance(prepared.merger._flat(prepared.parameters(), prepared.fishers, "cpu"), FlatModels)
    for rule in ("fisher", "isotropic"):
        expected = merge_parameters(prepared.parameters(), rule, recipe.weights, fishers=prepared.fishers)
        merged = prepared.merge(recipe, rule=rule)
        assert all(torch.equal(merged[name], own) for name, own in expected.items())


def test_large_models_and_other_types_are_not_laid_end_to_end(models):
    wide = torch.zeros(1).expand(MOST_NUMBERS // 2 + 1)
    assert flat_models([{"a": wide}, {"a": wide}], None, "cpu") is None
    assert flat_models([{"a": torch.zeros(2, dtype=torch.float64)}] * 2, None, "cpu") is None
    assert flat_models([{"a": torch.zeros(2, dtype=torch.int64)}] * 2, None, "cpu") is None
    assert flat_models(models, None, "mps") is None
    assert flat_models(models, None, "cpu") is not None


def test_what_merge_parameters_refuses_is_refused_in_its_words(models, fishers):
    def told(**changed):
        arguments = {"models": models, "fishers": fishers, "weights": [1, 1, 1], "settings": PLAIN} | changed
        found = []
        for merge in (
            lambda: merge_parameters(
                arguments["models"],
                "fisher",
                arguments["weights"],
                fishers=arguments["fishers"],
                **arguments["settings"],
            ),
            lambda: FlatModels(arguments["models"], arguments["fishers"], "cpu").merge(
                "fisher", arguments["weights"], **arguments["settings"]
            ),
        ):
            with pytest.raises((FisherError, RecipeError, StructureError)) as caught:
                merge()
            found.append((type(caught.value), str(caught.value)))
        assert found[0] == found[1]
        return found[0][1]

    broken = [*models[:2], {**models[2], "a.weight": torch.full((5, 7), torch.nan)}]
    assert '"a.weight" of model 3' in told(models=broken)
    assert "same" in told(models=[*models[:2], {"a.weight": torch.zeros(5, 7)}])
    assert "at least one above 0" in told(weights=[0, 0, 0])
    assert "zero rule" in told(settings={**PLAIN, "zero_rule": "none"})
    assert "needs the base" in told(settings={**PLAIN, "zero_rule": "base"})
    assert "finite numbers of 0 or more" in told(fishers=[*fishers[:2], {**fishers[2], "a.weight": -torch.ones(5, 7)}])
    assert "Estimate" in told(fishers=fishers[:2])


def test_several_threads_may_merge_at_once(models, fishers):
    flat, wrong = FlatModels(models, fishers, "cpu"), []
    expected = {str(weights): flat.merge("fisher", weights, **PLAIN) for weights in WEIGHTS}

    def work(number: int) -> None:
        for step in range(50):
            weights = WEIGHTS[(number + step) % len(WEIGHTS)]
            merged = flat.merge("fisher", weights, **PLAIN)
            wrong.extend(name for name, own in merged.items() if not torch.equal(own, expected[str(weights)][name]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
