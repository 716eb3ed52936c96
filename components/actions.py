"""What the page's events do: parse the form, call `merging`, hand back what the widgets show."""

import time
from html import escape

import gradio as gr

from components import job_panel
from components.add_model import OWN
from components.checks import checked
from components.export_panel import described
from components.figures import NARROW_PX
from components.form import ROWS, WIDGETS, Form, recipe_of, texts
from components.jobs import REGISTRY
from components.merge_history import listed
from components.modes import is_hosted
from components.opening import form_updates, is_embedded, link_updates, pool_updates
from components.pages import PAGES, session_hash, visitor
from components.pool_picker import chosen_pool, chosen_preset, model_choices, pool_choices
from components.score_charts import NOT_PREPARED, previewed, shown
from components.store import STORE
from components.tables import notice
from components.visits import VISITS
from components.weight_sliders import rows_for, set_to
from merging.errors import MergingError, PoolError, RecipeError
from merging.pools import open_pool
from merging.recipe import Recipe
from merging.search import search_weights
from merging.tasks import open_task

OF_A_LINK = "This link names models or data that are not embedded: press “Estimate Fisher” to open them."
# Moves closer together than this are one move for Undo: a drag, not its steps.
UNDO_GAP_S = 1.0
UNDO_DEPTH = 50


def opened(width_px: float, query: str, visit: str, job_id: str, *values: object) -> list[object]:
    """The first picture, the merges of this visit, and the job that makes the picture or the one that was being watched.

    On a phone the sidebar, which would cover the picture, is closed. `query` goes on: its change opens what a link asks for.
    """
    form, watching = Form.of(*values), REGISTRY.get(job_id)
    visit = PAGES.welcome(session_hash(), visit)
    going_on = watching is not None and watching.active
    job = job_panel.watched(watching) if going_on else job_panel.ensured(*values)
    history = [(0.0, list(form.models), list(form.weights))]
    seen = [gr.Sidebar(open=width_px >= NARROW_PX), width_px, query, history, visit, *listed(visit)]
    told, *picture = shown(width_px, *values)
    if watching is not None and watching.state == "lost":
        gr.Warning(escape(watching.message), duration=None)  # stays, where the next picture takes the notice away
        told = notice(watching.message) + (told if isinstance(told, str) else "")
    return [*seen, *job, told, *picture]


def moved(history: list, width_px: float, *values: object) -> list[object]:
    """A slider moved: the move is remembered for Undo, as far back as the same models were merged; a preview is shown."""
    form, now = Form.of(*values), time.monotonic()
    models, weights = list(form.models), list(form.weights)
    if history and history[-1][1] != models:
        history = []
    if not history or history[-1][2] != weights:
        if len(history) > 1 and now - history[-1][0] < UNDO_GAP_S:
            history = history[:-1]
        history = [*history, (now, models, weights)][-UNDO_DEPTH:]
    return [history, *previewed(width_px, *values)]


def undone(history: list) -> list[object]:
    """The weights before the last move."""
    if len(history) < 2:
        return [gr.skip()] * (1 + ROWS)
    return [history[:-1], *set_to(history[-2][2])]


def pool_chosen(name: str) -> list[object]:
    """Another pool: notice, sliders, presets, description, models, heads, tasks, base, whether one adds models."""
    try:
        if is_hosted() and name not in {value for _, value in pool_choices()}:
            raise PoolError(f'There is no pool "{name}": expected one of the list. Pick one from it.')
        changes = chosen_pool(name)
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * (ROWS + 7)]
    return ["", *rows_for(changes[2]["value"]), *changes, gr.update(open=name == OWN)]


def preset_chosen(pool: str, preset: str) -> list[object]:
    """Another preset: notice, sliders, models, heads, tasks."""
    try:
        if pool == OWN or preset is None:
            return ["", *[gr.skip()] * (ROWS + 3)]
        changes = chosen_preset(open_pool(pool), preset)
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * (ROWS + 3)]
    return ["", *rows_for(changes[0]["value"]), *changes]


def models_checked(*values: object) -> list[object]:
    """The checks before anything is downloaded; and the models, as a text that changes with them."""
    return [checked(*values), "\n".join(map(str, Form.of(*values).models or ()))]


def equal_weights(models: list[str]) -> list[object]:
    """The same λ for every model."""
    return set_to([1 / max(len(texts(models)), 1)] * len(texts(models)))


def weights_by_size(*values: object) -> list[object]:
    """λ in proportion to the rows of each task's `fisher` split: notice, sliders."""
    try:
        recipe = recipe_of(Form.of(*values), hosted=is_hosted())
        sizes = [len(open_task(entry.task).rows("fisher")) for entry in recipe.models]
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * ROWS]
    return ["", *set_to([size / sum(sizes) for size in sizes])]


def best_weights(*values: object) -> list[object]:
    """Starts the search for the weights that are best on `validation`."""
    try:
        recipe = recipe_of(Form.of(*values), hosted=is_hosted())
    except MergingError as problem:
        return [gr.skip(), gr.skip(), notice(str(problem), "error"), *[gr.skip()] * 3]
    prepared = STORE.get(recipe)
    if prepared is None:
        return [gr.skip(), gr.skip(), notice(NOT_PREPARED), *[gr.skip()] * 3]
    job = REGISTRY.start(
        f"search {recipe.to_yaml()}",
        lambda on_progress: search_weights(prepared, recipe, on_progress=on_progress),
        kind="search for the best λ",
        visitor=visitor(),
    )
    return job_panel.watched(job)


def found_weights(job_id: str) -> list[object]:
    """Moves the sliders to what a finished search found: notice, sliders; other jobs move nothing."""
    job = REGISTRY.get(job_id)
    if job is None or not hasattr(job.result, "weights"):
        return [gr.skip()] * (1 + ROWS)
    return ["", *set_to(job.result.weights)]


def recipe_opened(path: str | None, pool: str) -> list[object]:
    """A recipe's file becomes the page's settings: notice, then every widget of the form."""
    try:
        values = form_updates(Recipe.load(path or ""), [] if pool == OWN else model_choices(open_pool(pool)))
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * WIDGETS]
    return [notice("The recipe is open; its Fishers are being estimated or taken from the cache.", "good"), *values]


def link_opened(query: str) -> list[object]:
    """The settings that a page's address asks for: notice, tab, pool, preset, description, then every widget of the form."""
    nothing = [gr.skip()] * (3 + WIDGETS)
    try:
        updates, tab, told = link_updates(query)
    except MergingError as problem:
        return [notice(f"The link was not opened. {problem}", "error"), gr.skip(), *nothing]
    if updates:
        gr.Info(told)  # the sliders, which move now, clear the page's notice
    return ["" if updates else notice(told), tab, *(updates or nothing)]


def linked(*values: object) -> list[object]:
    """Begins the work of what a link asked for, if all of it is embedded: nobody's own files are opened by a link."""
    try:
        is_free = is_embedded(recipe_of(Form.of(*values), hosted=is_hosted()))
    except MergingError:
        is_free = True  # and told
    return job_panel.ensured(*values) if is_free else job_panel.unwatched(notice(OF_A_LINK))


def merge_reloaded(visit: str, name: str | None) -> list[object]:
    """A merge of this visit again: notice, pool, preset, description, then every widget of the form."""
    merge = VISITS.named(visit, name)
    try:
        if merge is None:
            raise RecipeError(
                f"There is no merge {str(name)!r:.60}: expected one of this visit. Pick one from the list."
            )
        above, known = pool_updates(merge.recipe)
        return ["", *above, *form_updates(merge.recipe, known)]
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * (3 + WIDGETS)]


def shown_with_notice(width_px: float, *values: object) -> list[object]:
    """What `shown` gives; the notice of what was opened or chosen before it stays unless there is a new one."""
    told, *others = shown(width_px, *values)
    return [told or gr.skip(), *others]


def recipe_shown(width_px: float, *values: object) -> list[object]:
    """What an opened recipe changes in view: YAML, then what `shown` gives. The notice of its opening stays."""
    return [described(*values)[1], *shown(width_px, *values)]
