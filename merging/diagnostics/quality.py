"""How many examples a Fisher needs: its likeness to that of all examples, and the merge with it, as they come in."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.fisher import diagonal_fisher
from merging.gradients.per_example import rows_of
from merging.merge import merge_parameters
from merging.metrics import accuracy
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.tasks import open_task

OnProgress = Callable[[float, str], None]
MOST_EXAMPLES = 512


@dataclass(frozen=True)
class FisherQuality:
    """For each of `counts` examples: each model's cosine to its Fisher of the last count, and the merge's mean accuracy.

    `cosines` is by model, in the order of `counts`; `isotropic` is the mean accuracy of the merge without a Fisher, on
    the same `split`.
    """

    counts: tuple[int, ...]
    cosines: Mapping[str, tuple[float, ...]]
    accuracies: tuple[float, ...]
    isotropic: float
    split: str

    @property
    def summary(self) -> str:
        """One sentence, for the end of a job."""
        return f"Measured with up to {self.counts[-1]} examples."


def fisher_quality(
    prepared: Prepared,
    recipe: Recipe,
    *,
    most: int = MOST_EXAMPLES,
    split: str | None = None,
    on_progress: OnProgress | None = None,
) -> FisherQuality:
    """Fishers of 1, 2, 4, … up to `most` examples of each model's own task, each a part of the next, in one pass.

    F of n + m examples is (n F_n + m F_m) / (n + m), so no example is seen twice. The merge is at the recipe's weights
    and settings, scored on `split`, the recipe's own unless it is given.

    Raises: MergingError.
    """
    report = on_progress or (lambda fraction, text: None)
    batches = [_drawn(prepared, recipe, index, most) for index in range(len(prepared.modules))]
    counts = nested_counts(min(_length(batch) for batch in batches))
    kept: list[list[dict[str, Tensor]]] = []
    for index, (module, batch) in enumerate(zip(prepared.modules, batches, strict=True)):
        name = prepared.names[index]

        def step(examples: int, index: int = index, name: str = name) -> None:
            share = (index + examples / counts[-1]) / len(batches)
            report(0.8 * share, f"Fisher of {name}: {examples} of {counts[-1]} examples")

        kept.append(running_fishers(module, batch, counts, recipe, prepared.merged_names, step))
    split, scores = split or recipe.evaluation.split, []
    for place, count in enumerate(counts):
        report(0.8 + 0.2 * place / len(counts), f"merging with the Fishers of {count} examples")
        scores.append(_merged_accuracy(prepared, recipe, split, [own[place] for own in kept]))
    plain = prepared.predict_merged(prepared.merge(recipe, rule="isotropic"), split, recipe.weights)
    names = prepared.names
    cosines = {name: tuple(cosine(one, own[-1]) for one in own) for name, own in zip(names, kept, strict=True)}
    return FisherQuality(tuple(counts), cosines, tuple(scores), _mean(plain), split)


def nested_counts(most: int) -> list[int]:
    """1, 2, 4, … and `most` itself."""
    counts = [1]
    while 2 * counts[-1] < most:
        counts.append(2 * counts[-1])
    return counts if most == counts[-1] else [*counts, most]


def running_fishers(
    module: torch.nn.Module,
    batch: Mapping[str, object],
    counts: Sequence[int],
    recipe: Recipe,
    names: Sequence[str],
    on_step: Callable[[int], None],
) -> list[dict[str, Tensor]]:
    """The Fishers of the first n examples of a batch, for each n of `counts`, of these parameters."""
    found, before = [], 0
    for count in counts:
        part = [rows_of(batch, slice(start, min(start + 64, count))) for start in range(before, count, 64)]
        settings = {"labels": recipe.fisher.labels, "seed": recipe.fisher.seed + before}
        own = diagonal_fisher(
            module,
            part,
            **settings,
            on_progress=lambda fraction, text, at=before, to=count: on_step(at + round(fraction * (to - at))),
        )
        last = found[-1] if found else {name: torch.zeros_like(own[name]) for name in names}
        found.append({name: last[name] + (own[name] - last[name]) * ((count - before) / count) for name in names})
        before = count
    return found


def cosine(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """⟨F, G⟩ / (‖F‖ ‖G‖) over all parameters; 0 where one of them is 0 everywhere."""

    def product(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> float:
        return sum(float((one[name].double() * two[name].double()).sum()) for name in one)

    sizes = (product(first, first) * product(second, second)) ** 0.5
    return min(1.0, product(first, second) / sizes) if sizes > 0 else 0.0


def _drawn(prepared: Prepared, recipe: Recipe, index: int, most: int) -> dict[str, object]:
    """Up to `most` rows of a model's own `fisher` split, in an order drawn by the recipe's seed: splits come sorted."""
    task, seed = open_task(recipe.models[index].task), recipe.fisher.seed
    own = task.batches("fisher", prepared.checkpoints[index], batch_size=most, examples=most, seed=seed)[0]
    order = torch.randperm(_length(own), generator=torch.Generator().manual_seed(seed))
    inputs = {name: value for name, value in own.items() if name != "labels" or recipe.fisher.labels == "empirical"}
    return {name: value[order].to(prepared.device) for name, value in inputs.items()}


def _length(batch: Mapping[str, object]) -> int:
    return len(next(iter(batch.values())))


def _merged_accuracy(prepared: Prepared, recipe: Recipe, split: str, fishers: list[dict[str, Tensor]]) -> float:
    settings = recipe.fisher
    merged = merge_parameters(
        prepared.parameters(),
        "fisher",
        recipe.weights,
        fishers=fishers,
        floor=float(settings.floor),
        normalise=settings.normalise,
        zero_rule=settings.zero_rule,
        base=prepared.base(recipe),
        device=prepared.device,
    )
    return _mean(prepared.predict_merged(merged, split, recipe.weights))


def _mean(predictions: Mapping[str, object]) -> float:
    return sum(accuracy(one.correct).value for one in predictions.values()) / len(predictions)
