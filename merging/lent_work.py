"""What is done on a device that is lent, in the process that has it: plain arguments in, small results on the CPU out.

Everything else comes and goes by way of the disk: checkpoints, datasets, Fishers.
"""

from dataclasses import replace

from merging.devices import lent, resolve_device
from merging.estimates import fisher_of
from merging.evaluation import Fixed
from merging.families import open_models
from merging.lending import OnProgress
from merging.opened import open_recipe
from merging.pipeline import prepare
from merging.readers import Reader, in_name_of
from merging.recipe import Recipe


def estimate_fisher(recipe_yaml: str, index: int, reader: Reader | None, on_progress: OnProgress) -> None:
    """Estimates the Fisher of one of a recipe's models into the cache. Raises: MergingError."""
    recipe = Recipe.from_yaml(recipe_yaml)
    with lent(), in_name_of(reader):
        _, checkpoints, own, _ = open_recipe(recipe, on_progress)
        device = resolve_device(recipe.device)
        module = open_models([checkpoints[index]], [own[index]], device)[0]
        settings = {"settings": recipe.fisher, "device": device, "on_progress": on_progress}
        settings["factors"] = recipe.needs_factors
        fisher_of(checkpoints[index], own[index], module, **settings)


def predict_fixed(recipe_yaml: str, split: str, reader: Reader | None, on_progress: OnProgress) -> Fixed:
    """What a recipe's single models and their ensemble predict on a split. Raises: MergingError."""
    recipe = replace(Recipe.from_yaml(recipe_yaml), rule="isotropic", compare=())  # which needs no Fishers
    with lent(), in_name_of(reader):
        prepared = prepare(recipe, on_progress)
        return prepared.fixed_predictions(split, lambda: on_progress(1.0, "evaluating the single models"))
