"""The events of the Inspect tab."""

from functools import partial

from components import inspect_actions as actions
from components import inspect_jobs as jobs
from components.inspect import DISTANCES, MATRIX, PLANE, TITLES
from components.parts import LIVE, POLL, SLOW, WATCH, Parts

# The tensors stand under the first map, which may be far from where one clicked.
SHOW_CELL_JS = "() => document.querySelector('#cell-tensors-sentence')?.scrollIntoView({block: 'center'})"


def wire(parts: Parts) -> None:
    """Connects the tab's widgets; each event has an `api_name`."""
    tab, page = parts.inspect, [parts.width_px, *parts.form()]
    whole = {"fn": actions.inspected, "inputs": [tab.view, *page], "outputs": tab.outputs(), **LIVE}
    parts.inspect_tab.select(**whole, api_name="inspect")
    for section in TITLES:
        tab.tabs[section].select(
            partial(actions.opened, section),
            [tab.view, *page],
            [tab.view, tab.notice, *tab.outputs_of(section)],
            api_name=f"inspect_{section}",
            **SLOW,
        )
    for field in tab.pair:
        field.input(
            actions.compared,
            [tab.view, *tab.pair, *parts.form()],
            [tab.view, *tab.frames["difference"].outputs()],
            api_name=f"compare_fishers_{tab.pair.index(field) + 1}",
            **LIVE,
        )
    tab.by.input(
        actions.grouped,
        [tab.view, tab.by, *parts.form()],
        [tab.view, tab.notice, *tab.outputs_of(DISTANCES)],
        api_name="group_distances",
        **LIVE,
    )
    for name in ("heatmap", "owners", "difference"):
        picked = tab.frames[name].picked
        outputs = tab.frames["cell"].outputs()
        picked.input(actions.cell_opened, [picked, *parts.form()], outputs, api_name=f"open_cell_{name}", **LIVE).then(
            None, js=SHOW_CELL_JS
        )
    _wire_job(parts, MATRIX, "matrix")
    _wire_job(parts, PLANE, "plane")


def _wire_job(parts: Parts, section: str, name: str) -> None:
    tab = parts.inspect
    job = tab.jobs[section]
    shown = [*job.outputs(), *tab.frames[name].outputs()]
    begun = jobs.matrix_begun if section == MATRIX else jobs.plane_begun
    chosen = [] if section == MATRIX else tab.corners
    watch = {"inputs": [parts.width_px, job.job_id], "outputs": shown, **WATCH}
    job.start.click(
        begun, [tab.view, parts.width_px, *chosen, *parts.form()], [tab.view, *shown], api_name=f"draw_{name}", **SLOW
    )
    job.stop.click(partial(jobs.stopped, section), **watch, api_name=f"stop_{name}")
    job.timer.tick(partial(jobs.polled, section), **watch | POLL, api_name=f"{name}_progress")
