"""How the Fishers are used in the merge, and on which split it is scored: all applied live."""

from dataclasses import dataclass

import gradio as gr

from merging.recipe import EvaluationSettings, FisherSettings
from merging.scales import NORMALISATIONS
from merging.weights import ZERO_RULES

SETTINGS = FisherSettings()


@dataclass(frozen=True)
class MergeSettings:
    """The settings that need no new estimation."""

    split: gr.Radio
    normalise: gr.Radio
    zero_rule: gr.Radio
    floor: gr.Number
    merge: gr.Button


def create_merge_settings() -> MergeSettings:
    """A row of settings under the chart."""
    with gr.Row():
        split = gr.Radio(
            ["validation", "test"],
            value=EvaluationSettings().split,
            label="Scored on",
            info="choose λ and settings on validation; test is for the report",
        )
        normalise = gr.Radio(
            list(NORMALISATIONS),
            value=SETTINGS.normalise,
            label="Normalise F",
            info="divide each Fisher by its own size",
        )
        zero_rule = gr.Radio(
            list(ZERO_RULES),
            value=SETTINGS.zero_rule,
            label="Where Σ λF = 0",
            info="λ-weighted mean, first model, or base",
        )
        floor = gr.Number(SETTINGS.floor, label="Floor of F", info="raises smaller values to it", min_width=120)
    merge = gr.Button("Merge and evaluate", variant="primary")
    return MergeSettings(split, normalise, zero_rule, floor, merge)
