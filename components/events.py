"""What happens when something is moved or pressed: every event, by its public name."""

import time
from dataclasses import dataclass

import gradio as gr

from components import job_panel
from components.export_panel import ExportPanel, described, exported, opened_recipe, saved_recipe
from components.figures import NARROW_PX
from components.form import Form, recipe_of
from components.heatmaps import Heatmaps, inspected
from components.job_panel import JobPanel
from components.jobs import REGISTRY
from components.merge_settings import MergeSettings
from components.pool_picker import PoolPicker, chosen_pool, chosen_preset, is_hosted, model_choices
from components.score_charts import NOT_PREPARED, ScoreCharts, shown
from components.store import STORE
from components.tables import notice
from components.weight_sliders import WeightSliders, rows_for, set_to
from merging.errors import MergingError, PoolError
from merging.pools import open_pool
from merging.search import search_weights
from merging.tasks import open_task

# Moves closer together than this are one move for Undo: a drag, not its steps.
UNDO_GAP_S = 1.0
UNDO_DEPTH = 50
LIVE = {"concurrency_id": "device", "concurrency_limit": 2, "show_progress": "minimal"}
WATCH = {"concurrency_limit": None, "show_progress": "hidden", "queue": True}
WIDTH_JS = "(width, ...others) => [window.innerWidth, ...others]"
CLICK_JS = "() => setTimeout(() => document.querySelector('#{0} a, a#{0}, #{0}')?.click(), 150)"


@dataclass(frozen=True)
class Parts:
    """All panels of the page."""

    page: gr.Blocks
    sidebar: gr.Sidebar
    width_px: gr.Number
    picker: PoolPicker
    job: JobPanel
    weights: WeightSliders
    charts: ScoreCharts
    settings: MergeSettings
    inspect_tab: gr.Tab
    maps: Heatmaps
    export_tab: gr.Tab
    exports: ExportPanel

    def form(self) -> list[gr.components.Component]:
        """The widgets that a recipe is read from, in the order of `Form`."""
        picker, settings = self.picker, self.settings
        return [
            *[picker.models, picker.heads, picker.tasks, picker.labels, picker.examples, picker.seed],
            *[settings.floor, settings.normalise, settings.zero_rule, picker.device, settings.split, picker.base],
            *self.weights.sliders,
        ]


def wire(parts: Parts) -> None:
    """Connects every widget; each event has an `api_name`, so that `gradio_client` can drive the page."""
    history = gr.State([])
    _wire_merge(parts, history)
    _wire_setup(parts)
    _wire_job(parts)
    _wire_weights(parts, history)
    _wire_inspect_and_export(parts)


def _wire_merge(parts: Parts, history: gr.State) -> None:
    inputs = [parts.width_px, *parts.form()]
    outputs = [*parts.charts.outputs(), parts.weights.shares]
    settings, picker = parts.settings, parts.picker
    settings.merge.click(shown, inputs, outputs, api_name="merge", **LIVE)
    gr.on(
        [settings.split.change, settings.normalise.change, settings.zero_rule.change, settings.floor.change],
        shown,
        inputs,
        outputs,
        api_name="apply_settings",
        trigger_mode="always_last",
        **LIVE,
    )
    gr.on(
        [
            picker.heads.input,
            picker.tasks.input,
            picker.labels.input,
            picker.examples.release,
            picker.seed.input,
            picker.device.input,
            picker.base.submit,
        ],
        shown,
        inputs,
        outputs,
        api_name="apply_estimation",
        trigger_mode="always_last",
        **LIVE,
    )
    gr.on(
        [slider.change for slider in parts.weights.sliders],
        moved,
        [history, *inputs],
        [history, *outputs],
        api_name="move_weights",
        trigger_mode="always_last",
        **LIVE,
    )


def _wire_setup(parts: Parts) -> None:
    picker = parts.picker
    model_outputs = [picker.models, picker.heads, picker.tasks]
    after = [parts.charts.notice, *parts.weights.sliders]
    pool_event = picker.pool.input(
        pool_chosen,
        picker.pool,
        [*after, picker.preset, picker.about, *model_outputs, picker.base],
        api_name="choose_pool",
    )
    preset_event = picker.preset.input(
        preset_chosen, [picker.pool, picker.preset], [*after, *model_outputs], api_name="choose_preset"
    )
    for event, name in ((pool_event, "estimate_pool"), (preset_event, "estimate_preset")):
        event.then(job_panel.started, parts.form(), parts.job.outputs(), api_name=name, **WATCH)
    picker.models.input(rows_for, picker.models, parts.weights.sliders, api_name="choose_models").then(
        shown,
        [parts.width_px, *parts.form()],
        [*parts.charts.outputs(), parts.weights.shares],
        api_name="show_models",
        **LIVE,
    )


def _wire_job(parts: Parts) -> None:
    job = parts.job
    shows = {"inputs": [parts.width_px, *parts.form()], "outputs": [*parts.charts.outputs(), parts.weights.shares]}
    parts.page.load(
        opened,
        [parts.width_px, job.job_id, *parts.form()],
        [parts.sidebar, parts.width_px, *job.outputs(), *shows["outputs"]],
        js=WIDTH_JS,
        api_name="open_page",
        **WATCH,
    )
    job.estimate.click(job_panel.started, parts.form(), job.outputs(), api_name="estimate_fisher", **WATCH)
    job.stop.click(job_panel.stopped, job.job_id, job.outputs(), api_name="stop", **WATCH)
    job.timer.tick(job_panel.polled, job.job_id, job.outputs(), api_name="progress", **WATCH)
    job.finished.change(
        found_weights, job.finished, [parts.charts.notice, *parts.weights.sliders], api_name="found_weights", **WATCH
    ).then(shown, **shows, api_name="show_finished", **LIVE).then(
        inspected, shows["inputs"], parts.maps.outputs(), api_name="inspect_finished", **LIVE
    )


def _wire_weights(parts: Parts, history: gr.State) -> None:
    weights, sliders = parts.weights, parts.weights.sliders
    weights.equal.click(equal_weights, parts.picker.models, sliders, api_name="equal_weights", **WATCH)
    weights.by_size.click(
        weights_by_size, parts.form(), [parts.charts.notice, *sliders], api_name="weights_by_size", **WATCH
    )
    weights.best.click(best_weights, parts.form(), parts.job.outputs(), api_name="find_best_weights", **WATCH)
    weights.undo.click(undone, history, [history, *sliders], api_name="undo", **WATCH)


def _wire_inspect_and_export(parts: Parts) -> None:
    form, exports = parts.form(), parts.exports
    parts.inspect_tab.select(inspected, [parts.width_px, *form], parts.maps.outputs(), api_name="inspect", **LIVE)
    parts.export_tab.select(described, form, [exports.notice, exports.recipe], api_name="recipe", **WATCH)
    exports.download.click(
        exported, form, [exports.notice, exports.file], api_name="download_merged_model", **LIVE
    ).success(None, js=CLICK_JS.format("merged-file"))
    exports.save_recipe.click(
        saved_recipe, form, [exports.notice, exports.recipe_file], api_name="download_recipe", **WATCH
    ).success(None, js=CLICK_JS.format("recipe-file"))
    exports.upload.upload(
        recipe_opened, [exports.upload, parts.picker.pool], [exports.notice, *form], api_name="open_recipe", **WATCH
    ).then(job_panel.started, form, parts.job.outputs(), api_name="estimate_recipe", **WATCH).then(
        described, form, [exports.notice, exports.recipe], api_name="show_recipe", **WATCH
    )


def opened(width_px: float, job_id: str, *values: object) -> list[object]:
    """The first picture if it is ready; else the job that makes it, or the one this visitor was watching.

    On a phone the sidebar, which would cover the picture, is closed.
    """
    picture = shown(width_px, *values)
    page = [gr.Sidebar(open=width_px >= NARROW_PX), width_px]
    watching = REGISTRY.get(job_id)
    if watching is not None and watching.active:
        return [*page, *job_panel.watched(watching), *picture]
    if picture[0] == notice(NOT_PREPARED):
        first = notice("Estimating the Fishers of this pool: a few seconds.")
        return [*page, *job_panel.started(*values), first, *picture[1:]]
    return [*page, *job_panel.watched(None), *picture]


def moved(history: list, width_px: float, *values: object) -> list[object]:
    """A slider moved: the move is remembered for Undo, and the merge shown."""
    weights, now = list(Form.of(*values).weights), time.monotonic()
    if not history or history[-1][1] != weights:
        if len(history) > 1 and now - history[-1][0] < UNDO_GAP_S:
            history = history[:-1]
        history = [*history, (now, weights)][-UNDO_DEPTH:]
    return [history, *shown(width_px, *values)]


def undone(history: list) -> list[object]:
    """The weights before the last move."""
    history = history[:-1]
    if not history:
        return [gr.skip()] * (1 + len(rows_for([])))
    return [history, *set_to(history[-1][1])]


def pool_chosen(name: str) -> list[object]:
    """Another pool: notice, sliders, presets, description, models, heads, tasks, base."""
    try:
        if is_hosted() and not str(name).isidentifier():
            raise PoolError(f'There is no pool "{name}": expected an embedded one. Pick one from the list.')
        changes = chosen_pool(name)
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * (len(rows_for([])) + 6)]
    return ["", *rows_for(changes[2]["value"]), *changes]


def preset_chosen(pool: str, preset: str) -> list[object]:
    """Another preset: notice, sliders, models, heads, tasks."""
    try:
        changes = chosen_preset(open_pool(pool), preset)
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * (len(rows_for([])) + 3)]
    return ["", *rows_for(changes[0]["value"]), *changes]


def equal_weights(models: list[str]) -> list[object]:
    """The same λ for every model."""
    return set_to([1 / max(len(models), 1)] * len(models))


def weights_by_size(*values: object) -> list[object]:
    """λ in proportion to the rows of each task's `fisher` split: notice, sliders."""
    try:
        recipe = recipe_of(Form.of(*values), hosted=is_hosted())
        sizes = [len(open_task(entry.task).rows("fisher")) for entry in recipe.models]
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * len(rows_for([]))]
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
        f"search {recipe.to_yaml()}", lambda on_progress: search_weights(prepared, recipe, on_progress=on_progress)
    )
    return job_panel.watched(job)


def found_weights(job_id: str) -> list[object]:
    """Moves the sliders to what a finished search found: notice, sliders; other jobs move nothing."""
    job = REGISTRY.get(job_id)
    if job is None or job.result is None:
        return [gr.skip()] * (1 + len(rows_for([])))
    return ["", *set_to(job.result.weights)]


def recipe_opened(path: str, pool: str) -> list[object]:
    """A recipe's file becomes the page's settings: notice, then every widget of the form."""
    try:
        _, values = opened_recipe(path, model_choices(open_pool(pool)))
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * (len(Form.__dataclass_fields__) - 1 + len(rows_for([])))]
    return [notice("The recipe is open; its Fishers are being estimated or taken from the cache.", "good"), *values]
