"""The Explore λ tab: what every λ gives, and the search for the best one."""

from dataclasses import dataclass

import gradio as gr

from components.frames import Frame, create_frame

POLL_S = 1.0
LONGEST_SEARCH = 500
FARTHEST_ODDS = 6.0  # λ of 0.0025 and 0.9975
INTRODUCTION = (
    "Which λ is best? Weights are **chosen on the `validation` split and then reported on `test`**, whose rows play no "
    "part in the choice. Click a point and the sliders of the Merge tab go there; Undo brings them back."
)


@dataclass(frozen=True)
class Explore:
    """The widgets of the Explore λ tab.

    `notice` says how the tab stands, `told` what became of a click; `drawn` marks what the pictures show, so that
    nothing is drawn twice; `due` changes when they are to follow a running search.
    """

    notice: gr.HTML
    told: gr.HTML
    objective: gr.Dropdown
    budget: gr.Slider
    start: gr.Button
    stop: gr.Button
    progress: gr.HTML
    timer: gr.Timer
    job_id: gr.BrowserState
    frame: Frame
    second: Frame
    best: gr.HTML
    use_best: gr.Button
    odds_row: gr.Column
    odds: gr.Slider
    odds_text: gr.HTML
    drawn: gr.State
    due: gr.State

    def asked(self) -> list[gr.components.Component]:
        """What the visitor asks for, beside the form."""
        return [self.drawn, self.job_id, self.objective, self.budget]

    def outputs(self) -> list[gr.components.Component]:
        """The outputs of the tab's events."""
        around = [self.notice, self.objective, self.start, self.stop, self.progress, self.timer, self.job_id]
        frames = [*self.frame.outputs(), *self.second.outputs()]
        return [*around, *frames, self.best, self.use_best, self.odds_row, self.odds_text, self.drawn]


def create_explore() -> Explore:
    """Empty: filled when the tab is opened."""
    gr.Markdown(INTRODUCTION)
    notice = gr.HTML(elem_id="explore-notice", elem_classes="studio-message")
    with gr.Row(elem_classes="studio-explore"):
        objective = gr.Dropdown(
            [("mean over the tasks", "mean"), ("worst task", "worst")], value="mean", label="Best by", min_width=240
        )
        budget = gr.Slider(
            10,
            LONGEST_SEARCH,
            value=100,
            step=10,
            label="Merges to try with each rule",
            interactive=True,
            buttons=[],
            min_width=240,
            info="two models: at least the paper’s grid of 51; three: at least a lattice of 66",
        )
    with gr.Row():
        start = gr.Button("Explore λ", variant="primary", scale=3, min_width=160)
        stop = gr.Button("Stop exploring", variant="stop", interactive=False, scale=1, min_width=170)
    progress = gr.HTML(elem_id="explore-progress")
    told = gr.HTML(elem_id="explore-told", elem_classes="studio-message")
    frame = create_frame("Scores over λ", "explore", can_pick=True)
    best = gr.HTML(elem_id="explore-best")
    use_best = gr.Button("Set sliders to the best", size="sm", visible=False)
    with gr.Column(visible=False) as odds_row:
        odds = gr.Slider(
            -FARTHEST_ODDS,
            FARTHEST_ODDS,
            value=0,
            step=0.05,
            label="log-odds of λ",
            info="ln(λ₁/λ₂): 0 is equal; moves both λ sliders, finely near the ends",
            interactive=True,
            buttons=[],
        )
        odds_text = gr.HTML(elem_id="explore-odds")
    second = create_frame("Scores over λ in detail", "explore-detail", can_pick=True)
    # The secret is not one: it only keeps the stored value the same after a restart of the server.
    job_id = gr.BrowserState("", storage_key="fisher-merge-studio-search", secret="fisher-merge-studio")
    timer = gr.Timer(POLL_S, active=False)
    parts = (notice, told, objective, budget, start, stop, progress, timer, job_id, frame, second, best, use_best)
    return Explore(*parts, odds_row, odds, odds_text, gr.State(""), gr.State(""))
