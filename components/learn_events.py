"""The events of the Learn tab."""

from functools import partial

import gradio as gr

from components import learn, learn_lessons
from components.learn import COSTS, PRESETS, QUALITY
from components.pages import LESSONS, in_turn
from components.parts import ONCE, POLL, WATCH, Parts


def wire(parts: Parts) -> None:
    """Connects the tab's widgets; each event has an `api_name`."""
    _wire_lessons(parts)
    _wire_gaussians(parts)
    _wire_measurement(parts, QUALITY, "quality")
    _wire_measurement(parts, COSTS, "costs")


def _wire_lessons(parts: Parts) -> None:
    panel = parts.learn.lessons
    page = {"inputs": panel.moved(), "outputs": panel.outputs()}
    in_order = in_turn(LESSONS)
    gr.on(
        [parts.learn_tab.select, parts.learn.lessons_tab.select],
        in_order(learn_lessons.reopened),
        **page,
        api_name="open_lessons",
        **WATCH | ONCE,  # both tabs tell of the same
    )
    panel.lesson.input(
        in_order(learn_lessons.chosen),
        [panel.lesson, *panel.moved()],
        panel.outputs(),
        api_name="choose_lesson",
        **WATCH,
    )
    panel.back.click(in_order(learn_lessons.went_back), **page, api_name="lesson_back", **WATCH)
    panel.next.click(in_order(learn_lessons.went_on), **page, api_name="lesson_next", **WATCH)
    panel.compute.click(in_order(learn_lessons.computed), **page, api_name="compute_lesson", **WATCH)
    panel.stop.click(in_order(learn_lessons.stopped), **page, api_name="stop_lesson", **WATCH)
    panel.timer.tick(in_order(learn_lessons.polled), **page, api_name="lesson_progress", **POLL)
    gr.on(
        [panel.count.input, panel.share.input],
        in_order(learn_lessons.redrawn),
        panel.moved(),
        panel.frame.outputs(),
        api_name="move_lesson",
        **WATCH,
    )
    panel.check.click(
        in_order(learn_lessons.answered),
        [*panel.moved(), panel.choice],
        panel.feedback,
        api_name="check_answer",
        **WATCH,
    )


def _wire_gaussians(parts: Parts) -> None:
    tab = parts.learn
    sliders = [*tab.sliders, *tab.kept]
    gr.on(
        [tab.gaussians_tab.select, *(slider.change for slider in sliders)],
        learn.drawn,
        sliders,
        [*tab.gaussians.outputs(), tab.formula, *tab.ladder.outputs()],
        api_name="draw_gaussians",
        **WATCH,
    )
    for button, (name, values) in zip(tab.presets, PRESETS.items(), strict=True):
        # The sliders' own event draws what has changed.
        button.click(
            partial(list, values), None, tab.sliders, api_name=f"gaussians_{name.lower().replace(' ', '_')}", **WATCH
        )


def _wire_measurement(parts: Parts, what: str, name: str) -> None:
    tab = parts.learn
    job, frame, opened = getattr(tab, f"{name}_job"), getattr(tab, name), getattr(tab, f"{name}_tab")
    form, outputs = [parts.width_px, *parts.form()], [*job.outputs(), *frame.outputs()]
    watch = {"inputs": [parts.width_px, job.job_id], "outputs": outputs}
    opened.select(partial(learn.opened, what), form, frame.outputs(), api_name=f"open_{name}", **WATCH)
    job.start.click(partial(learn.measured, what), form, outputs, api_name=f"measure_{name}", **WATCH)
    job.stop.click(partial(learn.stopped, what), **watch, api_name=f"stop_{name}", **WATCH)
    job.timer.tick(partial(learn.polled, what), **watch, api_name=f"{name}_progress", **POLL)
