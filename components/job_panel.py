"""Estimating: the buttons, the progress with its ETA, and the way to stop."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import gradio as gr

from components import pages
from components.first_picture import keep
from components.form import Form, needs_download, recipe_of
from components.jobs import ESTIMATE, REGISTRY, Job
from components.modes import is_hosted, limits
from components.pages import visitor, watch, watched_job
from components.pool_picker import DEFAULT_POOL
from components.store import STORE, preparation_key
from components.tables import notice
from components.visit_folders import FOLDERS
from components.zero_gpu import lender
from merging.errors import MergingError
from merging.pipeline import evaluate, prepare, timed
from merging.pools import open_pool
from merging.recipe import Recipe, preset_recipe

POLL_S = 0.4
# The page asks on for so long after a job's end: an answer about the job before may have come after the last one.
LAST_LOOK_S = 1.0
# Set once somebody has opened a page. Until then, for a while, what is put off waits.
ASKED, UNASKED_S = threading.Event(), 20.0
EVALUATING = "evaluating the single models and the ensemble"
ON_THE_HUB = "This choice lies on the Hugging Face Hub: “Estimate Fisher” downloads it; the check says what that takes."


@dataclass(frozen=True)
class Estimated:
    """What a job that prepared a recipe tells: seconds by phase. What it made lies in the store, which is bounded."""

    timings: Mapping[str, float]


@dataclass(frozen=True)
class JobPanel:
    """The widgets of the job: `finished` changes when a job ends well, and everything is redrawn."""

    estimate: gr.Button
    stop: gr.Button
    progress: gr.HTML
    timer: gr.Timer
    job_id: gr.BrowserState
    finished: gr.State

    def outputs(self) -> list[gr.components.Component]:
        """The outputs of `started`, `polled` and `stopped`."""
        return [self.estimate, self.stop, self.progress, self.timer, self.job_id, self.finished]


def create_job_panel() -> JobPanel:
    """The two buttons with the progress under them."""
    with gr.Row():
        estimate = gr.Button("Estimate Fisher", variant="primary", scale=3, min_width=160)
        stop = gr.Button("Stop", variant="stop", interactive=False, scale=1, min_width=70)
    progress = gr.HTML(elem_id="progress")
    # The secret is not one: it only keeps the stored value the same after a restart of the server.
    job_id = gr.BrowserState("", storage_key="fisher-merge-studio-job", secret="fisher-merge-studio")
    return JobPanel(estimate, stop, progress, gr.Timer(POLL_S, active=False), job_id, gr.State(""))


def first_recipe() -> Recipe:
    """What the page opens on: the first preset of the default pool."""
    pool = open_pool(DEFAULT_POOL)
    return preset_recipe(pool, pool.presets[0].name)


def begin(recipe: Recipe, *, put_off: bool = False) -> Job:
    """Prepares a recipe in the background, or joins whoever is preparing the same one; `put_off` until somebody asks."""

    def work(on_progress: Callable[[float, str], None]) -> Estimated:
        if put_off:
            ASKED.wait(UNASKED_S)
        prepared = prepare(recipe, on_progress, limits=limits(), lender=lender(), others=STORE.all)
        with timed(prepared.timings, "compare"):  # before others can wait for it
            prepared.fixed_predictions(recipe.evaluation.split, lambda: on_progress(1.0, EVALUATING))
        result = evaluate(prepared, recipe, between=lambda: on_progress(1.0, "evaluating the merge"))
        STORE.put(recipe, prepared, result)
        if recipe == first_recipe():
            keep(result)
        return Estimated(result.timings)

    return REGISTRY.start(preparation_key(recipe), work, kind=ESTIMATE, visitor=visitor())


def started(*values: object) -> list[object]:
    """Starts the estimation of what the page shows."""
    return _start(values, again=True)


def ensured(*values: object) -> list[object]:
    """Starts the estimation of what the page shows, unless it is there, or would have to be downloaded unasked."""
    return _start(values, again=False)


def polled(job_id: str) -> list[object]:
    """Where the job stands. While it is waited for, the visit's uploads, which it may be reading, are kept."""
    ASKED.set()
    FOLDERS.used(visitor())
    return watched(REGISTRY.get(watched_job(pages.ESTIMATE, job_id)))


def stopped(job_id: str) -> list[object]:
    """Asks the job to stop, which it does within a batch."""
    return watched(REGISTRY.stop(watched_job(pages.ESTIMATE, job_id)))


def _start(values: Sequence[object], *, again: bool) -> list[object]:
    if again:
        ASKED.set()
    form = Form.of(*values)
    if not form.models and not again:
        return watched(None)
    try:
        recipe = recipe_of(form, hosted=is_hosted())
    except MergingError as problem:
        return [gr.skip(), gr.skip(), notice(str(problem), "error"), *[gr.skip()] * 3]
    if not again and STORE.get(recipe) is None and needs_download(recipe):
        return unwatched(notice(ON_THE_HUB))
    if again or STORE.get(recipe) is None:
        return watched(begin(recipe))
    # Asked for twice, it stays the job that prepared this, which by now may be done.
    job = REGISTRY.get(watched_job(pages.ESTIMATE, ""))
    return watched(job if job is not None and job.key == preparation_key(recipe) else None)


def unwatched(message: str) -> list[object]:
    """The panel without a job, and why there is none."""
    estimate, stop, _, *others = watched(None)
    return [estimate, stop, message, *others]


def watched(job: Job | None) -> list[object]:
    """The panel for a job: buttons, progress, whether to ask again, and the mark that it is finished."""
    watch(pages.ESTIMATE, job.id if job is not None else "")
    if job is None:
        return [gr.update(interactive=True), gr.update(interactive=False), "", gr.Timer(active=False), "", gr.skip()]
    active = job.active
    return [
        gr.update(interactive=not active),
        gr.update(interactive=active and not job.asked_to_stop.is_set()),
        progress_html(job),
        gr.Timer(active=active or time.monotonic() - job.run.ended_s < LAST_LOOK_S),
        job.id,
        job.id if job.state == "done" else gr.skip(),
    ]


def progress_html(job: Job, *, name: str = "Estimation", stopped: str = "") -> str:
    """Phase, per cent and time to go; or how it ended: `stopped` says what a job that was stopped leaves behind."""
    if job.state == "failed":
        return notice(job.message, "error")
    if job.state in ("stopped", "lost"):
        return notice(job.message if job.left or job.state == "lost" else stopped or job.message)
    if job.state == "done":
        return f'<div role="status">{escape(job.message or "Ready.")} {job.took()}</div>'
    if job.state == "waiting":
        return f'<div role="status">waiting, place {job.place[0]} of {job.place[1]}</div>'
    remaining = job.remaining_s()
    eta = "" if remaining is None else f", about {max(1, round(remaining))} s to go"
    text = "stopping" if job.asked_to_stop.is_set() else job.text
    percent = 100 * job.fraction
    return (
        f'<div role="status">{escape(text)} ({percent:.0f} %{eta})</div>'
        f'<div class="studio-progress" role="progressbar" aria-label="{name}" aria-valuenow="{percent:.0f}" '
        f'aria-valuemin="0" aria-valuemax="100"><div style="width:{percent:.0f}%"></div></div>'
    )
