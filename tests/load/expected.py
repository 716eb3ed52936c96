"""What each visitor must see: merges of a finite set of weights, computed by `merging` alone, one after the other."""

import hashlib
import io
import json
import random
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from safetensors.torch import load as load_tensors
from torch import Tensor

import merging
from components.style import TITLES
from merging.export import scores_as_dict
from merging.pipeline import Result
from merging.recipe import FisherSettings, Recipe
from tests.benchmarks.slider import form_values

# The page's first preset, one with merged heads, one with more tasks than models, and estimates that nobody made before.
STUDIES = {
    "four tasks": ("four-tasks", FisherSettings()),
    "five seeds": ("five-seeds", FisherSettings()),
    "robust": ("robust", FisherSettings()),
    "four tasks, empirical": ("four-tasks", FisherSettings(labels="empirical", examples=32, seed=1)),
    "two models, empirical": ("intermediate", FisherSettings(labels="empirical", examples=48, seed=2)),
}
METHODS = ("experts", "isotropic", "fisher", "ensemble")


@dataclass(frozen=True, eq=False)
class Case:
    """One recipe as a visitor sets it: what the page sends for it, and what must come back.

    `table` holds for each task the methods' accuracies in per cent, `scores` what an export says of them, `tensors` the
    digests of the merged parameters.
    """

    study: str
    recipe: Recipe
    values: list[object]
    table: Mapping[str, list[float]]
    mean: str
    shares: list[str]
    scores: Mapping[str, object]
    tensors: frozenset[str]

    def wrong_in_picture(self, sentence: str, figure: object, table: str, shares: str) -> str:
        """What differs in the page's four parts; empty where all is this visitor's own."""
        told = re.findall(r"<b>([\d.]+)&nbsp;%</b>", sentence)[:1]
        bars = _bars(figure)
        found = {
            "sentence": (told, [self.mean]),
            "table": (numbers(table), dict(self.table)),
            "bars": (bars[: len(self.table)], [round(row[METHODS.index("fisher")], 9) for row in self.table.values()]),
            "shares": (re.findall(r"([\d.]+) %</span>", shares), self.shares),
        }
        return "; ".join(f"{part}: expected {want}, got {got}" for part, (got, want) in found.items() if got != want)

    def wrong_in_shares(self, shares: str) -> str:
        """The same for a preview, whose scores are of a sample of the rows."""
        got = re.findall(r"([\d.]+) %</span>", shares)
        return "" if got == self.shares else f"shares: expected {self.shares}, got {got}"

    def wrong_in_export(self, content: bytes) -> str:
        """What differs in the zip of a merged model."""
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            scores = json.loads(packed.read("merged/scores.json"))
            recipe = Recipe.from_yaml(packed.read("merged/recipe.yaml").decode())
            tensors = load_tensors(packed.read("merged/model.safetensors"))
        if recipe.weights != self.recipe.weights:
            return f"recipe: expected weights {self.recipe.weights}, got {recipe.weights}"
        if scores != self.scores:
            return "scores: those of another merge"
        missing = self.tensors - {digest(tensor) for tensor in tensors.values()}
        return f"tensors: {len(missing)} of {len(self.tensors)} are another's" if missing else ""


def compute(studies: Sequence[str] = tuple(STUDIES), *, weights: int = 8, seed: int = 0) -> dict[str, list[Case]]:
    """The cases of each study, the first at the preset's own weights."""
    generator = random.Random(seed)
    pool = merging.open_pool("digits")
    cases: dict[str, list[Case]] = {}
    for study in studies:
        preset, fisher = STUDIES[study]
        recipe = replace(merging.preset_recipe(pool, preset), fisher=fisher)
        prepared = merging.prepare(recipe)
        recipes = [recipe] + [recipe.with_weights(_drawn(generator, len(recipe.models))) for _ in range(weights - 1)]
        cases[study] = [_case(study, merging.pipeline.evaluate(prepared, one)) for one in recipes]
    return cases


def numbers(table: str) -> dict[str, list[float]]:
    """The exact accuracies in the page's table, by task."""
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', table)
    found = {name: [float(value) for value in re.findall(r'data-value="([^"]*)"', cells)] for name, cells in rows}
    return {name: values for name, values in found.items() if values}


def digest(tensor: Tensor) -> str:
    """Equal for equal numbers in equal shapes; names are no help, since files have others than models in memory."""
    content = tensor.detach().cpu().contiguous().numpy()
    return hashlib.sha256(f"{content.shape}".encode() + content.tobytes()).hexdigest()


def _case(study: str, result: Result) -> Case:
    recipe, total = result.recipe, sum(result.recipe.weights)
    methods = [method for method in METHODS if method in result.scores]
    return Case(
        study,
        recipe,
        form_values(recipe, recipe.weights),
        {task: [100 * result.scores[method][task].value for method in methods] for task in result.scores["fisher"]},
        f"{100 * result.mean('fisher'):.1f}",
        [f"{100 * weight / total:.1f}" for weight in recipe.weights],
        json.loads(json.dumps(scores_as_dict(result))),
        frozenset(map(digest, result.merged.values())),
    )


def _bars(figure: object) -> list[float]:
    """The Fisher merge's bars, task by task and their mean; none where there is no figure."""
    drawn = json.loads(figure["plot"])["data"] if isinstance(figure, dict) and figure.get("plot") else []
    return next(([round(value, 9) for value in one["y"]] for one in drawn if one.get("name") == TITLES["fisher"]), [])


def _drawn(generator: random.Random, count: int) -> list[float]:
    """Weights as sliders give them: two digits, none of them zero."""
    return [round(generator.uniform(0.01, 1), 2) for _ in range(count)]
