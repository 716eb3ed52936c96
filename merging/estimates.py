"""A checkpoint's Fisher on its task, from the cache or estimated into it."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from merging import cache
from merging.checkpoints import Checkpoint
from merging.device_memory import DeviceMemory, cpu_copies
from merging.errors import DeviceError, FisherError
from merging.fisher import Fisher, diagonal_fisher
from merging.gradients import resolve_labels
from merging.layer_factors import Factors
from merging.lending import Lender, fisher_operations
from merging.recipe import FisherSettings, Recipe
from merging.scales import check_fisher
from merging.tasks import Task

OnProgress = Callable[[float, str], None]
# At most: the estimate cuts it to what fits into memory.
FISHER_BATCH = 256
FACTORS = "factors"  # what lies beside a Fisher in the cache


def fisher_key(checkpoint: Checkpoint, task: Task, settings: FisherSettings, device: str) -> cache.FisherKey:
    """What the Fisher of a checkpoint on its task is cached under."""
    examples = None if settings.examples == "all" else int(settings.examples)
    content = task.content_hash("fisher", checkpoint) if task.has("fisher") else ""
    # One name for one estimate, whether its labels were chosen or found by `auto`.
    labels = resolve_labels(settings.labels, len(checkpoint.label_names))
    return cache.FisherKey(checkpoint.hash, content, "fisher", examples, labels, settings.seed, device)


def is_cached(
    checkpoint: Checkpoint, task: Task, settings: FisherSettings, device: str | torch.device, factors: bool
) -> bool:
    """Whether there is a Fisher that needs no estimate, unless its file turns out to be damaged."""
    key = fisher_key(checkpoint, task, settings, str(device))
    return all(cache.entry_path(key, part).is_file() for part in ("", FACTORS)[: 1 + factors])


def fisher_of(
    checkpoint: Checkpoint,
    task: Task,
    module: nn.Module,
    *,
    settings: FisherSettings,
    device: str | torch.device,
    factors: bool = False,
    on_progress: OnProgress | None = None,
    memory: DeviceMemory | None = None,
) -> Fisher:
    """The Fisher of `module`, the checkpoint as it is opened for its task: cached, else estimated and cached at once.

    With `factors`, it has the Kronecker factors of its layers, from the same passes, cached beside it.

    Where the device's memory does not hold one example, it is the CPU's Fisher, under the CPU's name; `memory` tells it.

    Raises: TaskError, FisherError, DeviceError, CacheError (before the estimation if the cache cannot be written).
    """

    def on(place: str) -> Fisher:
        own = module if place == str(device) else cpu_copies([module])[0]
        asked = {"settings": settings, "factors": factors, "on_progress": on_progress}
        return _fisher_on(place, checkpoint, task, own, **asked)

    return (memory or DeviceMemory(str(device))).or_on_cpu(on, f'the estimate of the Fisher of "{checkpoint.name}"')


def lent_fisher(
    lender: Lender | None,
    recipe: Recipe,
    index: int,
    checkpoint: Checkpoint,
    task: Task,
    module: nn.Module,
    *,
    on_progress: OnProgress,
    memory: DeviceMemory,
) -> Fisher | None:
    """The Fisher of a recipe's model from a device that is lent, by way of the cache.

    None where none is lent, and where it could not be had there, which `memory` tells. Raises: as `fisher_of`.
    """
    if lender is None:
        return None
    key, what = fisher_key(checkpoint, task, recipe.fisher, lender.device), f'The Fisher of "{checkpoint.name}"'
    fisher = _cached(key, factors=recipe.needs_factors)
    if fisher is None:
        cache.require_writable()
        try:
            lender.fisher(recipe, index, fisher_operations(checkpoint, task, recipe), on_progress)
        except DeviceError as problem:
            memory.tell(what, f"{what} was estimated on the CPU. {problem}")
        fisher = _cached(key, factors=recipe.needs_factors)
    if fisher is not None:
        check_fisher(dict(module.named_parameters()), fisher, what)
    return fisher


def _cached(key: cache.FisherKey, *, factors: bool) -> Fisher | None:
    """What the cache has, whole; None where it lacks the factors that are asked for."""
    fisher = cache.read_fisher(key, Fisher.load)
    if fisher is None or not factors:
        return fisher
    found = cache.read_fisher(key, Factors.load, FACTORS)
    return None if found is None else replace(fisher, factors=found)


def _fisher_on(
    device: str,
    checkpoint: Checkpoint,
    task: Task,
    module: nn.Module,
    *,
    settings: FisherSettings,
    factors: bool,
    on_progress: OnProgress | None,
) -> Fisher:
    key, part = fisher_key(checkpoint, task, settings, device), FACTORS if factors else ""
    fisher = _cached(key, factors=factors)
    parameters = dict(module.named_parameters())
    if fisher is None:
        cache.require_writable()
        rows = {"examples": key.examples, "seed": settings.seed, "by_length": True}
        batches = task.batches("fisher", checkpoint, batch_size=FISHER_BATCH, **rows)
        with cache.estimating(key, part) as state:
            estimator = {"seed": settings.seed, "factors": factors, "on_progress": on_progress, "state": state}
            fisher = diagonal_fisher(module, batches, key.labels, **estimator)
            check_fisher(parameters, fisher, f'The Fisher of "{checkpoint.name}"')
            cache.write_atomically(cache.entry_path(key), fisher.save)
            if fisher.factors is not None:
                cache.write_atomically(cache.entry_path(key, FACTORS), fisher.factors.save)
                # From the file they are read layer by layer; where that is gone again, they stay in memory.
                fisher = replace(fisher, factors=cache.read_fisher(key, Factors.load, FACTORS) or fisher.factors)
            state.unlink(missing_ok=True)
        return fisher
    try:
        check_fisher(parameters, fisher, f'The cached Fisher of "{checkpoint.name}"')
    except FisherError as problem:
        raise FisherError(f'{problem} Delete "{cache.entry_path(key)}"; it is then estimated again.') from problem
    return fisher
