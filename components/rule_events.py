"""What happens when rules are chosen, or their settings are changed."""

import gradio as gr

from components import job_panel
from components.parts import LIVE, SLOW, WATCH, Parts
from components.rule_picker import explained
from components.score_charts import shown
from components.tradeoffs import DUE_JS, weighed


def wire(parts: Parts) -> None:
    """Another rule may take what was not estimated yet; settings of rules are applied like all others."""
    rules, picture = parts.rules, parts.picture()
    chosen = [rules.rule, rules.beside]
    # Also where a recipe that is opened chooses.
    gr.on(
        [widget.change for widget in chosen],
        explained,
        chosen,
        rules.explained(),
        api_name="explain_rules",
        **SLOW,
    )
    gr.on(
        [widget.input for widget in chosen],
        job_panel.ensured,
        parts.form(),
        parts.job.outputs(),
        api_name="estimate_rules",
        **WATCH,
    ).then(shown, **picture, api_name="apply_rules", **LIVE)
    gr.on(
        [rules.scale.change, rules.layer_weights.blur, *(number.change for number in rules.numbers())],
        shown,
        **picture,
        api_name="apply_rule_settings",
        **LIVE,
    )
    _wire_tradeoffs(parts)


def _wire_tradeoffs(parts: Parts) -> None:
    """Score against cost: drawn when it is opened, for another cost, and when the chart's numbers change below it."""
    panel = parts.weighed
    asked = {"inputs": [panel.cost, parts.width_px, *parts.form()], "outputs": panel.frame.outputs(), **SLOW}
    panel.panel.expand(weighed, **asked, api_name="open_tradeoffs")
    panel.cost.input(weighed, **asked, api_name="choose_cost")
    parts.charts.table.change(None, panel.due, panel.due, js=DUE_JS)
    panel.due.change(weighed, **asked, api_name="follow_tradeoffs")
