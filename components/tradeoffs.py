"""Score against cost of all methods that the chart shows: folded, drawn when it is opened, and anew with the chart."""

from dataclasses import dataclass

import gradio as gr

from components.form import Form, recipe_of
from components.frames import Frame, create_frame, empty, framed
from components.modes import is_hosted
from components.score_charts import DESKTOP_PX, NOT_PREPARED, NOTHING
from components.store import live_result
from components.style import ordered
from components.tradeoff_figures import COST_TITLES, tradeoff_picture
from merging.diagnostics import COSTS, tradeoffs
from merging.errors import MergingError

NAME = "Score against cost"
# Due only where it is open, and not for a preview, whose numbers are of a sample.
DUE_JS = """(due) => document.querySelector('#tradeoffs-panel > button.open, #tradeoffs-panel .label-wrap.open')
    && !document.querySelector('.studio-preview') ? String(performance.now()) : due"""


@dataclass(frozen=True)
class TradeoffPanel:
    """The widgets; `due` changes when the picture is to follow the chart."""

    panel: gr.Accordion
    cost: gr.Radio
    frame: Frame
    due: gr.Textbox


def create_tradeoffs() -> TradeoffPanel:
    """Closed and empty."""
    with gr.Accordion(NAME, open=False, elem_id="tradeoffs-panel") as panel:
        cost = gr.Radio(
            [(COST_TITLES[kind], kind) for kind in COSTS],
            value=COSTS[0],
            label="Cost",
            info="choose more rules above to compare them",
        )
        frame = create_frame(NAME, "tradeoffs")
    due = gr.Textbox("", visible=False)
    return TradeoffPanel(panel, cost, frame, due)


def weighed(cost: str, width_px: float, *values: object) -> list[object]:
    """The picture for the page's merge: sentence, figure, numbers."""
    form = Form.of(*values)
    if not form.models:
        return empty(NOTHING)
    try:
        result = live_result(recipe_of(form, hosted=is_hosted()))
    except MergingError as problem:
        return empty(str(problem), "error")
    if result is None:
        return empty(NOT_PREPARED)
    means = {method: result.mean(method) for method in ordered(result.scores)}
    points = tradeoffs(result.prepared, result.recipe, means, result.merge_seconds)
    asked = {"own": result.recipe.rule, "split": result.recipe.evaluation.split}
    kind = cost if cost in COSTS else COSTS[0]
    return framed(tradeoff_picture(points, kind, width_px=int(width_px or DESKTOP_PX), **asked), NAME)
