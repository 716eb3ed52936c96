"""All panels of the page, and how their events are queued."""

from dataclasses import dataclass

import gradio as gr

from components.explore import Explore
from components.export_panel import ExportPanel
from components.inspect import Inspect
from components.job_panel import JobPanel
from components.learn import Learn
from components.merge_history import MergeHistory
from components.merge_settings import MergeSettings
from components.pool_picker import PoolPicker
from components.push_panel import PushPanel
from components.rule_picker import RulePicker
from components.score_charts import ScoreCharts
from components.tradeoffs import TradeoffPanel
from components.weight_sliders import WeightSliders

# What is asked for while the answer before is on its way is asked for after it. Gradio's own habit is to leave it out, and
# the page would stay as the earlier answer made it.
LAST = {"trigger_mode": "always_last"}
LIVE = {"concurrency_id": "device", "concurrency_limit": 2, "show_progress": "minimal", **LAST}
# A preview never waits for the queue, nor for the evaluation of all rows that another move began; nor does that of the
# next one, which Gradio would leave out while one goes on.
MOVE = {"queue": False, "show_progress": "hidden", **LAST}
SETTLE = {"concurrency_id": "settle", "concurrency_limit": 1, "show_progress": "hidden", "trigger_mode": "multiple"}
SLOW = {"concurrency_limit": 4, "show_progress": "minimal", **LAST}
WATCH = {"concurrency_limit": None, "show_progress": "hidden", "queue": True, **LAST}
# What is pressed twice is done once; and a poll that is late is not made up for.
ONCE = {"trigger_mode": "once"}
POLL = WATCH | ONCE


def place_statuses(page: gr.Blocks) -> None:
    """Each event's status ("processing | 1.2 s") stands on its pictures and its first text; on nothing where it is hidden.

    At each of the server's messages Gradio's page goes through all that ever had a status, and all that is inside of it.
    """
    for event in page.fns.values():
        texts = [one for one in event.outputs if isinstance(one, gr.HTML)]
        pictures = [one for one in event.outputs if isinstance(one, gr.Plot)]
        event.show_progress_on = [] if event.show_progress == "hidden" else [*texts[:1], *pictures]


@dataclass(frozen=True)
class Parts:
    """All panels of the page."""

    page: gr.Blocks
    sidebar: gr.Sidebar
    width_px: gr.Number
    query: gr.Textbox
    tabs: gr.Tabs
    picker: PoolPicker
    job: JobPanel
    weights: WeightSliders
    charts: ScoreCharts
    settings: MergeSettings
    rules: RulePicker
    weighed: TradeoffPanel
    kept: MergeHistory
    inspect_tab: gr.Tab
    inspect: Inspect
    explore_tab: gr.Tab
    explore: Explore
    learn_tab: gr.Tab
    learn: Learn
    export_tab: gr.Tab
    exports: ExportPanel
    pushing: PushPanel

    def form(self) -> list[gr.components.Component]:
        """The widgets that a recipe is read from, in the order of `Form`."""
        picker, settings = self.picker, self.settings
        return [
            *[picker.models, picker.heads, picker.tasks, picker.labels, picker.examples, picker.seed],
            *[settings.floor, settings.normalise, settings.zero_rule, picker.device, settings.split, picker.base],
            *self.weights.sliders,
            *self.rules.fields(),
        ]

    def reopened(self) -> list[gr.components.Component]:
        """What a link, or a merge of the visit, sets: pool, preset, description, then the form."""
        return [self.picker.pool, self.picker.preset, self.picker.about, *self.form()]

    def picture(self) -> dict[str, list[gr.components.Component]]:
        """What `shown` reads and redraws."""
        return {
            "inputs": [self.width_px, *self.form()],
            "outputs": [*self.charts.outputs(), self.weights.shares],
        }
