"""What a recipe may take at most where strangers choose it; on one's own machine the machine is the limit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from merging.errors import CheckpointError, MergingError, RecipeError, TaskError
from merging.headers import Header
from merging.hub_datasets import require_dataset_size
from merging.recipe import Recipe

ELSEWHERE = "or run the studio on your own machine."


@dataclass(frozen=True)
class Limits:
    """The most numbers in one checkpoint, bytes of one dataset's repository, and bytes of memory for a whole merge."""

    parameters: int
    dataset_bytes: int
    memory_bytes: int


# A free Space has 16 GB of memory; a CLIP-ViT-L/14 has 304 million numbers in the tower that is merged.
HOSTED = Limits(parameters=450_000_000, dataset_bytes=2 * 10**9, memory_bytes=12 * 10**9)


def over_limits(
    headers: Sequence[Header], recipe: Recipe, memory_bytes: int, limits: Limits
) -> Iterator[tuple[str, MergingError]]:
    """What of a recipe is over the limits, each with a word for it; nothing but headers and listings is read."""
    if memory_bytes > limits.memory_bytes:
        expected, got = f"{limits.memory_bytes / 1e9:.1f} GB of memory", f"{memory_bytes / 1e9:.1f} GB"
        yield (
            "memory",
            RecipeError(
                f"The merge is too large for this page: expected at most {expected}, got {got}. "
                f"Take fewer or smaller models, {ELSEWHERE}"
            ),
        )
    for header in headers:
        numbers = sum(stored.count for stored in header.tensors.values())
        if numbers > limits.parameters:
            expected, got = f"{limits.parameters / 1e6:,.0f} million parameters", f"{numbers / 1e6:,.0f} million"
            yield (
                "size",
                CheckpointError(
                    f'"{header.reference}" is too large for this page: expected at most {expected}, got {got}. '
                    f"Pick a smaller one, {ELSEWHERE}"
                ),
            )
    for task in [*[model.task for model in recipe.models], *recipe.evaluation.tasks]:
        if isinstance(task, Mapping) and "dataset" in task:
            try:
                require_dataset_size(task, limits.dataset_bytes)
            except TaskError as problem:
                yield "dataset", problem
