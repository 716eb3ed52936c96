"""The Inspect tab: where each model's Fisher is large, who owns what, and how models and merges differ."""

from dataclasses import dataclass

import gradio as gr

from components.form import ROWS
from components.frames import Frame, create_frame
from components.learn_jobs import LearnJob, create_learn_job

MAPS, MATRIX, MIXING, SIMILARITY, DISTANCES, PLANE = "maps", "matrix", "mixing", "similarity", "distances", "plane"
TITLES = {
    MAPS: "Fisher maps",
    MATRIX: "Every task",
    MIXING: "Mixing weights",
    SIMILARITY: "Similar tasks",
    DISTANCES: "Distance moved",
    PLANE: "Loss plane",
}
FRAMES = {
    "heatmap": ("Fisher per layer", "fisher-heatmap"),
    "cell": ("Tensors of a place", "cell-tensors"),
    "owners": ("Owner map", "owner-map"),
    "facts": ("The Fishers in figures", "fisher-facts"),
    "difference": ("One Fisher over another", "fisher-difference"),
    "matrix": ("Every model on every task", "task-matrix"),
    "mixing": ("Histogram of mixing weights", "mixing"),
    "percentiles": ("Percentiles of F", "fisher-percentiles"),
    "cosine": ("Cosine of the Fishers", "task-cosine"),
    "task2vec": ("Task2Vec distance", "task2vec"),
    "moved": ("Distance from the base", "moved-base"),
    "apart": ("Distance from the isotropic average", "moved-isotropic"),
    "plane": ("Loss on a plane", "loss-plane"),
}
PICKABLE = ("heatmap", "owners", "difference")
DRAW_PLANE, FILL_MATRIX = "Draw the loss plane", "Fill the table"


@dataclass(frozen=True)
class Inspect:
    """The widgets of the Inspect tab; `view` remembers which section is open and what was chosen in it."""

    view: gr.State
    notice: gr.HTML
    tabs: dict[str, gr.Tab]
    frames: dict[str, Frame]
    pair: list[gr.Dropdown]
    by: gr.Radio
    corners: list[gr.Dropdown]
    jobs: dict[str, LearnJob]

    def outputs_of(self, section: str) -> list[gr.components.Component]:
        """What opening a section fills, without the notice."""
        own = {
            MAPS: [*self._frames("heatmap", "cell", "owners", "facts"), *self.pair, *self._frames("difference")],
            MATRIX: [*self.jobs[MATRIX].outputs(), *self._frames("matrix")],
            MIXING: self._frames("mixing", "percentiles"),
            SIMILARITY: self._frames("cosine", "task2vec"),
            DISTANCES: self._frames("moved", "apart"),
            PLANE: [*self.corners, *self.jobs[PLANE].outputs(), *self._frames("plane")],
        }
        return own[section]

    def outputs(self) -> list[gr.components.Component]:
        """What opening the tab fills: the notice, then all sections."""
        return [self.notice, *(widget for section in TITLES for widget in self.outputs_of(section))]

    def _frames(self, *names: str) -> list[gr.components.Component]:
        return [widget for name in names for widget in self.frames[name].outputs()]


def create_inspect(models: list[str]) -> Inspect:
    """Six sections, each filled when it is opened; `models` are those that the page opens on."""
    notice = gr.HTML(elem_id="inspect-notice", elem_classes="studio-message")
    tabs, frames, jobs = {}, {}, {}
    create = {
        MAPS: lambda: _create_maps(frames, models),
        MATRIX: lambda: _create_matrix(frames, jobs),
        MIXING: lambda: _create_mixing(frames),
        SIMILARITY: lambda: _create_similarity(frames),
        DISTANCES: lambda: _create_distances(frames),
        PLANE: lambda: _create_plane(frames, jobs, models),
    }
    made = {}
    with gr.Tabs():
        for section, title in TITLES.items():
            with gr.Tab(title, id=f"inspect-{section}") as tabs[section]:
                made[section] = create[section]()
    return Inspect(gr.State({}), notice, tabs, frames, made[MAPS], made[DISTANCES], made[PLANE], jobs)


def _create_maps(frames: dict[str, Frame], models: list[str]) -> list[gr.Dropdown]:
    gr.Markdown(
        "## Where each model is sure of its parameters\n"
        "Mean Fisher per layer and kind of parameter, log₁₀, one colour scale for all models. "
        "Brighter: the model's predictions depend more on these parameters."
    )
    _frame(frames, "heatmap")
    _frame(frames, "cell")
    gr.Markdown(
        "## Who owns which layer\n"
        "The model with the largest share of Σ λF in each cell, and its share in per cent, at the weights of the "
        "Merge tab. Near 100: this part of the merge is that model's."
    )
    _frame(frames, "owners")
    _frame(frames, "facts")
    gr.Markdown("## Where two models differ")
    with gr.Row():
        pair = [_dropdown(label, models, place) for place, label in enumerate(("Fisher of", "compared with that of"))]
    _frame(frames, "difference")
    return pair


def _create_matrix(frames: dict[str, Frame], jobs: dict[str, LearnJob]) -> None:
    gr.Markdown(
        "## Every model on every task\n"
        "What each model gained, what it forgot, and what the merges keep of all of them. A model without a head for a task "
        "has its body under the task's head, marked †."
    )
    jobs[MATRIX] = create_learn_job(FILL_MATRIX, "Stop filling", "matrix-progress")
    _frame(frames, "matrix")


def _create_mixing(frames: dict[str, Frame]) -> None:
    gr.Markdown(
        "## Who decides a coordinate\n"
        "Every merged coordinate is a weighted mean of the models', with weights λF/ΣλF. Filled: at the λ of the Merge tab; "
        "dashed: at equal λ. Much at both ends: most coordinates are one model's."
    )
    _frame(frames, "mixing")
    gr.Markdown("## How large the entries of F are")
    _frame(frames, "percentiles")


def _create_similarity(frames: dict[str, Frame]) -> None:
    gr.Markdown(
        "## Which tasks are alike\n"
        "Tasks that need the same parameters have similar Fishers. **Cosine**: over all coordinates of the body, 1 for alike. "
        "**Task2Vec**: 1 − cos(Fa/(Fa+Fb), Fb/(Fa+Fb)), over the means of each output unit, 0 for alike; the Fishers are "
        "normalised as in the merge, and heads are left out."
    )
    with gr.Row():
        for name in ("cosine", "task2vec"):
            with gr.Column(min_width=300):
                _frame(frames, name)


def _create_distances(frames: dict[str, Frame]) -> gr.Radio:
    gr.Markdown("## How far each layer has moved\n‖θ − θ₀‖ / ‖θ₀‖ of every model and of the merges.")
    by = gr.Radio([("layer", "layer"), ("kind", "kind")], value="layer", label="For each")
    gr.Markdown("### From the base")
    _frame(frames, "moved")
    gr.Markdown("### From the isotropic average")
    _frame(frames, "apart")
    return by


def _create_plane(frames: dict[str, Frame], jobs: dict[str, LearnJob], models: list[str]) -> list[gr.Dropdown]:
    gr.Markdown(
        "## The loss on the plane through three models\n"
        "Three models span a plane in the space of all parameters. Drawn is the mean loss (cross-entropy) over the tasks on "
        "the `validation` split, each task with its own head. The isotropic average of these three lies in the plane; the "
        "Fisher merge need not."
    )
    with gr.Row():
        corners = [_dropdown(f"Corner {place + 1}", models, place, with_base=True) for place in range(3)]
    jobs[PLANE] = create_learn_job(DRAW_PLANE, "Stop drawing", "plane-progress")
    _frame(frames, "plane")
    return corners


def _frame(frames: dict[str, Frame], name: str) -> None:
    frames[name] = create_frame(*FRAMES[name], can_pick=name in PICKABLE)


def _dropdown(label: str, models: list[str], place: int, *, with_base: bool = False) -> gr.Dropdown:
    choices = [*models, "base"][: ROWS + 1] if with_base else models
    return gr.Dropdown(choices, value=choices[min(place, len(choices) - 1)], label=label, min_width=160)
