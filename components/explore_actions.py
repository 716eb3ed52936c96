"""What the Explore λ tab does: begins, watches and stops a search, draws what is tried, moves the sliders."""

import math
from dataclasses import replace

import gradio as gr

from components.explore_figures import Explored, curve_picture, objective_title, tasks_picture
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
from merging.merge import normalised_weights
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.search import OBJECTIVES, RULES, TASK, constant_trials, explore, map_points, objectives_of, trial_count

SPLIT = "validation"
BUDGETS, LONG_BUDGET = {2: 50, 3: 60}, 100
FIRST = {2: "Draw the curve", 3: "Draw the maps"}
PRESS = "Nothing is tried yet for these models and settings: press “{}”."
ELSEWHERE = "A search for other models or settings is running; “Stop exploring” ends it. "
COUNT_OUTPUTS = 18
GROWTH = 1.5


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

    A width of 0 says that nobody looks at the tab: then there are no pictures, and nothing at all before the end.
    """
    form, job = Form.of(*values), REGISTRY.get(watched_job(SEARCH, job_id))
    if not width_px and job is not None and job.active:
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
    """The best Fisher merge's weights: notice, sliders."""
    try:
        recipe, prepared = _prepared(values)
        if prepared is None:
            raise RecipeError(NOT_PREPARED)
        best = _explored(recipe, prepared, _known(objective, prepared)).best("fisher")
        if best is None:
            raise RecipeError(PRESS.format(_label(recipe, 0, 0)))
    except MergingError as problem:
        return [notice(str(problem), "error"), *[gr.skip()] * ROWS]
    return ["", *set_to(best.weights)]


def budget_of(models: list[str]) -> object:
    """How many merges are worth trying at first: the picture's points for two or three models, a search for more."""
    return BUDGETS.get(len(texts(models)), LONG_BUDGET)


def parsed(value: object, count: int) -> list[float]:
    """Weights from what a click handed over. Raises: RecipeError for anything else."""
    try:
        weights = [float(part) for part in str(value)[:200].split()]
        sound = all(math.isfinite(weight) and 0 <= weight <= 1 for weight in weights) and sum(weights) > 0
    except ValueError:
        weights, sound = [], False
    if not sound or len(weights) != count:
        raise RecipeError(
            f"This point cannot be used: expected {count} weights from 0 to 1, got {str(value)!r:.60}. "
            "Click a point of the picture, or choose a row of its table."
        )
    return weights


def _prepared(values: tuple[object, ...]) -> tuple[Recipe, Prepared | None]:
    recipe = recipe_of(Form.of(*values), hosted=is_hosted())
    return recipe, STORE.get(recipe)


def _known(objective: object, prepared: Prepared) -> str:
    """The objective, or the mean where it is none of these tasks'."""
    return str(objective) if objective in objectives_of(entry.name for entry in prepared.tasks) else "mean"


def _begin(recipe: Recipe, prepared: Prepared, objective: str, budget: int) -> Job:
    def work(on_progress: object) -> object:
        # Before the first poll asks for them: in steps, which give way to moves of sliders.
        prepared.fixed_predictions(SPLIT, lambda: on_progress(0.0, "evaluating the single models and the ensemble"))
        asked = {"objective": objective, "budget": budget, "seed": recipe.fisher.seed, "split": SPLIT}
        found = explore(prepared, recipe, **asked, trials=TRIED.of(recipe, SPLIT), on_progress=on_progress)
        for rule in RULES:
            on_progress(1.0, "scoring the best on test")
            reported(prepared, recipe, found.best(rule))
        return found

    key = "\n".join([search_key(recipe), f"{objective} {budget}"])
    return REGISTRY.start(key, work, kind="search of λ", lane="search", visitor=visitor())


def _is_of(job: Job | None, recipe: Recipe) -> bool:
    return job is not None and job.key.startswith(search_key(recipe))


def _label(recipe: Recipe, tried: int, budget: int) -> str:
    first = FIRST.get(len(recipe.models), "Search")
    return "Go on" if 0 < tried < trial_count(len(recipe.models), budget) else first


def _explored(recipe: Recipe, prepared: Prepared, objective: str) -> Explored:
    trials = TRIED.of(recipe, SPLIT)
    return Explored(
        names=prepared.names,
        tasks=[entry.name for entry in prepared.tasks],
        trials={rule: trials.of(rule) for rule in RULES},
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
    tried = max(len(TRIED.of(recipe, SPLIT).of(rule)) for rule in RULES)
    label = _label(recipe, tried, budget)
    says = search_progress(job if own else None) or ("" if tried else notice(PRESS.format(label)))
    if active and not own:
        says = notice(ELSEWHERE + job.text)
    if job is not None and job.state == "lost":
        says = notice(job.message)
    message, kind = (job.message, "error") if own and job.state == "failed" else ("", "")
    tasks = [(f"task: {entry.name}", f"{TASK}{entry.name}") for entry in prepared.tasks]
    around = [
        notice(message, kind),
        gr.update(choices=[(objective_title(name), name) for name in OBJECTIVES] + tasks, value=objective),
        gr.update(value=label, interactive=not active),
        gr.update(interactive=active and not job.asked_to_stop.is_set()),
        says,
        gr.Timer(active=active),
        job.id if job is not None else "",
    ]
    running = own and active
    # While it runs the pictures follow in steps: drawing them takes time from those who move sliders meanwhile.
    seen = round(math.log(max(tried, 1), GROWTH)) if running else tried
    mark = f"{hash((search_key(recipe), objective, *recipe.weights))} {seen} {width_px} {running}"
    if not width_px or mark == drawn:
        return [*around, *[gr.skip()] * (COUNT_OUTPUTS - len(around))]
    explored = _explored(recipe, prepared, objective) if tried else None
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
    for rule in RULES:
        best = explored.best(rule)
        if best is not None:
            rows.append((best, reported(prepared, replace(recipe, rule="fisher"), best)))
    ensembles = (explored.ensemble, constant_trials(prepared, "test")[0])
    counts = max(len(explored.trials[rule]) for rule in RULES)
    return best_html(rows, ensembles, objective=explored.objective, names=explored.names, count=counts)


def _without(text: str, kind: str = "") -> list[object]:
    """The tab without pictures: what to press, or what went wrong."""
    buttons = [gr.skip(), gr.update(interactive=True), gr.update(interactive=False)]
    below = ["", gr.update(visible=False), gr.update(visible=False), "", ""]
    return [notice(text, kind), *buttons, "", gr.Timer(active=False), gr.skip(), *empty(""), *empty(""), *below]
