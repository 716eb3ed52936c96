"""The paper's four uses on the digits pool over three build seeds, as the README shows them.

`python -m tests.benchmarks.uses` builds the pools of seeds 1 and 2 into `--folder` (kept and reused; seed 0 is the
committed one, four minutes each on one core) and prints Markdown: accuracy in % on `test`, per seed, with the mean over
the seeds and its 95 % t interval (two degrees of freedom: it is wide, and says how little three seeds are). λ is chosen on
`validation`, for each rule and seed by itself: a grid of 51 for two models, the paper's Dirichlet draws for five.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy
from scipy.stats import t

from components.lessons import ENSEMBLING, LESSONS, ROBUST, Lesson
from merging.diagnostics.uses import RULES, mean_of, share_curves
from merging.pipeline import evaluate, prepare
from merging.pools import open_pool
from merging.recipe import Recipe, preset_recipe
from merging.search import search_weights
from merging.zoo import ZOO_FOLDER

SEEDS = (0, 1, 2)
GRID = 51
NAMES = {"isotropic": "isotropic", "fisher": "Fisher"}
# What is scored in each use; the robust one also by halves.
SCORED = {
    "ensembling": "ten digits",
    "robust": "clean and four distorted sets, mean",
    "intermediate": "the target with 30 rows",
    "domain": "the question on rotated images",
}


def main() -> None:
    """Builds what is not built yet, measures and prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "fisher-merge-studio-uses")
    parser.add_argument("--uses", nargs="+", choices=LESSONS, default=list(LESSONS))
    options = parser.parse_args()
    pools = [_built(options.folder / f"seed-{seed}" / "digits", seed) for seed in SEEDS]
    print("| use | method | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean | 95 % |")
    print("|---" * (len(SEEDS) + 4) + "|")
    for use in options.uses:
        columns = [_measured(pool, LESSONS[use]) for pool in pools]
        columns = [own | {"Fisher − isotropic": own["Fisher"] - own["isotropic"]} for own in columns]
        for place, method in enumerate(columns[0]):
            label = f"{use}: {SCORED[use]}" if place == 0 else ""
            print(_row(label, method, [100 * own[method] for own in columns]), flush=True)


def _built(folder: Path, seed: int) -> Path:
    if seed == 0:
        return ZOO_FOLDER / "digits"
    if not (folder / "checkpoints" / "rotated").is_dir():
        command = [sys.executable, "-m", "merging.zoo.build", "digits", "--seed", str(seed), "--output", str(folder)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


def _row(label: str, method: str, values: Sequence[float]) -> str:
    sign = "+" if "−" in method else ""
    half = t.ppf(0.975, len(values) - 1) * numpy.std(values, ddof=1) / len(values) ** 0.5
    cells = " | ".join(f"{value:{sign}.1f}" for value in values)
    return f"| {label} | {method} | {cells} | {numpy.mean(values):{sign}.1f} | ± {half:.1f} |"


def _measured(folder: Path, lesson: Lesson) -> dict[str, float]:
    """Accuracy on test by method."""
    recipe = preset_recipe(open_pool(str(folder)), lesson.preset)
    prepared = prepare(recipe)
    if lesson.key == ENSEMBLING:
        return _ensembling(recipe, prepared)
    tasks = (*lesson.home, *lesson.target) if lesson.key == ROBUST else lesson.target
    curves = share_curves(prepared, recipe, points=GRID)
    alone = {
        (name if lesson.key == ROBUST or place == 0 else f"body of {name}, same head"): mean_of(own, tasks)
        for place, (name, own) in enumerate(zip(curves.models, curves.singles["test"], strict=True))
    }
    merges = {NAMES[rule]: curves.curve(rule, "test", tasks)[curves.chosen(rule, tasks)] for rule in RULES}
    equal = {f"{NAMES[rule]}, λ = ½": curves.curve(rule, "test", tasks)[curves.place(0.5)] for rule in RULES}
    found = alone | merges | {"ensemble": mean_of(curves.ensemble["test"], tasks)} | equal
    if lesson.key == ROBUST:
        return found | _halves(lesson, curves, tasks)
    return found | {f"Fisher − {curves.models[0]}": found["Fisher"] - found[curves.models[0]]}


def _halves(lesson: Lesson, curves, tasks: Sequence[str]) -> dict[str, float]:
    """The robust use by halves: clean and distorted images at the same chosen λ."""
    found = {}
    for name, part in (("clean", lesson.home), ("distorted", lesson.target)):
        for rule in RULES:
            found[f"{NAMES[rule]}, {name}"] = curves.curve(rule, "test", part)[curves.chosen(rule, tasks)]
    return found


def _ensembling(recipe: Recipe, prepared) -> dict[str, float]:
    result = evaluate(prepared, recipe)
    found = {"single models, mean": result.mean("experts")}
    for rule in RULES:
        own = replace(recipe, rule=rule)
        best = own.with_weights(search_weights(prepared, own).weights)
        found[NAMES[rule]] = evaluate(prepared, best).mean(rule)
    equal = {f"{NAMES[rule]}, equal λ": result.mean(rule) for rule in RULES}
    return found | {"ensemble": result.mean("ensemble")} | equal


if __name__ == "__main__":
    main()
