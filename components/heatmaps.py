"""The Inspect tab: where each model's Fisher is large, and who owns which layer of the merge."""

from dataclasses import dataclass
from html import escape

import gradio as gr

from components.figures import heatmap_figure, owner_figure
from components.form import Form, recipe_of
from components.pool_picker import is_hosted
from components.score_charts import DESKTOP_PX, NOT_PREPARED
from components.store import STORE
from components.tables import notice
from merging.diagnostics import FisherMap, fisher_map
from merging.errors import MergingError


@dataclass(frozen=True)
class Heatmaps:
    """The widgets of the Inspect tab, in the order of `inspected`."""

    notice: gr.HTML
    heatmap: gr.Plot
    owners: gr.Plot
    facts: gr.HTML

    def outputs(self) -> list[gr.components.Component]:
        """The outputs of `inspected`."""
        return [self.notice, self.heatmap, self.owners, self.facts]


def create_heatmaps() -> Heatmaps:
    """Empty: filled when the tab is opened, and whenever what it shows changes."""
    message = gr.HTML(elem_id="inspect-notice", elem_classes="studio-message")
    gr.Markdown(
        "## Where each model is sure of its parameters\n"
        "Mean Fisher per layer and kind of parameter, log₁₀, one colour scale for all models. "
        "Brighter: the model's predictions depend more on these parameters."
    )
    heatmap = gr.Plot(label="Fisher per layer", show_label=False, elem_id="fisher-heatmap", buttons=[])
    gr.Markdown(
        "## Who owns which layer\n"
        "The model with the largest share of Σ λF in each cell, and its share in per cent, at the weights of the "
        "Merge tab. Near 100: this part of the merge is that model's."
    )
    owners = gr.Plot(label="Owner map", show_label=False, elem_id="owner-map", buttons=[])
    facts = gr.HTML(elem_id="fisher-facts")
    return Heatmaps(message, heatmap, owners, facts)


def inspected(width_px: float, *values: object) -> list[object]:
    """The Fishers behind the page's merge: notice, heatmap, owner map, table."""
    try:
        recipe = recipe_of(Form.of(*values), hosted=is_hosted())
        prepared = STORE.get(recipe)
        if prepared is None:
            return [notice(NOT_PREPARED), None, None, ""]
        fisher = fisher_map(prepared, recipe)
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * 3]
    return ["", heatmap_figure(fisher, int(width_px or DESKTOP_PX)), owner_figure(fisher), _facts(fisher)]


def _facts(fisher: FisherMap) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{trace:.3g}</td><td>{100 * zeros:.2f}</td><td>{100 * share:.1f}</td></tr>'
        for name, trace, zeros, share in zip(
            fisher.models, fisher.traces, fisher.zeros, fisher.total_share, strict=True
        )
    )
    return (
        '<div class="studio-scroll" tabindex="0" role="region" aria-label="Fishers in figures"><table class="studio-table">'
        "<caption>The Fishers in figures. The raw trace differs between models that differ in confidence, which is why "
        "it is normalised by default.</caption><thead><tr>"
        '<th scope="col">model</th><th scope="col">trace (raw)</th><th scope="col">% of parameters with F = 0</th>'
        '<th scope="col">% of Σ λF</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )
