"""The studio's speeds: a slider move on the server while a search runs, and what a curve, maps and a search take.

`python -m tests.benchmarks.studio [POOL/PRESET …]` prints for each preset the median and the 95th percentile of a move's
milliseconds on the server (merge, evaluation, figure, table), alone and while a search tries merges of the same models
without a pause, and their ratio; then seconds for a curve of two of its models, maps of three and a search of 100 trials.
There is no gate: two cores that others use, too, tell little in one run.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import random
import sys
import time
from dataclasses import replace

import numpy

from components.jobs import REGISTRY
from components.score_charts import shown
from components.store import STORE
from merging.pipeline import evaluate, prepare
from merging.pools import open_pool
from merging.prepared import Prepared
from merging.recipe import Recipe, preset_recipe
from merging.search import Trials, explore
from tests.benchmarks.slider import form_values

PRESETS = ("digits/four-tasks", "digits-clip/four-towers", "sentences-gpt2/four-tasks")
TURNS = 6
MOVES = 8
# A hand on a slider rests between its moves, and the search goes on.
REST_S = 0.4
TRIALS = 100


def main(presets: list[str]) -> None:
    """Measures and prints."""
    for name in presets:
        pool, _, preset = name.partition("/")
        opened = open_pool(pool)
        recipe = preset_recipe(
            opened, preset if preset in [one.name for one in opened.presets] else opened.presets[0].name
        )
        prepared = prepare(recipe)
        evaluate(prepared, recipe)
        STORE.put(recipe, prepared)
        _moves_beside_a_search(pool, recipe, prepared)
        _searches(pool, recipe)


def _moves_beside_a_search(name: str, recipe: Recipe, prepared: Prepared) -> None:
    # In turns: what else runs on this machine changes from second to second.
    alone, beside, trials, searched_s = [], [], Trials(), 0.0
    for turn in range(TURNS):
        alone += _moves(recipe, seed=turn)
        job = REGISTRY.start(
            f"search {name}",
            lambda on_progress: explore(prepared, recipe, budget=10_000, trials=trials, on_progress=on_progress),
            lane="search",
        )
        before, started = len(trials), time.perf_counter()
        while len(trials) < before + 2 and job.active:
            time.sleep(0.02)
        beside += _moves(recipe, seed=turn)
        searched_s += time.perf_counter() - started
        assert job.active, job.message
        REGISTRY.stop(job.id)
        job.ended.wait()
    told = [
        f"median {numpy.median(own):.0f}, 95th percentile {numpy.percentile(own, 95):.0f}" for own in (alone, beside)
    ]
    ratio = numpy.median(beside) / numpy.median(alone)
    print(f"{name}: a slider move, ms: alone {told[0]}; while a search runs {told[1]}; ratio of medians {ratio:.2f}")
    print(f"{name}: meanwhile the search tried {len(trials) / searched_s:.1f} merges a second")


def _moves(recipe: Recipe, seed: int) -> list[float]:
    generator, taken = random.Random(seed), []
    for _ in range(MOVES):
        weights = [round(generator.random(), 2) + 0.01 for _ in recipe.models]
        started = time.perf_counter()
        answer = shown(1360, *form_values(recipe, weights))
        taken.append(1000 * (time.perf_counter() - started))
        assert answer[2] is not None, answer[0]
        time.sleep(REST_S)
    return taken


def _searches(name: str, recipe: Recipe) -> None:
    for count, budget in ((2, 0), (3, 0), (len(recipe.models), TRIALS)):
        if count > len(recipe.models):
            continue
        chosen = replace(recipe, models=recipe.models[:count])
        prepared = prepare(chosen)
        started = time.perf_counter()
        found = explore(prepared, chosen, budget=budget)
        seconds = time.perf_counter() - started
        merges = sum(len(own) for own in found.tried.values())
        print(f"{name}: {count} models, {merges} merges tried and scored in {seconds:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1:] or list(PRESETS))
