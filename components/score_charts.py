"""The Merge tab's picture: per-task bars, their numbers, and a sentence that says what they show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gradio as gr

from components.figures import empty_score_figure
from components.first_picture import kept, picture_of
from components.form import Form, recipe_of
from components.jobs import REGISTRY
from components.modes import is_hosted
from components.pages import PAGES, session_hash
from components.right_of_way import LIVE
from components.store import STORE, preparation_key
from components.tables import notice, preview_sentence, weight_shares
from components.weight_sliders import slider_names
from merging.errors import Cancelled, MergingError
from merging.pipeline import Result
from merging.recipe import Recipe

NOT_PREPARED = "The Fishers of this choice are not there yet: press “Estimate Fisher” in the sidebar."
NO_FISHERS = (
    "The chosen rules take no Fisher, so there is none to look at: choose “Fisher merge” as the rule, or put it beside."
)
NOTHING = "No models yet: add two or more in the sidebar."
DESKTOP_PX = 1200
# How long all rows of a batch wait at most for other visitors' moves.
SETTLE_WAIT_S = 0.3
ESTIMATING = "The Fishers of this choice are being estimated; the sidebar says how far it is."


@dataclass(frozen=True)
class ScoreCharts:
    """The widgets that every move of a slider redraws, in the order of `shown`."""

    notice: gr.HTML
    sentence: gr.HTML
    chart: gr.Plot
    table: gr.HTML
    # Hidden: `page.js` names the preview here once it is painted, which asks for all rows.
    preview: gr.Textbox

    def outputs(self) -> list[gr.components.Component]:
        """The outputs of `shown`, without the bar of normalised weights."""
        return [self.notice, self.sentence, self.chart, self.table]


def create_score_charts(first: Recipe) -> ScoreCharts:
    """With the picture of the page's first recipe where it was kept; else the page's load event fills them."""
    sentence_html, figure, table_html = kept(first, DESKTOP_PX) or ["", empty_score_figure(), ""]
    message = gr.HTML(elem_id="notice", elem_classes="studio-message")
    sentence = gr.HTML(sentence_html, elem_id="sentence")
    chart = gr.Plot(figure, label="Accuracy per task", show_label=False, elem_id="score-chart", buttons=[])
    table = gr.HTML(table_html, elem_id="score-table")
    preview = gr.Textbox(label="preview shown", visible="hidden", elem_id="preview-picked", max_length=40)
    return ScoreCharts(message, sentence, chart, table, preview)


def shown(width_px: float, *values: object) -> list[object]:
    """Merges at the page's weights and scores the merge: notice, sentence, chart, table, normalised weights.

    Where something is wrong the notice says so and the last good picture stays; so it does once another is asked for.
    """
    return _latest(width_px, values, lambda recipe, _: STORE.live_result(recipe))


def previewed(width_px: float, *values: object) -> list[object]:
    """The same while a slider moves: on a sample of the rows where all of them take long; `settled` shows all."""
    return _latest(width_px, values, lambda recipe, _: STORE.preview(recipe))


def settled(preview: str, width_px: float, *values: object) -> list[object]:
    """What `shown` gives, where the page shows a preview; nothing once another picture is asked for.

    A form that waits here while the hand moves on is not settled: its picture would stand under other weights.
    """
    if not preview:
        return [gr.skip()] * 5

    def result_of(recipe: Recipe, check: Callable[[], None]) -> Result | None:
        def between() -> None:
            LIVE.give(SETTLE_WAIT_S)
            check()

        return STORE.live_result(recipe, between=between)

    return _latest(width_px, values, result_of, settles=True)


def _latest(
    width_px: float,
    values: tuple,
    result_of: Callable[[Recipe, Callable[[], None]], Result | None],
    *,
    settles: bool = False,
) -> list[object]:
    """The picture of a form, unless the page asks for another meanwhile; `result_of` is given what raises Cancelled then."""
    try:
        check = PAGES.begin_picture(session_hash(), values, settles=settles)
        picture = _shown(width_px, values, lambda recipe: result_of(recipe, check))
        check()
    except Cancelled:
        return [gr.skip()] * 5
    return picture


def _shown(width_px: float, values: Sequence[object], result_of: Callable[[Recipe], Result | None]) -> list[object]:
    form = Form.of(*values)
    if not form.models:
        return [notice(NOTHING), "", empty_score_figure(), "", ""]
    try:
        recipe = recipe_of(form, hosted=is_hosted())
        result = result_of(recipe)
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * 4]
    shares = weight_shares(slider_names(form.models), recipe.weights)
    width_px = width_px or DESKTOP_PX
    if result is not None:
        sentence, *others = picture_of(result, width_px)
        if result.recipe.evaluation != recipe.evaluation:
            sentence = preview_sentence(result) + sentence
        return ["", sentence, *others, shares]
    if (picture := kept(recipe, width_px)) is not None:
        return ["", *picture, shares]
    busy = REGISTRY.active(preparation_key(recipe)) is not None
    return [notice(ESTIMATING if busy else NOT_PREPARED), "", empty_score_figure() if busy else None, "", shares]
