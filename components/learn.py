"""The Learn tab: why Fisher merging works, by things to move."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from components.form import Form, recipe_of
from components.frames import Frame, create_frame, empty, framed
from components.jobs import REGISTRY, Job
from components.learn_figures import cost_picture, quality_picture
from components.learn_gaussians import formula_html, gaussians_picture, ladder_picture
from components.learn_jobs import LearnJob, create_learn_job, job_and_frame, job_state
from components.learn_lessons import LessonPanel, create_lessons
from components.modes import is_hosted
from components.pages import visitor, watch, watched_job
from components.picture import Picture
from components.score_charts import DESKTOP_PX, NO_FISHERS, NOT_PREPARED
from components.store import STORE
from components.tables import notice
from merging.diagnostics.costs import measure_costs
from merging.diagnostics.gaussians import Gaussian
from merging.diagnostics.quality import fisher_quality
from merging.errors import MergingError, RecipeError
from merging.readers import account
from merging.recipe import Recipe
from merging.rules.settings import DEFAULTS, RuleSettings

GAUSSIANS, LADDER = "Two Gaussians", "The ladder from isotropic to full"
QUALITY, COSTS = "Fisher quality against examples", "What it costs"
CENTRES = ((1.0, 2.0), (3.0, 0.0))
# F of the two models, along θ₁, along θ₂ and tilt, then λ of the first: two small regressions, whose merges are known.
EXAMPLE = (2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.5)
UPRIGHT = (4.0, 0.5, 0.0, 0.5, 4.0, 0.0, 0.5)
ALIKE = (1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.5)
CROSSED = (7.0, 6.0, 4.0, 2.0, 4.0, -2.5, 0.5)
PRESETS = {
    "Two regressions": EXAMPLE,
    "Each sure of one parameter": UPRIGHT,
    "Equally sure": ALIKE,
    "Tilted against each other": CROSSED,
}
KEPT = 16
MEASURE = {
    QUALITY: ("Measure the Fisher's quality", "Nothing is measured yet: press “Measure the Fisher's quality”."),
    COSTS: ("Measure the costs", "Nothing is measured yet: press “Measure the costs”."),
}
_MEASURED: OrderedDict[tuple[str, str], object] = OrderedDict()


@dataclass(frozen=True)
class Learn:
    """The widgets of the Learn tab."""

    lessons_tab: gr.Tab
    lessons: LessonPanel
    gaussians_tab: gr.Tab
    sliders: list[gr.Slider]
    presets: list[gr.Button]
    kept: list[gr.Slider]
    gaussians: Frame
    ladder: Frame
    formula: gr.HTML
    quality_tab: gr.Tab
    quality_job: LearnJob
    quality: Frame
    costs_tab: gr.Tab
    costs_job: LearnJob
    costs: Frame


def create_learn() -> Learn:
    """Four tabs: lessons, two Gaussians, quality, costs; each is filled when it is opened."""
    with gr.Tabs():
        with gr.Tab("Lessons", id="lessons") as lessons_tab:
            lessons = create_lessons()
        with gr.Tab("Two Gaussians", id="gaussians") as gaussians_tab:
            drawn = _create_gaussians()
        with gr.Tab("How many examples?", id="quality") as quality_tab:
            gr.Markdown(
                "## How many examples does a Fisher need?\n"
                "The Fishers of the page's models, estimated from 1, 2, 4, … examples, each a part of the next: how like each "
                "is to the last one, and how good the merge is with it. Weights and settings are those of the Merge tab."
            )
            quality_job = create_learn_job(MEASURE[QUALITY][0], "Stop measuring", "quality-progress")
            quality = create_frame(QUALITY, "quality")
        with gr.Tab("What it costs", id="costs") as costs_tab:
            gr.Markdown(
                "## What it costs\n"
                "For the page's models. Passes through a network are counted by PyTorch on 32 rows (matrix products and "
                "convolutions; a multiply-add is two operations) and scaled to all rows; a fine-tuning is taken as 20 epochs "
                "of forward and backward passes, without its optimiser. The Fisher is counted as it is computed, with one "
                "backward pass for two classes and K − 1 for K up to 16. A merge of M models takes 4M − 1 operations per parameter, "
                "the isotropic one 2M − 1. Seconds are measured on this machine, now, least of three runs, and scaled in the "
                "same way; only those of the merges are of the whole piece of work."
            )
            costs_job = create_learn_job(MEASURE[COSTS][0], "Stop measuring", "costs-progress")
            costs = create_frame(COSTS, "costs")
    return Learn(
        lessons_tab, lessons, gaussians_tab, *drawn, quality_tab, quality_job, quality, costs_tab, costs_job, costs
    )


def _create_gaussians() -> tuple[list[gr.Slider], list[gr.Button], list[gr.Slider], Frame, Frame, gr.HTML]:
    gr.Markdown(
        "## Why weigh by the Fisher\n"
        "Two models with two parameters each. An ellipse is where a model is equally unhappy: narrow across a direction that it "
        "is sure of, long along one that it does not care about. Its <b>precision</b> is its Fisher information: how fast it "
        "gets unhappy. Move the precisions and see where each way of merging lands, and what each step of the ladder gains: "
        "isotropic merging knows no precision, the diagonal those along θ₁ and θ₂, K-FAC a part of the tilt as well, "
        "the full Fisher all of it."
    )
    sliders = []
    with gr.Row():
        with gr.Column(scale=2, min_width=260):
            for model in (1, 2):
                first, second, tilt = EXAMPLE[3 * model - 3 : 3 * model]
                sliders.append(_slider(f"Model {model}: precision along θ₁ (F₁₁)", 0, 8, first))
                sliders.append(_slider(f"Model {model}: precision along θ₂ (F₂₂)", 0, 8, second))
                sliders.append(_slider(f"Model {model}: tilt (F₁₂)", -4, 4, tilt))
            sliders.append(_slider("λ of model 1", 0, 1, EXAMPLE[-1], step=0.05))
            with gr.Row():
                presets = [gr.Button(name, size="sm", min_width=120) for name in PRESETS]
            kept = [
                _slider("K-FAC: off-diagonals kept α", 0, 1, DEFAULTS.shrinkage, step=0.05),
                _slider("K-FAC: damping δ", 0, 1, DEFAULTS.damping, step=0.01),
            ]
        with gr.Column(scale=3, min_width=300):
            frame = create_frame(GAUSSIANS, "gaussians")
    with gr.Row():
        with gr.Column(min_width=300):
            ladder = create_frame(LADDER, "ladder")
        with gr.Column(min_width=300):
            formula = gr.HTML(elem_id="gaussians-formula")
    return sliders, presets, kept, frame, ladder, formula


def _slider(label: str, low: float, high: float, value: float, step: float = 0.1) -> gr.Slider:
    return gr.Slider(low, high, value=value, step=step, label=label, interactive=True, buttons=[])


def drawn(*values: object) -> list[object]:
    """The two Gaussians at the sliders' values: sentence, figure, numbers, formula; then the ladder's first three."""
    try:
        numbers = [_number(value) for value in values]
        models = [Gaussian(CENTRES[index], *numbers[3 * index : 3 * index + 3]) for index in (0, 1)]
        about = (models, [numbers[6], 1 - numbers[6]], RuleSettings(shrinkage=numbers[7], damping=numbers[8]))
        picture, steps = gaussians_picture(*about), ladder_picture(*about)
        return [*framed(picture, GAUSSIANS), formula_html(*about), *framed(steps, LADDER)]
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * 6]


def measured(what: str, width_px: float, *values: object) -> list[object]:
    """Begins a measurement of the page's models, or shows the one that there is: the job's state, the frame."""
    try:
        recipe = recipe_of(Form.of(*values), hosted=is_hosted())
    except MergingError as problem:
        return [*job_state(None), *empty(str(problem), "error")]
    prepared = STORE.get(recipe)
    if prepared is None:
        return [*job_state(None), *empty(NOT_PREPARED)]
    if not prepared.fishers:
        return [*job_state(None), *empty(NO_FISHERS)]
    key = _key(what, recipe)
    if key in _MEASURED:
        return [*job_state(None), *_pictured(what, _MEASURED[key], width_px)]
    work = {QUALITY: fisher_quality, COSTS: measure_costs}[what]

    def kept(on_progress: Callable[[float, str], None]) -> object:
        result = _MEASURED[key] = work(prepared, recipe, on_progress=on_progress)
        while len(_MEASURED) > KEPT:
            _MEASURED.popitem(last=False)
        return result

    job = REGISTRY.start(" ".join(key), kept, kind="measurement", visitor=visitor())
    watch(what, job.id)
    return watched(what, job, width_px)


def opened(what: str, width_px: float, *values: object) -> list[object]:
    """What there is of a measurement for the page's models: sentence, figure, numbers."""
    try:
        recipe: Recipe = recipe_of(Form.of(*values), hosted=is_hosted())
    except MergingError as problem:
        return empty(str(problem), "error")
    if STORE.get(recipe) is None:
        return empty(NOT_PREPARED)
    if (result := _MEASURED.get(_key(what, recipe))) is not None:
        return _pictured(what, result, width_px)
    return empty(MEASURE[what][1])


def polled(what: str, width_px: float, job_id: str) -> list[object]:
    """Where a measurement stands: the job's state, the frame."""
    return watched(what, REGISTRY.get(watched_job(what, job_id)), width_px)


def stopped(what: str, width_px: float, job_id: str) -> list[object]:
    """Asks a measurement to stop."""
    return watched(what, REGISTRY.stop(watched_job(what, job_id)), width_px)


def watched(what: str, job: Job | None, width_px: float) -> list[object]:
    """A job's state, and its picture once it is done."""
    return job_and_frame(job, lambda result: _pictured(what, result, width_px))


def _pictured(what: str, result: object, width_px: float) -> list[object]:
    picture: Picture = quality_picture(result) if what == QUALITY else cost_picture(result, width_px or DESKTOP_PX)
    return framed(picture, what)


def _key(what: str, recipe: Recipe) -> tuple[str, ...]:
    """Of a measurement; of what an account alone may read it is that account's."""
    return what, account(), recipe.to_yaml()


def _number(value: object) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise RecipeError(
            f"The picture cannot be drawn: expected a number, got {value!r:.40}. Set every slider."
        ) from None
