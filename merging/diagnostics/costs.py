"""What fine-tuning, a Fisher, a merge and an ensemble cost: operations counted, seconds measured."""

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from merging.devices import fitting_threads
from merging.evaluation import predict
from merging.fisher import diagonal_fisher
from merging.gradients.per_example import rows_of
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.tasks import open_task

OnProgress = Callable[[float, str], None]
# Rows that a step is measured on, and how often; the fastest counts.
MEASURED_ROWS = 32
REPEATS = 3
CHECKED_ROWS = 3  # of every estimate, against plain autograd


@dataclass(frozen=True)
class Cost:
    """One piece of work: `flops` in operations (a multiply-add counts as two), `seconds`, and how each was come by."""

    name: str
    flops: float
    seconds: float
    flops_from: str
    seconds_from: str


@dataclass(frozen=True)
class Costs:
    """What the page's models cost: `work` done once, and `each_input`, per prediction."""

    work: tuple[Cost, ...]
    each_input: tuple[Cost, ...]
    models: int
    epochs: int
    rows: int
    fisher_examples: int


def measure_costs(
    prepared: Prepared, recipe: Recipe, *, epochs: int = 20, on_progress: OnProgress | None = None
) -> Costs:
    """The costs of making all models, their Fishers, their merge, and of one prediction by the merge and the ensemble.

    Operations of passes through a model are counted by PyTorch on a batch of its own task and scaled by the number of
    rows; those of a merge follow from its formula. Seconds of a merge are measured on the whole merge; the others on a
    batch, and scaled in the same way. Models of one architecture with as many labels are measured once.

    Raises: MergingError.
    """
    report = on_progress or (lambda fraction, text: None)
    groups = _alike(prepared)
    flops, seconds = dict.fromkeys(("training", "Fisher", "forward"), 0.0), {}
    seconds |= flops
    rows_of_all = examples_of_all = 0
    for place, members in enumerate(groups):
        report(0.9 * place / len(groups), f"measuring {prepared.names[members[0]]}")
        own_flops, own_seconds, size = _measured(prepared, recipe, members[0])
        for index in members:
            rows, examples = _sizes(recipe, index)
            rows_of_all, examples_of_all = rows_of_all + rows, examples_of_all + examples
            for what, times in (("training", rows * epochs), ("Fisher", examples), ("forward", 1)):
                flops[what] += own_flops[what] * times
                seconds[what] += own_seconds[what] * times
    report(0.9, "measuring the merge")
    count, scaled = len(prepared.modules), f"on {size} rows, scaled"
    parameters = sum(tensor.numel() for tensor in prepared.parameters()[0].values())
    rules = {rule: fastest(lambda rule=rule: prepared.merge(recipe, rule=rule)) for rule in ("isotropic", "fisher")}
    merges = [
        Cost(f"{name} merge", merge_flops(rule, count, parameters), rules[rule], "formula", "whole merge")
        for rule, name in (("fisher", "Fisher"), ("isotropic", "isotropic"))
    ]
    work = (
        Cost("fine-tuning", flops["training"], seconds["training"], "counted", scaled),
        Cost("Fisher", flops["Fisher"], seconds["Fisher"], "counted", scaled),
        *merges,
    )
    each = (
        Cost("the merge", flops["forward"] / count, seconds["forward"] / count, "counted", scaled),
        Cost("the ensemble", flops["forward"], seconds["forward"], "counted", scaled),
    )
    return Costs(work, each, count, epochs, rows_of_all, examples_of_all)


def _alike(prepared: Prepared) -> list[list[int]]:
    """Indices of the models that cost the same, in groups."""
    groups: dict[tuple[str, int], list[int]] = {}
    for index, checkpoint in enumerate(prepared.checkpoints):
        groups.setdefault((checkpoint.architecture, len(checkpoint.label_names)), []).append(index)
    return list(groups.values())


def _measured(prepared: Prepared, recipe: Recipe, index: int) -> tuple[dict[str, float], dict[str, float], int]:
    """Operations and seconds per row of a training step, a Fisher and a forward pass; and the rows measured on."""
    module, task, labels = prepared.modules[index], open_task(recipe.models[index].task), recipe.fisher.labels
    batch = task.batches("fisher", prepared.checkpoints[index], examples=MEASURED_ROWS, seed=recipe.fisher.seed)[0]
    batch = {name: value.to(prepared.device) for name, value in batch.items()}
    size = len(batch["labels"])
    steps = {
        "training": lambda: training_step(module, batch),
        "Fisher": lambda: diagonal_fisher(module, [batch], labels),
        "forward": lambda: predict([module], [[batch]]),
    }
    flops = {name: counted(step) / size for name, step in steps.items()}
    flops["Fisher"] = fisher_flops(module, batch, labels)
    return flops, {name: fastest(step) / size for name, step in steps.items()}, size


def _sizes(recipe: Recipe, index: int) -> tuple[int, int]:
    """A model's rows to learn from, and those that its Fisher takes."""
    rows, wanted = len(open_task(recipe.models[index].task).rows("fisher")), recipe.fisher.examples
    return rows, rows if wanted == "all" else min(rows, int(wanted))


def counted(work: Callable[[], object]) -> float:
    """The operations of matrix products and convolutions in some work, as PyTorch counts them."""
    # A third of a second of imports.
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    # PyTorch's own table lacks products that are added in place, and attention on a CPU.
    aten = torch.ops.aten
    more = {
        aten.addmm_: lambda total, left, right, **_: 2 * left[0] * left[1] * right[1],
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v)
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=more) as counter:
        work()
    return float(counter.get_total_flops())


def fastest(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Seconds of the fastest of some runs."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found)


def merge_flops(rule: str, models: int, parameters: int) -> float:
    """Operations of Σ λF θ / Σ λF: for each of M models λF and its product with θ, two sums of M − 1, one division.

    Isotropic averaging needs the M products with λ and the M − 1 sums alone.
    """
    each = 2 * models + 2 * (models - 1) + 1 if rule == "fisher" else 2 * models - 1
    return float(each * parameters)


def fisher_flops(module: nn.Module, batch: Mapping[str, torch.Tensor], labels: str) -> float:
    """Operations of a Fisher per example, without the fixed price of its check against plain autograd.

    Of three examples or fewer the check cannot be told apart, and is counted with them.
    """
    size = len(batch["labels"])
    fewer = max(CHECKED_ROWS, size // 2)
    whole = counted(lambda: diagonal_fisher(module, [batch], labels))
    if size <= fewer:
        return whole / size
    part = rows_of(batch, slice(0, fewer))
    return (whole - counted(lambda: diagonal_fisher(module, [part], labels))) / (size - fewer)


def training_step(module: nn.Module, batch: Mapping[str, torch.Tensor]) -> None:
    """One forward and one backward pass of the mean loss, on a copy: the model stays as it is."""
    own = copy.deepcopy(module).train()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    for parameter in own.parameters():
        parameter.requires_grad_(True)
    with fitting_threads(own), torch.enable_grad():
        # Any label costs the same, and a regression has none.
        own(**inputs).logits.float().log_softmax(-1)[..., 0].mean().neg().backward()
