"""Fisher-weighted model merging (Matena & Raffel 2022): estimate, merge, evaluate.

The public names; each is imported when it is first used, so that `import merging` is quick. No name may
be a module's, too: `from merging.export import export` is therefore not among them.
"""

from importlib import import_module

_HOMES = {
    "Cancelled": "merging.errors",
    "Checkpoint": "merging.checkpoints",
    "Fisher": "merging.fisher",
    "MergingError": "merging.errors",
    "Pool": "merging.pools",
    "Recipe": "merging.recipe",
    "Result": "merging.pipeline",
    "Score": "merging.metrics",
    "Task": "merging.tasks",
    "RuleSettings": "merging.rules",
    "diagonal_fisher": "merging.fisher",
    "full_fisher": "merging.whole_fisher",
    "merge_full": "merging.whole_fisher",
    "merge_parameters": "merging.merge",
    "open_checkpoint": "merging.checkpoints",
    "open_pool": "merging.pools",
    "open_task": "merging.tasks",
    "prepare": "merging.pipeline",
    "preset_recipe": "merging.recipe",
    "recipe_for_pool": "merging.recipe",
    "run": "merging.pipeline",
    "search_weights": "merging.search",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f'module "merging" has no attribute "{name}"')
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
