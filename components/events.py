"""What happens when something is moved or pressed: every event, by its public name."""

import gradio as gr

from components import actions, add_model, job_panel
from components.export_panel import described, exported, saved_recipe
from components.inspect_actions import inspected
from components.merge_history import compared, remembered
from components.parts import LIVE, MOVE, ONCE, POLL, SETTLE, SLOW, WATCH, Parts
from components.push_panel import pushed
from components.score_charts import settled, shown
from components.uploads import uploaded
from components.weight_sliders import rows_for

# What only the browser knows: how wide the page is, and the address it was opened by.
OPENED_JS = "(width, query, ...others) => [window.innerWidth, window.location.search, ...others]"
LINK_JS = "(query) => query && window.location.origin + window.location.pathname + query"
CLICK_JS = "() => setTimeout(() => document.querySelector('#{0} a, a#{0}, #{0}')?.click(), 150)"


def wire(parts: Parts) -> None:
    """Connects every widget; each event has an `api_name`, so that `gradio_client` can drive the page."""
    history = gr.State([])
    _wire_merge(parts, history)
    _wire_setup(parts)
    _wire_own(parts)
    _wire_job(parts, history)
    _wire_weights(parts, history)
    _wire_kept(parts)
    _wire_link(parts)
    _wire_export(parts)


def _wire_merge(parts: Parts, history: gr.State) -> None:
    picture, settings, picker = parts.picture(), parts.settings, parts.picker
    kept = parts.kept
    settings.merge.click(shown, **picture, api_name="merge", **LIVE | ONCE).then(
        remembered,
        [kept.visit, kept.name, *parts.form()],
        [kept.visit, kept.name, *kept.outputs()],
        api_name="keep_merge",
        **LIVE,
    )
    gr.on(
        [settings.split.change, settings.normalise.change, settings.zero_rule.change, settings.floor.change],
        shown,
        **picture,
        api_name="apply_settings",
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
        **picture,
        api_name="apply_estimation",
        **LIVE,
    )
    gr.on(
        [slider.change for slider in parts.weights.sliders],
        actions.moved,
        [history, *picture["inputs"]],
        [history, *picture["outputs"]],
        api_name="move_weights",
        **MOVE,
    )
    parts.charts.preview.input(
        settled,
        [parts.charts.preview, *picture["inputs"]],
        picture["outputs"],
        api_name="settle_weights",
        **SETTLE,
    )


def _wire_setup(parts: Parts) -> None:
    picker = parts.picker
    model_outputs = [picker.models, picker.heads, picker.tasks]
    after = [parts.charts.notice, *parts.weights.sliders]
    pool_event = picker.pool.input(
        actions.pool_chosen,
        picker.pool,
        [*after, picker.preset, picker.about, *model_outputs, picker.base, picker.own.panel],
        api_name="choose_pool",
        **SLOW,
    )
    preset_event = picker.preset.input(
        actions.preset_chosen, [picker.pool, picker.preset], [*after, *model_outputs], api_name="choose_preset", **SLOW
    )
    picture = parts.picture()
    for event, name in ((pool_event, "pool"), (preset_event, "preset")):
        event.then(job_panel.ensured, parts.form(), parts.job.outputs(), api_name=f"estimate_{name}", **WATCH).then(
            actions.shown_with_notice, **picture, api_name=f"show_{name}", **LIVE
        )
    picker.models.input(rows_for, picker.models, parts.weights.sliders, api_name="choose_models", **SLOW).then(
        shown, **picture, api_name="show_models", **LIVE
    )


def _wire_own(parts: Parts) -> None:
    picker, own = parts.picker, parts.picker.own
    picker.models.change(
        actions.models_checked,
        parts.form(),
        [picker.checks, picker.changed],
        api_name="check_models",
        **SLOW,
    )
    look = {"fn": add_model.looked, "inputs": own.asked(), "outputs": own.found(), **SLOW}
    own.look.click(**look, api_name="look_at_task")
    own.task.submit(**look, api_name="submit_task")
    own.upload.upload(uploaded, own.upload, own.task, api_name="upload_data", **WATCH).then(
        **look, api_name="look_at_upload"
    )
    own.suggest.click(
        add_model.suggested,
        [own.checkpoint, own.found_task, own.inputs, own.label],
        [own.summary, own.alignment],
        api_name="suggest_label_order",
        **SLOW,
    )
    own.add.click(
        add_model.added,
        [picker.pool, picker.models, *own.corrected()],
        [own.summary, picker.models, *parts.weights.sliders],
        api_name="add_model",
        **WATCH | ONCE,
    )


def _wire_job(parts: Parts, history: gr.State) -> None:
    job = parts.job
    picture = parts.picture()
    parts.page.load(
        actions.opened,
        [parts.width_px, parts.query, parts.kept.visit, job.job_id, *parts.form()],
        [
            *[parts.sidebar, parts.width_px, parts.query, history, parts.kept.visit, *parts.kept.outputs()],
            *[*job.outputs(), *picture["outputs"]],
        ],
        js=OPENED_JS,
        api_name="open_page",
        **WATCH,
    )
    job.estimate.click(job_panel.started, parts.form(), job.outputs(), api_name="estimate_fisher", **WATCH | ONCE)
    job.stop.click(job_panel.stopped, job.job_id, job.outputs(), api_name="stop", **WATCH)
    job.timer.tick(job_panel.polled, job.job_id, job.outputs(), api_name="progress", **POLL)
    job.finished.change(
        actions.found_weights,
        job.finished,
        [parts.charts.notice, *parts.weights.sliders],
        api_name="found_weights",
        **WATCH,
    ).then(shown, **picture, api_name="show_finished", **LIVE).then(
        inspected,
        [parts.inspect.view, *picture["inputs"]],
        parts.inspect.outputs(),
        api_name="inspect_finished",
        **LIVE,
    )


def _wire_weights(parts: Parts, history: gr.State) -> None:
    weights, sliders = parts.weights, parts.weights.sliders
    weights.equal.click(actions.equal_weights, parts.picker.models, sliders, api_name="equal_weights", **WATCH)
    weights.by_size.click(
        actions.weights_by_size, parts.form(), [parts.charts.notice, *sliders], api_name="weights_by_size", **WATCH
    )
    weights.best.click(
        actions.best_weights, parts.form(), parts.job.outputs(), api_name="find_best_weights", **WATCH | ONCE
    )
    weights.undo.click(actions.undone, history, [history, *sliders], api_name="undo", **WATCH)


def _wire_kept(parts: Parts) -> None:
    """The merges of this visit: back to one of them, and two compared."""
    kept, form, picture = parts.kept, parts.form(), parts.picture()
    kept.kept.picked.input(
        actions.merge_reloaded,
        [kept.visit, kept.kept.picked],
        [parts.charts.notice, *parts.reopened()],
        api_name="reload_merge",
        **WATCH,
    ).then(job_panel.ensured, form, parts.job.outputs(), api_name="estimate_reloaded", **WATCH).then(
        actions.shown_with_notice, **picture, api_name="show_reloaded", **LIVE
    )
    gr.on(
        [kept.first.change, kept.second.change],
        compared,
        [kept.visit, kept.first, kept.second],
        kept.compared.outputs(),
        api_name="compare_merges",
        **WATCH,
    )


def _wire_link(parts: Parts) -> None:
    """The page's address: what it asks for is opened after the page itself."""
    form, picture = parts.form(), parts.picture()
    parts.query.change(
        actions.link_opened,
        parts.query,
        [parts.charts.notice, parts.tabs, *parts.reopened()],
        api_name="open_link",
        **WATCH,
    ).then(actions.linked, form, parts.job.outputs(), api_name="estimate_link", **WATCH).then(
        actions.shown_with_notice, **picture, api_name="show_link", **LIVE
    )


def _wire_export(parts: Parts) -> None:
    form, exports, picture = parts.form(), parts.exports, parts.picture()
    parts.export_tab.select(
        described, form, [exports.notice, exports.recipe, exports.link], api_name="recipe", **WATCH
    ).then(None, exports.link, exports.link, js=LINK_JS)
    exports.download.click(
        exported, form, [exports.notice, exports.file], api_name="download_merged_model", **LIVE | ONCE
    ).success(None, js=CLICK_JS.format("merged-file"))
    exports.save_recipe.click(
        saved_recipe, form, [exports.notice, exports.recipe_file], api_name="download_recipe", **WATCH | ONCE
    ).success(None, js=CLICK_JS.format("recipe-file"))
    pushing = parts.pushing
    pushing.button.click(
        pushed,
        [*pushing.asked(), *form],
        [pushing.notice, pushing.token],
        api_name="push_to_hub",
        **SLOW | ONCE,
    )
    exports.upload.upload(
        actions.recipe_opened,
        [exports.upload, parts.picker.pool],
        [exports.notice, *form],
        api_name="open_recipe",
        **WATCH,
    ).then(job_panel.ensured, form, parts.job.outputs(), api_name="estimate_recipe", **WATCH).then(
        actions.recipe_shown,
        picture["inputs"],
        [exports.recipe, *picture["outputs"]],
        api_name="show_recipe",
        **LIVE,
    )
