"""What happens on the Explore λ tab: every event, by its public name."""

import gradio as gr

from components import explore_actions as actions
from components.explore_odds import odds_moved, odds_of
from components.pages import SEARCH, in_turn
from components.parts import LIVE, ONCE, POLL, SLOW, WATCH, Parts

# The width that an event sends: 0 where another of the page's tabs is open, -1 where the browser shows another page, so that
# nothing is drawn for nobody.
WIDTH_JS = "!document.querySelector('#explore-progress')?.offsetParent ? 0 : document.hidden ? -1 : window.innerWidth"
ON_SCREEN_JS = f"""(drawn, job, objective, budget, width, ...form) => [drawn, job, objective, budget,
    {WIDTH_JS}, ...form]"""
POLL_JS = f"(drawn, job, width) => [drawn, job, {WIDTH_JS}]"


def wire(parts: Parts) -> None:
    """Connects the tab's widgets; each event has an `api_name`."""
    tab, form = parts.explore, parts.form()
    asked = {"inputs": [*tab.asked(), parts.width_px, *form], "outputs": tab.outputs()}
    seen = {**asked, "js": ON_SCREEN_JS}
    odds = {"fn": odds_of, "inputs": form, "outputs": tab.odds, **WATCH}
    in_order = in_turn(SEARCH)
    watched = in_order(actions.watched)
    whole = {**asked, "outputs": [*tab.outputs(), tab.odds]}
    parts.explore_tab.select(in_order(actions.opened), **whole, api_name="explore", **SLOW)
    tab.start.click(in_order(actions.begun), **asked, api_name="explore_start", **SLOW | ONCE)
    tab.stop.click(in_order(actions.stopped), **asked, api_name="explore_stop", **WATCH)
    tab.timer.tick(
        actions.polled,
        [tab.drawn, tab.job_id, parts.width_px],
        [tab.progress, tab.due],
        js=POLL_JS,
        api_name="explore_progress",
        **POLL,
    )
    tab.due.change(watched, **seen, api_name="explore_step", **WATCH)
    gr.on(
        [tab.objective.input, tab.budget.release, parts.picker.changed.change, parts.job.finished.change],
        watched,
        **seen,
        api_name="explore_choices",
        **SLOW,
    )
    parts.picker.changed.change(actions.budget_of, parts.picker.models, tab.budget, api_name="explore_budget", **WATCH)
    sliders = [tab.told, *parts.weights.sliders]
    models = parts.picker.models
    for field, name in ((tab.frame.picked, "pick_weights"), (tab.second.picked, "pick_trial")):
        field.input(actions.picked, [field, models], sliders, api_name=name, **WATCH).then(
            watched, **asked, api_name=f"{name}_shown", **SLOW
        ).then(**odds, api_name=f"{name}_odds")
    tab.use_best.click(actions.best_used, [tab.objective, *form], sliders, api_name="use_best_weights", **WATCH).then(
        watched, **asked, api_name="use_best_shown", **SLOW
    ).then(**odds, api_name="use_best_odds")
    tab.odds.input(
        odds_moved,
        [tab.odds, models],
        [tab.odds_text, *parts.weights.sliders],
        api_name="move_odds",
        **LIVE,
    ).then(watched, **asked, api_name="move_odds_shown", **LIVE)
