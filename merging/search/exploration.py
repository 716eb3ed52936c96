"""What all weights give, as far as they are tried: a grid for two models, a lattice for three, a search for any number."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from merging.errors import MergingError, require_choice
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.search.points import Weights, draws, first_points, map_points
from merging.search.refinement import Proposals
from merging.search.trials import Bench, Trial, Trials, best_of, objectives_of

OnProgress = Callable[[float, str], None]
RULES = ("fisher", "isotropic")
# Of a search's trials this part is drawn evenly before anything is refined.
EVEN_PART = 0.5


@dataclass(frozen=True, eq=False)
class Exploration:
    """What a run tried, rule by rule in its order, and how many weightings could not be evaluated."""

    split: str
    objective: str
    tried: dict[str, list[Trial]]
    failed: int

    def best(self, rule: str) -> Trial | None:
        """The best trial of a rule by the objective."""
        return best_of(self.tried[rule], self.objective)

    @property
    def summary(self) -> str:
        """One sentence: how many, and on which split."""
        count = len(next(iter(self.tried.values())))
        return f"{count} weightings tried with each rule on {self.split}."


def rules_of(recipe: Recipe) -> tuple[str, ...]:
    """What is explored of a recipe: its rule and isotropic averaging; of two models also the rules that stand beside it."""
    beside = recipe.rules if len(recipe.models) == 2 else ()
    return tuple(dict.fromkeys([recipe.rule, "isotropic", *beside]))


def planned_points(count: int, budget: int, *, seed: int = 0) -> list[Weights]:
    """What is tried whatever comes out: the picture's points; for four or more models centre, corners, middles and draws."""
    if points := map_points(count):
        return points
    even = max(int(budget * EVEN_PART), 1)
    first = first_points(count, even)
    return [*first, *draws(count, even - len(first), seed=seed)]


def trial_count(count: int, budget: int) -> int:
    """How many weightings a run tries with each rule."""
    return max(budget, len(map_points(count)))


def explore(
    prepared: Prepared,
    recipe: Recipe,
    *,
    objective: str = "mean",
    budget: int = 100,
    seed: int = 0,
    split: str = "validation",
    rules: Sequence[str] = RULES,
    trials: Trials | None = None,
    on_progress: OnProgress | None = None,
) -> Exploration:
    """Tries `budget` weightings with each rule, or the whole grid of two or three models where that is more.

    What `trials` holds is not tried again, and what is tried is kept there, so that a run that was stopped goes on: with
    the same seed and objective it comes to the same trials as one that was not. Choose on `validation`, report on
    `test`. `on_progress` is called between batches and may raise Cancelled.

    Raises: RecipeError for an unknown objective; MergingError if no weighting of a rule can be evaluated.
    """
    trials = Trials() if trials is None else trials
    count = len(recipe.models)
    require_choice("objective", objective, objectives_of(entry.name for entry in prepared.tasks))
    run = _Run(prepared, recipe, objective, split, trials, on_progress or (lambda fraction, text: None))
    run.total = trial_count(count, budget) * len(rules)
    points = planned_points(count, budget, seed=seed)
    for weights in points:
        for rule in rules:
            run.attempt(rule, weights)
    run.require_some(rules)
    _refine(run, rules, number=trial_count(count, budget) - len(points), seed=seed)
    return Exploration(split, objective, {rule: run.found.get(rule, []) for rule in rules}, run.failed)


def _refine(run: "_Run", rules: Sequence[str], *, number: int, seed: int) -> None:
    if number <= 0:
        return
    proposals = {rule: Proposals(len(run.recipe.models), seed=seed) for rule in rules}
    for rule in rules:
        for trial in run.found[rule]:
            proposals[rule].tell(trial.weights, trial.score(run.objective).value)
    for _ in range(number):
        for rule in rules:
            weights = proposals[rule].next()
            if (trial := run.attempt(rule, weights)) is not None:
                proposals[rule].tell(weights, trial.score(run.objective).value)


class _Run:
    """One run: attempts, counted for progress; trials that are kept already cost nothing."""

    def __init__(
        self, prepared: Prepared, recipe: Recipe, objective: str, split: str, trials: Trials, on_progress: OnProgress
    ) -> None:
        self.recipe, self.objective = recipe, objective
        self.total, self.failed = 1, 0
        self.found: dict[str, list[Trial]] = {}
        self._on_progress, self._trials, self._split = on_progress, trials, split
        self._attempts, self._reason = 0, ""
        self._bench = Bench(prepared, recipe, split)

    def attempt(self, rule: str, weights: Weights) -> Trial | None:
        """What the weighting gives, from what is kept or from an evaluation; None if it cannot be evaluated."""
        outcome = self._trials.get(rule, weights)
        if outcome is None:
            self._pause()
            try:
                outcome = self._bench.trial(rule, weights, self._pause)
            except MergingError as problem:
                outcome = str(problem)
            self._trials.put(rule, weights, outcome)
        self._attempts += 1
        if isinstance(outcome, str):
            self.failed, self._reason = self.failed + 1, self._reason or outcome
            return None
        self.found.setdefault(rule, []).append(outcome)
        return outcome

    def require_some(self, rules: Sequence[str]) -> None:
        """Raises: MergingError if a rule has no trial."""
        for rule in rules:
            if not self.found.get(rule):
                raise MergingError(f"No weighting could be evaluated with the rule {rule}. {self._reason}")

    def _pause(self) -> None:
        done = self._attempts / self.total
        self._on_progress(done, f"{self._attempts} of {self.total} merges tried on {self._split}")
