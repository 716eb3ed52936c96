"""What a recipe may take at most where strangers choose it; on one's own machine the machine is the limit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from merging.errors import CheckpointError, MergingError, RecipeError, TaskError
from merging.headers import Header
from merging.hub_datasets import require_dataset_size
from merging.recipe import Recipe


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
        sizes = f"{limits.memory_bytes / 1e9:.1f} GB of memory, got {memory_bytes / 1e9:.1f} GB"
        yield "memory", RecipeError(_too_large("The merge", sizes, "Take fewer or smaller models"))
    for header in headers:
        numbers = sum(stored.count for stored in header.tensors.values())
        if numbers > limits.parameters:
            sizes = f"{limits.parameters / 1e6:,.0f} million parameters, got {numbers / 1e6:,.0f} million"
            yield "size", CheckpointError(_too_large(f'"{header.reference}"', sizes, "Pick a smaller one"))
    for task in [*[model.task for model in recipe.models], *recipe.evaluation.tasks]:
        if isinstance(task, Mapping) and "dataset" in task:
            try:
                require_dataset_size(task, limits.dataset_bytes)
            except TaskError as problem:
                yield "dataset", problem


def _too_large(what: str, sizes: str, advice: str) -> str:
    return (
        f"{what} is too large for this page: expected at most {sizes}. {advice}, or run the studio on your own machine."
    )
