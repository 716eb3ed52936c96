"""What the Explore λ tab does: begins, watches and stops a search, draws what is tried, moves the sliders."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import gradio as gr

from components.explore_figures import Explored, curve_picture, objective_title, parsed, tasks_picture
from components.explore_maps import lines_picture, map_picture, search_picture
from components.explore_odds import odds_of
from components.explore_texts import best_html, odds_html, search_progress
from components.explore_trials import TRIED, reported, search_key
from components.form import ROWS, Form, recipe_of, texts
from components.frames import empty, framed
from components.jobs import REGISTRY, Job
from components.modes import is_hosted
from components.pages import SEARCH, visitor, watch, watched_job
from components.score_charts import DESKTOP_PX, ESTIMATING, NOT_PREPARED, NOTHING
from components.store import STORE, preparation_key
from components.tables import notice
from components.weight_sliders import set_to
from merging.errors import MergingError, RecipeError
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.search import OBJECTIVES, TASK, constant_trials, explore, map_points, objectives_of, rules_of, trial_count
from merging.weights import normalised_weights

SPLIT = "validation"
BUDGETS, LONG_BUDGET = {2: 50, 3: 60}, 100
FIRST = {2: "Draw the curve", 3: "Draw the maps"}
PRESS = "Nothing is tried yet for these models and settings: press “{}”."
ELSEWHERE = "A search for other models or settings is running; “Stop exploring” ends it. "
OWN, RUNNING, COUNT_OUTPUTS = "own", " running", 18
GROWTH, STEPS, AGAIN_S = 1.5, 100, 10


def begun(drawn: str, job_id: str, objective: str, budget: float, width_px: float, *values: object) -> list[object]:
    """Begins to explore what the page shows, or goes on with it."""
    try:
        recipe, prepared = _prepared(values)
        if prepared is None:
            return _without(NOT_PREPARED)
        job_id = _begin(recipe, prepared, _known(objective, prepared), int(budget)).id
        watch(SEARCH, job_id)
    except (MergingError, TypeError, ValueError) as problem:
        return _without(str(problem), "error")
    return watched(drawn, job_id, objective, budget, width_px, *values)


def stopped(drawn: str, job_id: str, *others: object) -> list[object]:
    """Asks the search to stop, which it does within a batch; what is tried stays."""
    REGISTRY.stop(watched_job(SEARCH, job_id))
    return watched(drawn, job_id, *others)


def watched(drawn: str, job_id: str, objective: str, budget: float, width_px: float, *values: object) -> list[object]:
    """The whole tab as it stands; where `drawn` says that the pictures show it already, they are left alone.

    A width of 0 or less says that nobody looks at the tab: then there are no pictures, and nothing at all before the end.
    """
    form, job = Form.of(*values), REGISTRY.get(watched_job(SEARCH, job_id))
    if not _is_seen(width_px) and job is not None and job.active:
        return [gr.skip()] * COUNT_OUTPUTS
    if not form.models:
        return _without(NOTHING)
    try:
        recipe, prepared = _prepared(values)
        if prepared is None:
            busy = REGISTRY.active(preparation_key(recipe)) is not None
            return _without(ESTIMATING if busy else NOT_PREPARED)
        return _shown(recipe, prepared, drawn, job, objective, int(budget or 0), width_px)
    except MergingError as problem:
        return _without(str(problem), "error")


def polled(drawn: str, job_id: str, width_px: float) -> list[object]:
    """The progress, and a text that changes when the tab is due to be drawn anew: in ever larger steps, and at the end."""
    job = REGISTRY.get(watched_job(SEARCH, job_id))
    if job is None:
        return [gr.skip(), f"forgotten {_is_seen(width_px)}"]
    if job.active and not _is_seen(width_px):
        return [gr.skip(), gr.skip()]
    # Drawing takes time from those who move sliders. After the end it is due anew until an answer has stopped the timer.
    step = (time.monotonic() - job.ended_s) // AGAIN_S if not job.active else math.log(1 + STEPS * job.fraction, GROWTH)
    own = drawn.startswith(OWN)
    says = search_progress(job) if own else notice(ELSEWHERE + job.text)
    due = f"{job.id} {job.state} {job.asked_to_stop.is_set()} {step:.0f} {_is_seen(width_px)}"
    return [says if own or job.active else gr.skip(), due]


def opened(drawn: str, job_id: str, objective: str, budget: float, width_px: float, *values: object) -> list[object]:
    """The whole tab as it is opened, and where the slider of log-odds stands."""
    return [*watched(drawn, job_id, objective, budget, width_px, *values), odds_of(*values)]


def picked(value: str, models: list[str]) -> list[object]:
    """A chosen point: notice, sliders. What arrives may be anything."""
    try:
        return ["", *set_to(parsed(value, len(texts(models))))]
    except RecipeError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * ROWS]


def best_used(objective: str, *values: object) -> list[object]:
    """The best weights of the page's rule: notice, sliders."""
    try:
        recipe, prepared = _prepared(values)
        if prepared is None:
            raise RecipeError(NOT_PREPARED)
        best = _explored(recipe, prepared, _known(objective, prepared)).best(recipe.rule)
        if best is None:
            raise RecipeError(PRESS.format(_label(recipe, [0], 0)))
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * ROWS]
    return ["", *set_to(best.weights)]


def budget_of(models: list[str]) -> object:
    """How many merges are worth trying at first: the picture's points for two or three models, a search for more."""
    return BUDGETS.get(len(texts(models)), LONG_BUDGET)


def _prepared(values: tuple[object, ...]) -> tuple[Recipe, Prepared | None]:
    recipe = recipe_of(Form.of(*values), hosted=is_hosted())
    return recipe, STORE.get(recipe)


def _is_seen(width_px: object) -> bool:
    return isinstance(width_px, int | float) and width_px > 0


def _known(objective: object, prepared: Prepared) -> str:
    """The objective, or the mean where it is none of these tasks'."""
    return str(objective) if objective in objectives_of(entry.name for entry in prepared.tasks) else "mean"


def _begin(recipe: Recipe, prepared: Prepared, objective: str, budget: int) -> Job:
    def work(on_progress: object) -> object:
        # Before the first poll asks for them: in steps, which give way to moves of sliders.
        prepared.fixed_predictions(SPLIT, lambda: on_progress(0.0, "evaluating the single models and the ensemble"))
        asked = {"objective": objective, "budget": budget, "seed": recipe.fisher.seed, "split": SPLIT, "rules": rules}
        found = explore(prepared, recipe, **asked, trials=TRIED.of(recipe, SPLIT), on_progress=on_progress)
        for rule in rules:
            on_progress(1.0, "scoring the best on test")
            reported(prepared, recipe, found.best(rule))
        return found

    rules = rules_of(recipe)
    key = "\n".join([search_key(recipe), f"{objective} {budget} {' '.join(rules)}"])
    return REGISTRY.start(key, work, kind="search of λ", lane="search", visitor=visitor())


def _is_of(job: Job | None, recipe: Recipe) -> bool:
    return job is not None and job.key.startswith(search_key(recipe))


def _label(recipe: Recipe, tried: Sequence[int], budget: int) -> str:
    first = FIRST.get(len(recipe.models), "Search")
    return "Go on" if any(tried) and min(tried) < trial_count(len(recipe.models), budget) else first


def _explored(recipe: Recipe, prepared: Prepared, objective: str) -> Explored:
    trials = TRIED.of(recipe, SPLIT)
    return Explored(
        names=prepared.names,
        tasks=[entry.name for entry in prepared.tasks],
        trials={rule: trials.of(rule) for rule in rules_of(recipe)},
        ensemble=constant_trials(prepared, SPLIT)[0],
        objective=objective,
        split=SPLIT,
        here=_here(recipe),
    )


def _here(recipe: Recipe) -> list[float]:
    return normalised_weights(recipe.weights, count=len(recipe.models))


def _shown(
    recipe: Recipe, prepared: Prepared, drawn: str, job: Job | None, objective: str, budget: int, width_px: float
) -> list[object]:
    objective = _known(objective, prepared)
    own, active = _is_of(job, recipe), job is not None and job.active
    tried = [len(TRIED.of(recipe, SPLIT).of(rule)) for rule in rules_of(recipe)]
    label = _label(recipe, tried, budget)
    says = search_progress(job if own else None) or ("" if any(tried) else notice(PRESS.format(label)))
    if active and not own:
        says = notice(ELSEWHERE + job.text)
    if job is not None and job.state == "lost":
        says = notice(job.message)
    message, kind = (job.message, "error") if own and job.state == "failed" else ("", "")
    tasks = [(f"task: {entry.name}", f"{TASK}{entry.name}") for entry in prepared.tasks]
    # Who left while the search ran, and comes back to the browser's tab, sees how it ended: that is told by no event.
    left = width_px is not None and width_px < 0 and drawn.endswith(RUNNING)
    around = [
        notice(message, kind),
        gr.update(choices=[(objective_title(name), name) for name in OBJECTIVES] + tasks, value=objective),
        gr.update(value=label, interactive=not active),
        gr.update(interactive=active and not job.asked_to_stop.is_set()),
        says,
        gr.Timer(active=active or left),
        job.id if job is not None else "",
    ]
    running = own and active
    mark = f"{OWN if own else ''} {hash((search_key(recipe), rules_of(recipe), objective, *recipe.weights))} {tried} {width_px}"
    mark += RUNNING if running else ""
    if not _is_seen(width_px) or mark == drawn:
        return [*around, *[gr.skip()] * (COUNT_OUTPUTS - len(around))]
    explored = _explored(recipe, prepared, objective) if any(tried) else None
    pictures = _pictures(explored, int(width_px), running=running) if explored else [*empty(""), *empty("")]
    bests = _best(explored, recipe, prepared) if explored and not running else ""
    is_pair = len(recipe.models) == 2
    below = [bests, gr.update(visible=bool(bests)), gr.update(visible=is_pair)]
    odds = odds_html(prepared.names, _here(recipe)) if is_pair else ""
    return [*around, *pictures, *below, odds, mark]


def _pictures(explored: Explored, width_px: int, *, running: bool) -> list[object]:
    first, second = "Scores over λ", "Scores over λ in detail"
    width_px = width_px or DESKTOP_PX
    if len(explored.names) == 2:
        return [*framed(curve_picture(explored, width_px), first), *framed(tasks_picture(explored, width_px), second)]
    large = map_picture(explored, width_px) if map_points(len(explored.names)) else lines_picture(explored)
    way = search_picture(explored)
    # Its table grows by every trial: it waits for the end of the search.
    return [*framed(large, first), *framed(replace(way, columns=(), rows=()) if running else way, second)]


def _best(explored: Explored, recipe: Recipe, prepared: Prepared) -> str:
    """The best of each rule on validation, and what it gives on test."""
    rows = []
    for rule in explored.trials:
        best = explored.best(rule)
        if best is not None:
            rows.append((best, reported(prepared, recipe, best)))
    ensembles = (explored.ensemble, constant_trials(prepared, "test")[0])
    counts = max(len(own) for own in explored.trials.values())
    return best_html(rows, ensembles, objective=explored.objective, names=explored.names, count=counts)


def _without(text: str, kind: str = "") -> list[object]:
    """The tab without pictures: what to press, or what went wrong."""
    buttons = [gr.skip(), gr.update(interactive=True), gr.update(interactive=False)]
    below = ["", gr.update(visible=False), gr.update(visible=False), "", ""]
    return [notice(text, kind), *buttons, "", gr.Timer(active=False), gr.skip(), *empty(""), *empty(""), *below]
