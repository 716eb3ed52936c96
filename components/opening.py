"""Opening a recipe, from a file, a link or the visit's history: what it changes in the page's widgets."""

from html import escape

import gradio as gr

from components.add_model import OWN
from components.form import ROWS, model_choices, model_name, model_value, task_of, task_value
from components.links import read_link
from components.modes import is_hosted, require_open_to_all
from components.pool_picker import EXAMPLES, preset_choices
from components.rule_fields import LONGEST, NUMBERS, SCALE_LIMIT, layer_weights_text
from components.weight_sliders import rows_for, set_to
from merging.devices import resolve_device
from merging.errors import RecipeError
from merging.pools import open_pool
from merging.recipe import Recipe
from merging.rules import RULES
from merging.rules.settings import DEFAULTS
from merging.zoo import names as zoo_names

TABS = ("merge", "inspect", "explore", "learn", "export")


def form_updates(recipe: Recipe, known_models: list[tuple[str, str]]) -> list[object]:
    """A recipe as values of the widgets: models, heads, tasks, labels, examples, seed, floor, normalise, zero rule,
    device, split, base, then the sliders, then rules and their settings. `known_models` are the entries of the list of models, (title, value).

    Raises: RecipeError for a recipe that the page cannot show; DeviceError.
    """
    if is_hosted():
        require_open_to_all(recipe)
    _require_shown(recipe)
    models = [model_value(entry.checkpoint, entry.task) for entry in recipe.models]
    labels = {value: label for label, value in known_models}
    choices = [*known_models, *[(model_name(value), value) for value in models if value not in labels]]
    settings = recipe.fisher
    rows = rows_for(models)
    for row, moved in zip(rows, set_to(recipe.weights), strict=True):
        if "value" in row:
            row["value"] = moved["value"]
    tasks = [task_value(task) for task in recipe.evaluation.tasks]
    return [
        gr.update(choices=choices, value=models),
        recipe.heads,
        gr.update(choices=[(_task_name(task), task) for task in tasks], value=tasks) if tasks else [],
        settings.labels,
        settings.examples,
        settings.seed,
        settings.floor,
        settings.normalise,
        settings.zero_rule,
        recipe.device,
        recipe.evaluation.split,
        recipe.base or "",
        *rows,
        recipe.rule,
        [name for name in recipe.compare if name in RULES],
        *(getattr(recipe.settings, name) for name in ("scale", *NUMBERS)),
        layer_weights_text(recipe.layer_weights),
    ]


def pool_updates(recipe: Recipe) -> tuple[list[object], list[tuple[str, str]]]:
    """What a recipe changes above its models: pool, preset and description; and the models that the list then offers."""
    pools = {entry.checkpoint.partition("/")[0] for entry in recipe.models}
    if len(pools) > 1 or not pools <= {f"zoo:{name}" for name in zoo_names()}:
        return [OWN, gr.update(choices=[], value=None), ""], []
    name = pools.pop().removeprefix("zoo:")
    pool = open_pool(name)
    entries = {entry.checkpoint for entry in recipe.models}
    preset = next(
        (one.name for one in pool.presets if {pool.model(model).checkpoint for model in one.models} == entries), None
    )
    return [name, gr.update(choices=preset_choices(pool), value=preset), escape(pool.description)], model_choices(pool)


def link_updates(query: str) -> tuple[list[object] | None, object, str]:
    """What a link changes: pool, preset, description and the form, or None; the tab; what is to be said about it.

    Raises: MergingError.
    """
    linked = read_link(query if isinstance(query, str) else "")
    told = f"The link's parameters {', '.join(linked.unknown)} mean nothing here." if linked.unknown else ""
    tab = gr.Tabs(selected=linked.tab) if linked.tab in TABS else gr.skip()
    if linked.tab and linked.tab not in TABS:
        told = f'There is no tab "{linked.tab:.40}": expected {", ".join(TABS)}. {told}'
    if linked.recipe is None:
        return None, tab, told
    above, known = pool_updates(linked.recipe)
    return [*above, *form_updates(linked.recipe, known)], tab, f"These settings come from a link. {told}".strip()


def is_embedded(recipe: Recipe) -> bool:
    """Whether a recipe names nothing but what is embedded: such a one may begin its work unasked."""
    named = [*[entry.checkpoint for entry in recipe.models], *[entry.task for entry in recipe.models]]
    named += [*recipe.evaluation.tasks, recipe.base or "zoo:"]
    return all(str(reference).startswith("zoo:") for reference in named)


def _task_name(value: str) -> str:
    task = task_of(value)
    return task.split("/")[-1] if isinstance(task, str) else str(task.get("name") or task.get("dataset") or "task")


def _require_shown(recipe: Recipe) -> None:
    """Raises: MergingError for a recipe that the page's widgets cannot hold, or whose device is not here."""
    examples = recipe.fisher.examples
    few = examples != "all" and EXAMPLES[0] <= examples <= EXAMPLES[1]
    settings = recipe.settings
    fits = settings.scale <= SCALE_LIMIT and settings.seed == DEFAULTS.seed
    if not few or not fits or recipe.evaluation.examples != "all" or len(recipe.models) > ROWS:
        raise RecipeError(
            f"The page cannot show this recipe: expected {EXAMPLES[0]} to {EXAMPLES[1]} Fisher examples, evaluation examples: all, "
            f"at most {ROWS} models, a scale of at most {SCALE_LIMIT:g} and the rules' seed {DEFAULTS.seed}, got {examples}, "
            f"{recipe.evaluation.examples}, {len(recipe.models)} models, {settings.scale:g} and {settings.seed}. Use the command line."
        )
    if (length := len(layer_weights_text(recipe.layer_weights))) > LONGEST:
        raise RecipeError(
            f"The page cannot show this recipe: expected weights of layers in at most {LONGEST} characters, got {length}. Use the "
            "command line."
        )
    resolve_device(recipe.device)
