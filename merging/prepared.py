"""Models opened, Fishers estimated, single models evaluated: all that a merge with any weights needs."""

import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor, nn

from merging.checkpoints import Checkpoint, body_prefix, open_checkpoint
from merging.device_memory import DeviceMemory
from merging.devices import fits_one_thread
from merging.evaluation import Batches, Fixed, Prediction, ensembled, on_device, predict, share_equal_inputs, with_body
from merging.evaluation_tasks import EvaluationTask
from merging.families import answers_in_words, base_parameters
from merging.fisher import Fisher
from merging.lending import Lender, lent_fixed
from merging.merger import Merger
from merging.once import Once
from merging.recipe import Recipe
from merging.targets import Targets, buffers_of, write_merged

Parameters = dict[str, Tensor]
Predictions = dict[str, Prediction]
# Small merges that are evaluated side by side: the recipe's own and the isotropic one.
AT_ONCE = 2


@dataclass(eq=False)
class Prepared:
    """Everything about a recipe that does not depend on its weights; safe to use from several threads.

    Names are unique: one per model (`names`) and one per task.
    """

    recipe: Recipe
    names: list[str]
    checkpoints: list[Checkpoint]
    modules: list[nn.Module]
    fishers: list[Fisher]
    tasks: list[EvaluationTask]
    device: str
    timings: dict[str, float] = field(default_factory=dict)
    memory: DeviceMemory | None = None
    lender: Lender | None = None
    contents: object = None  # of models and rows: `again` serves whoever has equal ones

    def __post_init__(self) -> None:
        self.memory = self.memory or DeviceMemory(self.device)
        self._lock = threading.RLock()
        self._batches: dict[str, list[Batches]] = {}
        self.fixed: Once[Fixed] = Once()
        self._bases: dict[str, dict[str, Tensor]] = {}
        self.merger = Merger()
        self._parameters: list[Parameters] | None = None
        self._notes: dict[str, object] = {}
        self.at_once = AT_ONCE if fits_one_thread(self.modules[0]) else 1
        self._targets = Targets(self.modules[0], self.at_once)
        self._whole: Prepared | None = None  # of a sample
        self._samples: dict[tuple[int, int], tuple[threading.RLock, dict[str, list[Batches]], Once[Fixed]]] = {}

    @property
    def equal_labels(self) -> bool:
        """Whether all models predict the same labels in the same order.

        Names like `LABEL_0` say nothing; they count as equal only for models of one task.
        """
        names = {checkpoint.label_names for checkpoint in self.checkpoints}
        generic = any(name.startswith("LABEL_") for name in next(iter(names)))
        one_task = any(len(entry.owners) == len(self.modules) for entry in self.tasks)
        return len(names) == 1 and (one_task or not generic)

    @property
    def merged_names(self) -> list[str]:
        """The parameters that are merged: the body's, or all with `heads: merge`."""
        names = [name for name, _ in self.modules[0].named_parameters()]
        prefix = body_prefix(self.modules[0])
        return names if self.recipe.heads == "merge" else [name for name in names if name.startswith(prefix)]

    def parameters(self) -> list[dict[str, Tensor]]:
        """Each model's parameters that are merged, by name."""
        if self._parameters is None:  # two at once find the same
            wanted = set(self.merged_names)
            self._parameters = [
                {name: tensor.detach() for name, tensor in module.named_parameters() if name in wanted}
                for module in self.modules
            ]
        return self._parameters

    def merge(self, recipe: Recipe, *, rule: str | None = None, on_progress: Callable | None = None) -> Parameters:
        """The merged parameters with the recipe's weights and Fisher settings; by its own rule, or by `rule`."""
        base = self.base(recipe)

        def on(device: str) -> Parameters:
            asked = {"base": base, "device": device, "on_progress": on_progress}
            return self.merger.merge(recipe, rule or recipe.rule, self.parameters(), self.fishers, **asked)

        return self.memory.or_on_cpu(on, "the merge")

    def base(self, recipe: Recipe) -> Mapping[str, Tensor] | None:
        """The parameters of the recipe's base, opened once; None where its settings do not need them."""
        if not recipe.base or not (recipe.needs_base or recipe.fisher.zero_rule == "base"):
            return None
        with self._lock:
            if recipe.base not in self._bases:
                opened = open_checkpoint(recipe.base, is_base=True)
                self._bases[recipe.base] = base_parameters(self.checkpoints[0], opened, self.device)
            return self._bases[recipe.base]

    def sampled(self, examples: int) -> "Prepared":
        """The same models and Fishers, evaluated on that many rows of each task, which are drawn once."""
        own = copy.copy(self)
        own.recipe = replace(self.recipe, evaluation=replace(self.recipe.evaluation, examples=examples))
        key = self.recipe.fisher.seed, examples  # all that draws its rows
        drawn = self._samples.setdefault(key, (threading.RLock(), {}, Once()))
        (own._lock, own._batches, own.fixed), own.lender, own._whole = drawn, None, self
        return own

    def again(
        self, recipe: Recipe, timings: dict[str, float], memory: DeviceMemory, lender: Lender | None
    ) -> "Prepared":
        """The same models, rows and predictions of single models, for other Fishers, which are yet to be added."""
        own = copy.copy(self)
        own.recipe, own.timings, own.memory, own.lender = recipe, timings, memory, lender
        own.fishers, own.merger, own._bases, own._notes = [], Merger(), {}, {}
        return own

    def predict_merged(
        self,
        merged: Mapping[str, Tensor],
        split: str,
        weights: list[float],
        *,
        between: Callable[[], None] | None = None,
    ) -> Predictions:
        """What the model with these parameters predicts on every task of a split; `at_once` calls run side by side.

        `between` batches something may be called, which may raise Cancelled.
        """
        batches = self.batches(split)
        with self._targets.one(is_patient=between is not None) as target:
            models = self.merged_models(target, merged, weights)
            predictions = predict(models, batches, between=between, memory=self.memory)
        return {entry.name: prediction for entry, prediction in zip(self.tasks, predictions, strict=True)}

    def rest(self, *, with_models: bool = True) -> None:
        """Gives back the memory of what the next merge makes anew in no time; but not of models that another works with."""
        self.merger.forget_flat()
        if with_models:
            self._targets.forget()

    def merged_models(self, target: nn.Module, merged: Mapping[str, Tensor], weights: list[float]) -> list[nn.Module]:
        """For every task the model that answers it, with these parameters written into `target`, which they share."""
        write_merged(target, self.modules, merged, weights)
        # A head that is made of a task's words is no parameter, and cannot be merged.
        keep = self.recipe.heads == "keep" or answers_in_words(self.checkpoints[0])
        return [with_body(self.modules[entry.head], target.base_model) if keep else target for entry in self.tasks]

    def kept(self, key: str, make: Callable[[], object]) -> object:
        """What `make` says about the models and Fishers, asked once."""
        if key not in self._notes:  # two at once find the same
            self._notes[key] = make()
        return self._notes[key]

    @property
    def notes(self) -> list[str]:
        """What a merge does beside the rule, in sentences."""
        averaged = [name for name, tensor in buffers_of(self.modules[0]).items() if tensor.is_floating_point()]
        text = f"{len(averaged)} buffers (such as batch-norm statistics) are averaged by λ, whatever the rule."
        return [*([text] if averaged else []), *self.memory.notes]

    def merged_copy(self, merged: Mapping[str, Tensor], weights: list[float]) -> nn.Module:
        """A model of its own with these parameters; its head is the first model's unless heads are merged."""
        target = copy.deepcopy(self.modules[0])
        write_merged(target, self.modules, merged, weights)
        return target

    def fixed_predictions(self, split: str, pause: Callable[[], None] | None = None) -> Fixed:
        """What no weight changes, computed once: each single model by name and task; the ensemble by task. See `predict`."""
        return self.fixed.get(split, partial(self._predict_fixed, split), pause)

    def batches(self, split: str) -> list[Batches]:
        """The split of every task, on the device; equal inputs are stored once."""
        with self._lock:
            if split not in self._batches:
                batches = share_equal_inputs([self._encoded(entry, split, entry.head) for entry in self.tasks])
                # Where they do not fit beside the models, each goes there when it is needed.
                self._batches[split] = self.memory.or_on_cpu(partial(on_device, batches), "the storage of the rows")
            return self._batches[split]

    def size_bytes(self, *, with_models: bool = True) -> int:
        """The memory that the Fishers and the models take; without the models where another has the same."""
        models, fishers = self.kept("bytes", self._lasting_bytes)
        own = fishers + sum(map(_bytes, list(self._bases.values()))) + self.merger.size_bytes()
        return own + (sum(models) + self._targets.kept() * models[0] if with_models else 0)

    def _lasting_bytes(self) -> tuple[list[int], int]:
        models = [sum(tensor.nbytes for tensor in module.parameters()) for module in self.modules]
        return models, sum(map(_bytes, self.fishers))

    def _encoded(self, entry: EvaluationTask, split: str, index: int) -> Batches:
        chosen, seed = self.recipe.evaluation.examples, self.recipe.fisher.seed
        examples = None if chosen == "all" else int(chosen)
        order = {"by_length": True, "with_rows": True}
        return entry.task.batches(split, self.checkpoints[index], examples=examples, seed=seed, **order)

    def _predict_fixed(self, split: str, pause: Callable[[], None] | None) -> Fixed:
        if self._whole is not None and self._whole.recipe.evaluation.examples == "all" and self._whole.fixed.has(split):
            drawn = partial(Prediction.drawn, examples=self.recipe.evaluation.examples, seed=self.recipe.fisher.seed)
            singles, together = self._whole.fixed_predictions(split)
            few = {name: {task: drawn(one) for task, one in own.items()} for name, own in singles.items()}
            return few, {task: drawn(one) for task, one in together.items()}
        batches = self.batches(split)
        lent = lent_fixed(self.lender, self.recipe, self.checkpoints, batches, split, pause, self.memory)
        if lent is not None:
            return lent
        singles: dict[str, Predictions] = {name: {} for name in self.names}
        members: dict[str, list[Prediction]] = {entry.name: [] for entry in self.tasks}
        for index, module in enumerate(self.modules):
            heads = [module if self.equal_labels else self.modules[entry.head] for entry in self.tasks]
            views = [with_body(head, module.base_model) for head in heads]
            predictions = predict(views, batches, between=pause, memory=self.memory)
            for entry, own, member in zip(self.tasks, batches, predictions, strict=True):
                members[entry.name].append(member)
                if self._can_do(index, entry):
                    same_head = self.equal_labels or index == entry.head
                    mine = member if same_head else self._predict_single(index, entry, own, split)
                    singles[self.names[index]][entry.name] = mine
        return singles, {name: ensembled(own) for name, own in members.items()}

    def _can_do(self, index: int, entry: EvaluationTask) -> bool:
        return index in entry.owners or (
            self._has_labels_of(entry.head, index) and (self.equal_labels or not entry.owners)
        )

    def _predict_single(self, index: int, entry: EvaluationTask, own: Batches, split: str) -> Prediction:
        # Checkpoints of one task may order their labels differently, as MNLI's do.
        if not self._has_labels_of(entry.head, index):
            own = on_device([self._encoded(entry, split, index)], self.device)[0]
        return predict([self.modules[index]], [own], memory=self.memory)[0]

    def _has_labels_of(self, first: int, second: int) -> bool:
        return self.checkpoints[first].label_names == self.checkpoints[second].label_names


def _bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
