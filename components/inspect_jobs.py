"""The jobs of the Inspect tab: every model on every task, and the loss on a plane."""

from collections.abc import Callable, Sequence

import gradio as gr

from components.frames import empty
from components.inspect import DRAW_PLANE, FILL_MATRIX, MATRIX, PLANE
from components.inspect_maps import matrix_picture, plane_picture
from components.inspect_results import FOUND, chosen_of, computed, prepared_of, shown
from components.jobs import REGISTRY, Job
from components.learn_jobs import job_and_frame, job_state
from components.pages import visitor, watch, watched_job
from components.score_charts import DESKTOP_PX, NOT_PREPARED
from merging.diagnostics.distances import is_at_hand
from merging.diagnostics.matrix import task_matrix
from merging.diagnostics.planes import BASE, loss_plane
from merging.errors import MergingError
from merging.prepared import Prepared
from merging.recipe import Recipe

PRESS = "Nothing is computed yet for these models and weights: press “{}”."
View = dict[str, object]


def plane_begun(view: View, width_px: float, first: str, second: str, third: str, *values: object) -> list[object]:
    """Begins to draw the plane through three corners, or shows the one that there is: the view, job, frame."""
    view = {**view, "corners": [first, second, third]}
    return [view, *_begun(PLANE, view, width_px, values)]


def matrix_begun(view: View, width_px: float, *values: object) -> list[object]:
    """Begins to fill the matrix, or shows the one that there is: the view, job, frame."""
    return [view, *_begun(MATRIX, view, width_px, values)]


def polled(section: str, width_px: float, job_id: str) -> list[object]:
    """Where a section's job stands: job, frame."""
    return watched(section, REGISTRY.get(watched_job(section, job_id)), width_px)


def stopped(section: str, width_px: float, job_id: str) -> list[object]:
    """Asks a section's job to stop."""
    return watched(section, REGISTRY.stop(watched_job(section, job_id)), width_px)


def watched(section: str, job: Job | None, width_px: float) -> list[object]:
    """A job's state, and its picture once it is done."""
    return job_and_frame(job, lambda result: _job_frame(section, result, width_px))


def has_fetched_base(prepared: Prepared) -> bool:
    """Whether a filled table has brought the base to this machine."""
    return any(key[0] == MATRIX and BASE in made.kinds for key, made in list(FOUND.get(prepared, {}).items()))


def matrix_section(prepared: Prepared, recipe: Recipe, view: View, width_px: int) -> list[object]:
    """The section of the table, opened: job, frame."""
    # What is on this machine is looked at unasked: opening the section is asking.
    if (MATRIX, recipe.to_yaml()) in FOUND.get(prepared, {}) or not recipe.base or is_at_hand(recipe):
        return _job(MATRIX, prepared, recipe, view, width_px)
    return [*job_state(None), *empty(PRESS.format(FILL_MATRIX))]


def plane_section(prepared: Prepared, recipe: Recipe, view: View, width_px: int) -> list[object]:
    """The section of the loss plane, opened: corners, job, frame."""
    names = [*prepared.names, *([BASE] if recipe.base and BASE not in prepared.names else [])]
    corners = chosen_of(view.get("corners"), names, 3)
    dropdowns = [gr.update(choices=names, value=corner) for corner in corners]
    kept = FOUND.get(prepared, {}).get((PLANE, tuple(corners), recipe.to_yaml()))
    if kept is not None:
        return [*dropdowns, *job_state(None), *_job_frame(PLANE, kept, width_px)]
    return [*dropdowns, *job_state(None), *empty(PRESS.format(DRAW_PLANE))]


def _begun(section: str, view: View, width_px: float, values: Sequence[object]) -> list[object]:
    try:
        recipe, prepared = prepared_of(values)
        if prepared is None:
            return [*job_state(None), *empty(NOT_PREPARED)]
        return _job(section, prepared, recipe, view, int(width_px or DESKTOP_PX))
    except MergingError as problem:
        return [*job_state(None), *empty(str(problem), "error")]


def _job(section: str, prepared: Prepared, recipe: Recipe, view: View, width_px: int) -> list[object]:
    corners = tuple(str(corner) for corner in view.get("corners") or ()) if section == PLANE else ()
    key = (section, corners, recipe.to_yaml()) if section == PLANE else (section, recipe.to_yaml())
    if (kept := FOUND.get(prepared, {}).get(key)) is not None:
        return [*job_state(None), *_job_frame(section, kept, width_px)]

    def work(on_progress: Callable[[float, str], None]) -> object:
        if section == MATRIX:
            return computed(prepared, key, lambda: task_matrix(prepared, recipe, on_progress=on_progress))
        return computed(prepared, key, lambda: loss_plane(prepared, recipe, corners, on_progress=on_progress))

    kind, lane = ("table of all models", "device") if section == MATRIX else ("loss plane", "search")
    job = REGISTRY.start(repr((id(prepared), key)), work, kind=kind, lane=lane, visitor=visitor())
    watch(section, job.id)
    job.ended.wait(0.05)
    return [*job_state(job), *(_job_frame(section, job.result, width_px) if job.result else empty(""))]


def _job_frame(section: str, result: object, width_px: float) -> list[object]:
    width_px = width_px or DESKTOP_PX
    if section == MATRIX:
        return shown("matrix", matrix_picture(result, width_px))
    return shown("plane", plane_picture(result, width_px))
