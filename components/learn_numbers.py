"""What the lessons compute: their merges, the numbers in their texts, and whether an answer is right."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy

from components.jobs import REGISTRY, Job
from components.lessons import ENSEMBLING, LESSONS, ROBUST, Lesson
from components.pages import visitor
from components.store import STORE
from merging.diagnostics.uses import GrowingMerge, ShareCurves, growing_merge, mean_of, share_curves
from merging.metrics import paired_test
from merging.pipeline import prepare
from merging.pools import open_pool
from merging.recipe import preset_recipe

POOL = "digits"
HALF_POINT, POINT = 0.005, 0.01
KEPT_JOBS = 500
NAMES = {
    "single": "one of the five models",
    "alone": "your model as it is",
    "isotropic": "the isotropic average",
    "fisher": "the Fisher merge",
    "ensemble": "the output ensemble",
}
Numbers = GrowingMerge | ShareCurves
_KEPT: dict[str, Numbers] = {}
_JOBS: OrderedDict[tuple[str, str | None], Job] = OrderedDict()


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and why, in words with numbers."""

    right: bool | None  # None where nothing was answered
    text: str


def numbers_of(key: str) -> Numbers | None:
    """What a lesson has computed, since the page was started; None before."""
    return _KEPT.get(key)


def begin_lesson(key: str) -> Job:
    """Computes a lesson's numbers in the background, or joins whoever is computing them."""
    lesson = LESSONS[key]

    def work(on_progress: Callable[[float, str], None]) -> None:
        _KEPT[key] = compute(lesson, on_progress)

    who = visitor()
    job = _JOBS[key, who] = REGISTRY.start(f"lesson {key}", work, kind="lesson", visitor=who)
    while len(_JOBS) > KEPT_JOBS:
        _JOBS.popitem(last=False)
    return job


def last_job(key: str) -> Job | None:
    """This visitor's job of the lesson that was begun last, also when it has ended; None before."""
    return _JOBS.get((key, visitor()))


def compute(lesson: Lesson, on_progress: Callable[[float, str], None]) -> Numbers:
    """Opens the lesson's preset, estimates its Fishers, and merges."""
    recipe = preset_recipe(open_pool(POOL), lesson.preset)
    prepared = STORE.get(recipe)
    if prepared is None:
        prepared = prepare(recipe, lambda share, text: on_progress(0.5 * share, text), others=STORE.all)
        STORE.put(recipe, prepared)
    merges = growing_merge if lesson.key == ENSEMBLING else share_curves
    return merges(prepared, recipe, on_progress=lambda fraction, text: on_progress(0.5 + 0.5 * fraction, text))


def facts(lesson: Lesson, numbers: Numbers) -> dict[str, str]:
    """What stands in the braces of a lesson's texts, in per cent."""
    if isinstance(numbers, GrowingMerge):
        found = final_scores(numbers)
        count = len(numbers.singles[0])
        words = {name: _percent(value) for name, value in found.items()}
        verdict = compared("fisher", numbers.answers["fisher"][-1], "isotropic", numbers.answers["isotropic"][-1])
        return words | {"n": str(count), "one_image": f"{100 / count:.1f}", "verdict": verdict}
    ends = numbers.singles["validation"]
    if lesson.key == ROBUST:
        return {
            f"{name}_{place}": _percent(mean_of(answers, getattr(lesson, place)))
            for name, answers in zip(numbers.models, ends, strict=True)
            for place in ("home", "target")
        }
    return {name: _percent(mean_of(own, lesson.target)) for name, own in zip(("alone", "donor"), ends, strict=True)}


def final_scores(numbers: GrowingMerge) -> dict[str, float]:
    """The accuracies of a single model on average, and of all models by each method."""
    merged = {method: float(own[-1].mean()) for method, own in numbers.answers.items()}
    return {"single": float(numpy.mean([own.mean() for own in numbers.singles])), **merged}


def check(lesson: Lesson, numbers: Numbers, *, choice: str | None, share: float) -> Verdict:
    """Whether the answer to a lesson's question is right, by its own numbers."""
    if isinstance(numbers, GrowingMerge):
        return _check_shipped(numbers, choice)
    if lesson.key == ROBUST:
        return _check_bargain(lesson, numbers, share)
    if lesson.steps[-1].choices:
        return _check_winner(lesson, numbers, choice)
    return _check_share(lesson, numbers, share)


def scores_on_test(lesson: Lesson, numbers: ShareCurves) -> dict[str, float]:
    """On test: the first model alone, both merges at the λ that validation chose, the ensemble."""
    found = {"alone": mean_of(numbers.singles["test"][0], lesson.target)}
    for rule in ("isotropic", "fisher"):
        found[rule] = numbers.curve(rule, "test", lesson.target)[numbers.chosen(rule, lesson.target)]
    return found | {"ensemble": mean_of(numbers.ensemble["test"], lesson.target)}


def compared(first: str, answers: Sequence[bool], second: str, others: Sequence[bool]) -> str:
    """One or two sentences: which of two methods is right more often, and whether chance would do that, too."""
    answers, others = numpy.asarray(answers), numpy.asarray(others)
    gap, test = 100 * (answers.mean() - others.mean()), paired_test(answers, others)
    one, other = NAMES[first], NAMES[second]
    if test.only_first == test.only_second:
        return f"{_start(one)} and {other} are right equally often."
    verb = "wins" if gap > 0 else "loses"
    text = (
        f"{_start(one)} {verb} by {abs(gap):.1f} points against {other}: {test.only_first} images that only it gets right, "
        f"{test.only_second} that only the other does. "
    )
    if test.p_value >= 0.05:
        return f"{text}Chance alone does as much in {100 * test.p_value:.0f} of 100 such comparisons: call it a tie."
    return f"{text}Chance does that in fewer than 5 of 100 such comparisons (p = {test.p_value:.2g})."


def _check_shipped(numbers: GrowingMerge, choice: str | None) -> Verdict:
    found = final_scores(numbers)
    passes = {"single": 1, "isotropic": 1, "fisher": 1, "ensemble": len(numbers.models)}
    if choice not in passes:
        return Verdict(None, "Choose an answer first.")
    best = max(found.values())
    good = [name for name in found if best - found[name] <= HALF_POINT + 1e-9]
    cheapest = min(passes[name] for name in good)
    right = [name for name in good if passes[name] == cheapest]
    table = ", ".join(f"{NAMES[name]} {_percent(value)} % ({passes[name]} per image)" for name, value in found.items())
    tail = f" Right and runs: {table}."
    if choice in right:
        others = [NAMES[name] for name in right if name != choice]
        also = f" (so would {' and '.join(others)})" if others else ""
        return Verdict(True, f"Within half a point of the best, for {cheapest} run per image{also}.{tail}")
    if choice in good:
        return Verdict(False, f"Good, but {passes[choice]} runs per image where {cheapest} is enough.{tail}")
    return Verdict(False, f"That is {100 * (best - found[choice]):.1f} points below the best.{tail}")


def _check_bargain(lesson: Lesson, numbers: ShareCurves, share: float) -> Verdict:
    home, away = (numbers.curve("fisher", "validation", tasks) for tasks in (lesson.home, lesson.target))
    least = max(mean_of(own, lesson.home) for own in numbers.singles["validation"]) - POINT
    allowed = [place for place in range(len(home)) if home[place] >= least - 1e-9]
    best, place = max(allowed, key=lambda one: away[one]), numbers.place(share)
    plain = [
        one for one in range(len(home)) if numbers.curve("isotropic", "validation", lesson.home)[one] >= least - 1e-9
    ]
    plain_best = max(plain, key=lambda one: numbers.curve("isotropic", "validation", lesson.target)[one])
    where = (
        f"λ = {numbers.shares[place]:.2f} gives {_percent(home[place])} % clean and {_percent(away[place])} % distorted"
    )
    right = place in allowed and away[best] - away[place] <= POINT + 1e-9
    if right:
        start = f"{where}: within the bargain."
    elif place in allowed:
        start = f"{where}: allowed, but λ = {numbers.shares[best]:.2f} reads {_percent(away[best])} % of the distorted ones."
    else:
        start = f"{where}: more than a point is lost at home (at least {_percent(least)} % was asked for)."
    verdict = compared(
        *("fisher", _joined(numbers.merges["fisher", "test"][best], lesson.target)),
        *("isotropic", _joined(numbers.merges["isotropic", "test"][plain_best], lesson.target)),
    )
    caveat = " (The four sets show the same digits: that is less sure than it looks.)"
    test_home = numbers.curve("fisher", "test", lesson.home)[best]
    test_away = numbers.curve("fisher", "test", lesson.target)[best]
    end = (
        f" With λ = {numbers.shares[best]:.2f}, the best by validation, the test images say {_percent(test_home)} % clean and "
        f"{_percent(test_away)} % distorted. On distorted test images, each rule at its own best bargain: {verdict}{caveat}"
    )
    return Verdict(right, start + end)


def _check_share(lesson: Lesson, numbers: ShareCurves, share: float) -> Verdict:
    curve, place = numbers.curve("fisher", "validation", lesson.target), numbers.place(share)
    best = numbers.chosen("fisher", lesson.target)
    right = curve[best] - curve[place] <= POINT + 1e-9
    where = f"λ = {numbers.shares[place]:.2f} reaches {_percent(curve[place])} % on validation"
    start = f"{where}, within a point of the best." if right else f"{where}; {_percent(curve[best])} % is to be had."
    found = scores_on_test(lesson, numbers)
    listed = ", ".join(f"{NAMES[name]} {_percent(value)} %" for name, value in found.items())
    verdict = compared(
        *("fisher", _joined(numbers.merges["fisher", "test"][best], lesson.target)),
        *("alone", _joined(numbers.singles["test"][0], lesson.target)),
    )
    return Verdict(right, f"{start} On test, with λ as validation chose it: {listed}. {verdict}")


def _check_winner(lesson: Lesson, numbers: ShareCurves, choice: str | None) -> Verdict:
    if choice not in {value for _, value in lesson.steps[-1].choices}:
        return Verdict(None, "Choose an answer first.")
    found = scores_on_test(lesson, numbers)
    first, second = sorted(found, key=found.get, reverse=True)[:2]
    answer = first if found[first] - found[second] > HALF_POINT else "tie"
    listed = ", ".join(f"{NAMES[name]} {_percent(value)} %" for name, value in found.items())
    places = [numbers.chosen(rule, lesson.target) for rule in ("fisher", "isotropic")]
    verdict = compared(
        *("fisher", _joined(numbers.merges["fisher", "test"][places[0]], lesson.target)),
        *("isotropic", _joined(numbers.merges["isotropic", "test"][places[1]], lesson.target)),
    )
    told = "None is more than half a point ahead" if answer == "tie" else f"{_start(NAMES[answer])} is ahead"
    chosen = f"λ = {numbers.shares[places[0]]:.2f} for Fisher, {numbers.shares[places[1]]:.2f} for isotropic"
    return Verdict(choice == answer, f"{told}: {listed} ({chosen}). {verdict}")


def _joined(answers: Mapping[str, numpy.ndarray], tasks: Sequence[str]) -> numpy.ndarray:
    return numpy.concatenate([answers[task] for task in tasks])


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]
