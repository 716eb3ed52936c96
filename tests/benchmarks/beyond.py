"""Every rule on different tasks of one base: the digits pool over three build seeds, and MiniLM on SST-2 and MRPC.

`python -m tests.benchmarks.beyond` builds the pools of seeds 1 and 2 into `--folder` (kept and reused; seed 0 is the committed
one) and reads the real checkpoints in `--real` (by default `../shared/real`; without them that table is left out; `--base`, the
folder of their base, adds the rules that need one). For each rule its settings are chosen by mean accuracy on `validation`, from the
grid in GRIDS, for each seed by itself (of equal ones the first, and the first is the default); what is reported is `test`, with λ equal.

`--only presets` shows every rule with its default settings on the embedded pools, `--only examples` how many examples it needs.

`± 95 %` of a difference is 1.96 standard errors of the paired differences of test rows, summed over seeds and tasks (tasks on
the same pictures count as one): how far another sample of test rows could move it. It says nothing of other checkpoints; the
columns of the seeds do.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy

from merging.merger import Merger
from merging.pipeline import Result, evaluate, prepare
from merging.pools import open_pool
from merging.prepared import Prepared
from merging.recipe import FisherSettings, ModelEntry, Recipe, preset_recipe
from merging.rules import RULES, RuleSettings
from tests.benchmarks.uses import SEEDS, _built

SCALES = (1.0, 1.2, 1.5, 2.0, 2.5)
NORMS = ("trace", "l2", "none")
# Settings that are tried, the default first. A grid on real checkpoints is cut to its first values: GRID_ON_REAL.
GRIDS: dict[str, dict[str, tuple]] = {
    "isotropic": {},
    "task_arithmetic": {"scale": (1.0, 0.5, 0.75, 1.2, 1.5, 2.0, 2.5, 3.0)},
    "ties": {"density": (0.5, 0.2, 1.0), "scale": SCALES},
    "dare": {"density": (0.5, 0.9), "scale": SCALES},
    "slerp": {},
    "fisher": {"normalise": NORMS},
    "row": {"normalise": NORMS},
    "ugm": {"prior": (1.0, 0.25, 4.0), "normalise": NORMS},
    "regmean": {"shrinkage": (0.5, 0.9, 1.0), "damping": (0.1, 0.3)},
    "regmean_weighted": {"shrinkage": (0.5, 0.9, 1.0), "normalise": NORMS},
    "kfac": {"shrinkage": (0.5, 1.0), "damping": (0.1, 0.2, 0.3), "normalise": NORMS},
}
# For every rule once more, with the line from the base.
ALSO_SCALED = ("isotropic", "fisher", "kfac")
GRID_ON_REAL = {"normalise": 1, "shrinkage": 2, "damping": 2, "prior": 2, "density": 2, "scale": 2}
PRESETS = (
    *(
        ("digits", "four-tasks"),
        ("digits-clip", "four-towers"),
        ("sentences-gpt2", "four-tasks"),
        ("digits", "five-seeds"),
    ),
    *(("digits", "robust"), ("digits", "intermediate"), ("digits", "domain")),
)
EXAMPLES = (8, 16, 64, 256, 600)
EXAMPLES_ON_REAL, VALIDATION_ON_REAL = 256, 300


@dataclass
class Found:
    """A rule on one pool: its settings, mean accuracy, and whether each test row is right, per task."""

    settings: str
    mean: float
    correct: list[numpy.ndarray]
    seconds: list[float]  # of a first merge, and of the next
    drift: float


def main() -> None:
    """Measures and prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fisher-merge-studio-uses")
    parser.add_argument("--real", type=Path, default=Path("../shared/real"))
    parser.add_argument("--base", help="the base of the real checkpoints")
    parser.add_argument("--only", choices=("digits", "real", "presets", "examples"))
    parser.add_argument("--rules", nargs="+", default=list(GRIDS), choices=list(GRIDS))
    options = parser.parse_args()
    parts = {"digits": _digits, "real": _real, "presets": _presets, "examples": _examples}
    for name in [options.only] if options.only else parts:
        parts[name](options)


def _digits(options: argparse.Namespace) -> None:
    columns = []
    for seed in SEEDS:
        recipe = preset_recipe(open_pool(str(_built(options.folder / f"seed-{seed}" / "digits", seed))), "four-tasks")
        columns.append(_measured(recipe, options.rules, {}, None))
    _print("digits, four tasks", columns, [f"seed {seed}" for seed in SEEDS], one_set=True)


def _presets(options: argparse.Namespace) -> None:
    """Every rule with its default settings and equal λ, on the presets of the embedded pools."""
    columns = {}
    for pool, preset in PRESETS:
        recipe = preset_recipe(open_pool(pool), preset)
        fit = [rule for rule in options.rules if RULES[rule].exactly in (None, len(recipe.models))]
        result = evaluate(prepare(replace(recipe, compare=fit)), replace(recipe, compare=(*fit, "ensemble", "experts")))
        columns[f"{pool}, {preset}"] = {method: result.mean(method) for method in result.scores}
    print("\n**Default settings, equal λ**, mean accuracy in % on `test`, build seed 0\n")
    print("| method | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for method in (*options.rules, "ensemble", "experts"):
        cells = [f"{100 * column[method]:.1f}" if method in column else "" for column in columns.values()]
        print(f"| {RULES[method].title if method in RULES else method} | " + " | ".join(cells) + " |", flush=True)


def _examples(options: argparse.Namespace) -> None:
    """How many Fisher examples three rules need, on the digits pool over the build seeds, with default settings."""
    print("\n**Fisher examples**, digits, four tasks, mean of the seeds in % on `test`\n")
    print("| method | " + " | ".join(map(str, EXAMPLES)) + " |\n" + "|---" * (len(EXAMPLES) + 1) + "|")
    rules = ("fisher", "kfac", "regmean")
    found: dict[str, list[float]] = {rule: [] for rule in rules}
    for examples in EXAMPLES:
        results = []
        for seed in SEEDS:
            pool = open_pool(str(_built(options.folder / f"seed-{seed}" / "digits", seed)))
            recipe = preset_recipe(pool, "four-tasks", compare=rules)
            recipe = replace(recipe, fisher=replace(recipe.fisher, examples=examples))
            results.append(evaluate(prepare(recipe), recipe))
        for rule in rules:
            found[rule].append(float(numpy.mean([result.mean(rule) for result in results])))
    for rule, means in found.items():
        print(f"| {RULES[rule].title} | " + " | ".join(f"{100 * mean:.1f}" for mean in means) + " |", flush=True)


def _real(options: argparse.Namespace) -> None:
    if not (options.real / "minilm-sst2").is_dir():
        print(f'MiniLM was not measured: expected checkpoints in "{options.real}", got none.')
        return
    names = ("sst2", "mrpc")
    models = tuple(ModelEntry(f"{options.real}/minilm-{one}", f"{options.real}/{one}", 0.5) for one in names)
    recipe = Recipe(models=models, fisher=FisherSettings(examples=EXAMPLES_ON_REAL), base=options.base)
    column = _measured(recipe, options.rules, GRID_ON_REAL, VALIDATION_ON_REAL)
    _print("MiniLM, SST-2 and MRPC", [column], ["test"], one_set=False)


def _measured(recipe: Recipe, rules: Sequence[str], cut: Mapping[str, int], validation: int | None) -> dict[str, Found]:
    """Each rule with the settings that are best on validation, on test; and what stands beside them."""
    fit = [rule for rule in rules if RULES[rule].exactly in (None, len(recipe.models))]
    fit = [rule for rule in fit if recipe.base or not RULES[rule].needs_base]
    needing = tuple(rule for rule in fit if RULES[rule].needs_factors)[:1] or ("isotropic",)
    prepared = prepare(replace(recipe, compare=needing))
    for name, fisher in zip(prepared.names, prepared.fishers, strict=True):
        more = (
            f", factors {fisher.factors.seconds:.2f} s, {fisher.factors.size_bytes / 1e6:.1f} MB"
            if fisher.factors
            else ""
        )
        print(f"<!-- {name}: diagonal {fisher.seconds:.2f} s{more} -->", flush=True)
    chooser = prepared if validation is None else prepared.sampled(validation)
    found: dict[str, Found] = {}
    jobs = [(rule, False) for rule in fit] + [(rule, True) for rule in ALSO_SCALED if rule in fit and recipe.base]
    for rule, is_scaled in jobs:
        title = f"{RULES[rule].title}{', and scale' if is_scaled else ''}"
        best = max(_variants(recipe, rule, cut, is_scaled=is_scaled), key=lambda own: _score(chooser, own))
        found[title] = _tested(prepared, best)
        print(f"<!-- {title}: {found[title].settings}, {100 * found[title].mean:.1f} -->", flush=True)
    beside = evaluate(prepared, replace(recipe, rule="isotropic", compare=("ensemble", "experts")))
    found["ensemble"] = _of(beside, "ensemble", "", prepared)
    found["experts"] = Found("", beside.mean("experts"), [], [], float("nan"))
    return found


def _variants(recipe: Recipe, rule: str, cut: Mapping[str, int], *, is_scaled: bool) -> Iterator[Recipe]:
    grid = {name: values[: cut.get(name, len(values))] for name, values in GRIDS[rule].items()}
    if is_scaled:
        grid["scale"] = SCALES[: cut.get("scale", len(SCALES))]
    for values in itertools.product(*grid.values()):
        own = dict(zip(grid, values, strict=True))
        fisher = replace(recipe.fisher, normalise=own.pop("normalise", "trace"))
        yield replace(recipe, rule=rule, compare=(), fisher=fisher, settings=RuleSettings(**own))


def _score(prepared: Prepared, recipe: Recipe) -> float:
    own = replace(
        recipe, evaluation=replace(recipe.evaluation, split="validation", examples=prepared.recipe.evaluation.examples)
    )
    return evaluate(prepared, own).mean(recipe.rule)


def _tested(prepared: Prepared, recipe: Recipe) -> Found:
    normalise = "" if not RULES[recipe.rule].needs_fisher else f"{recipe.fisher.normalise}"
    told = [normalise, *(f"{name} {value:g}" for name, value in recipe.settings.changed().items())]
    return _of(evaluate(prepared, recipe), recipe.rule, ", ".join(one for one in told if one), prepared)


def _of(result: Result, method: str, settings: str, prepared: Prepared) -> Found:
    correct = [numpy.asarray(one.correct, dtype=float) for one in result.predictions[method].values()]
    seconds = []
    if method in RULES:  # anew, and once more: what depends on no weight has been made by then
        merger, base = Merger(), prepared.base(result.recipe)
        for _ in range(2):
            started = time.perf_counter()
            models = prepared.parameters()
            merger.merge(result.recipe, method, models, prepared.fishers, base=base, device=prepared.device)
            seconds.append(time.perf_counter() - started)
    return Found(settings, result.mean(method), correct, seconds, result.drifts.get(method, float("nan")))


def _print(title: str, columns: Sequence[dict[str, Found]], heads: Sequence[str], *, one_set: bool) -> None:
    diagonal = RULES["fisher"].title
    print(f"\n**{title}**, mean accuracy in % on `test`, settings chosen on `validation`\n")
    print(f"| method | {' | '.join(heads)} | mean | − diagonal | ± 95 % | first, next λ, s | drift | settings |")
    print("|---" * (len(heads) + 7) + "|")
    for name in columns[0]:
        own = [column[name] for column in columns]
        mean = 100 * numpy.mean([one.mean for one in own])
        cells = [f"{100 * one.mean:.1f}" for one in own] + [f"{mean:.1f}"]
        if own[0].correct and diagonal in columns[0] and name != diagonal:
            pairs = [(one.correct, column[diagonal].correct) for one, column in zip(own, columns, strict=True)]
            cells += [
                f"{100 * value:{sign}.1f}"
                for value, sign in zip(_difference(pairs, one_set=one_set), "+ ", strict=True)
            ]
        else:
            cells += ["", ""]
        seconds = [max(each) for each in zip(*(one.seconds for one in own), strict=True)]
        drifts = [one.drift for one in own if one.drift == one.drift]
        cells += [", ".join(f"{one:.2f}" for one in seconds), f"{max(drifts):.1f}" if drifts else ""]
        print(
            f"| {name} | {' | '.join(cells)} | {' / '.join(dict.fromkeys(one.settings for one in own))} |", flush=True
        )


def _difference(pairs: Sequence[tuple], *, one_set: bool) -> tuple[float, float]:
    """The mean difference over seeds and tasks, and 1.96 of its standard errors."""
    strata = []
    for first, second in pairs:
        apart = [one - other for one, other in zip(first, second, strict=True)]
        strata += [numpy.mean(apart, axis=0)] if one_set else apart
    mean = numpy.mean([own.mean() for own in strata])
    error = numpy.sqrt(sum(own.var(ddof=1) / len(own) for own in strata)) / len(strata)
    return float(mean), float(1.96 * error)


if __name__ == "__main__":
    main()
