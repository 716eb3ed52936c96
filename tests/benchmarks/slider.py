"""Slider to scores on the server: 50 moves on the four-task preset, merge, evaluation, figure and table included.

`python -m tests.benchmarks.slider` prints the median and the 95th percentile in milliseconds, and the ratio to a limit
taken in the same run: the two plain forward passes over the test images (one for the merge, one for isotropic averaging)
that no implementation can do without. `--rule kfac --models 2` measures another rule, on the first models of the preset.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import random
import time
from dataclasses import replace

import numpy
import torch

from components.form import ROWS, Form, model_value
from components.rule_fields import NUMBERS, layer_weights_text
from components.score_charts import shown
from components.store import STORE
from merging.pipeline import evaluate, prepare
from merging.pools import open_pool
from merging.recipe import Recipe, preset_recipe
from merging.rules import RULES

MOVES = 50


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rule", default="fisher", choices=list(RULES))
    parser.add_argument("--models", type=int, default=4, choices=(2, 3, 4))
    options = parser.parse_args()
    recipe = preset_recipe(open_pool("digits"), "four-tasks", rule=options.rule)
    recipe = replace(recipe, models=recipe.models[: options.models])
    prepared = prepare(recipe)
    evaluate(prepared, recipe)
    STORE.put(recipe, prepared)
    batches = prepared.batches("test")[0]
    model = prepared.modules[0]
    generator = random.Random(0)
    moves, limits = [], []
    for _ in range(MOVES):
        weights = [round(generator.random(), 2) + 0.01 for _ in recipe.models]
        started = time.perf_counter()
        answer = shown(1360, *form_values(recipe, weights))
        moves.append(time.perf_counter() - started)
        assert answer[2] is not None, answer[0]
        started = time.perf_counter()
        with torch.inference_mode():
            for _ in range(2):
                for batch in batches:
                    model(pixel_values=batch["pixel_values"])
        limits.append(time.perf_counter() - started)
    median, high = 1000 * numpy.median(moves), 1000 * numpy.percentile(moves, 95)
    limit = 1000 * numpy.median(limits)
    print(f"slider to scores, {MOVES} moves: median {median:.0f} ms, 95th percentile {high:.0f} ms")
    print(f"limit (two forward passes): median {limit:.0f} ms; ratio {median / limit:.2f}")


def form_values(recipe: Recipe, weights: list[float]) -> list[object]:
    """The values of the page's widgets for this recipe at these weights."""
    settings = recipe.fisher
    form = Form(
        models=[model_value(entry.checkpoint, entry.task) for entry in recipe.models],
        heads=recipe.heads,
        tasks=list(recipe.evaluation.tasks),
        labels=settings.labels,
        examples=settings.examples,
        seed=settings.seed,
        floor=settings.floor,
        normalise=settings.normalise,
        zero_rule=settings.zero_rule,
        device=recipe.device,
        split=recipe.evaluation.split,
        base=recipe.base or "",
        weights=tuple([*weights, *[1.0] * (ROWS - len(weights))]),
        rule=recipe.rule,
        beside=[name for name in recipe.compare if name in RULES],
        **{name: getattr(recipe.settings, name) for name in ("scale", *NUMBERS)},
        layer_weights=layer_weights_text(recipe.layer_weights),
    )
    return form.values()


if __name__ == "__main__":
    main()
