"""The diagonal Fisher information of a classifier on a task."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from merging.cache import write_atomically
from merging.devices import fitting_threads
from merging.errors import FisherError
from merging.gradients import SquaredGradients
from merging.gradients.kronecker import NAMES
from merging.gradients.per_example import batch_length, rows_of
from merging.gradients.readiness import original
from merging.layer_factors import Factors, LayerFactors
from merging.scales import SIZES, size_of

DIGEST = "sha256"  # of the numbers, in a file's metadata
OnProgress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Fisher(Mapping[str, Tensor]):
    """A diagonal Fisher: one tensor ≥ 0 per parameter, a mean over `examples`; a mapping by parameter name.

    `fallbacks` names the parameters that were computed one example at a time, and why; `factors` are the layers'
    Kronecker factors, where they were asked for; `seconds` what the estimate took without them.
    """

    tensors: Mapping[str, Tensor]
    examples: int
    labels: str = "exact"
    seed: int = 0
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    factors: Factors | None = None
    seconds: float = 0.0

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def to(self, device: str | torch.device) -> "Fisher":
        """The same Fisher on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return replace(self, tensors=moved)

    def save(self, path: Path) -> None:
        """Writes a safetensors file, with the estimator's settings, the tensors' sizes and their digest in its metadata.

        With the sizes a merge from file to file need not read the Fisher twice. The factors have a file of their own.
        """
        about = {name: getattr(self, name) for name in ("examples", "labels", "seed", "seconds")}
        about["fallbacks"] = dict(self.fallbacks)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        sizes = {name: size_of(tensor) for name, tensor in tensors.items()}
        metadata = {"fisher": json.dumps(about), SIZES: json.dumps(sizes)}
        save_file(tensors, path, metadata={**metadata, DIGEST: _digest(tensors, metadata)})

    @staticmethod
    def load(path: Path) -> "Fisher":
        """Reads what `save` wrote. Raises: FisherError if it is not such a file, or if its numbers are others by now."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                about = json.loads(metadata["fisher"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            if DIGEST in metadata and metadata.pop(DIGEST) != _digest(tensors, metadata):
                raise ValueError("other numbers than were written")
            estimator = int(about["examples"]), str(about["labels"]), int(about["seed"]), dict(about["fallbacks"])
            return Fisher(tensors, *estimator, seconds=float(about.get("seconds", 0.0)))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as problem:
            raise FisherError(
                f'"{Path(path).name}" cannot be read: expected a Fisher in safetensors, got {problem!s:.120}. '
                "Delete the file; it is estimated again."
            ) from problem


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {list(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


# Also for callers in inference mode, whose new tensors (a float32 copy) could not take part in gradients.
@torch.inference_mode(False)
def diagonal_fisher(
    model: nn.Module,
    batches: Iterable[Mapping[str, object]],
    labels: str = "auto",
    *,
    seed: int = 0,
    factors: bool = False,
    on_progress: OnProgress | None = None,
    state: Path | None = None,
) -> Fisher:
    """The diagonal Fisher information, a mean over examples, one tensor per parameter of `model`.

    Fⱼ = 1/N Σₙ E_{y∼p(y|xₙ,θ)} [(∂ log p(y|xₙ,θ)/∂θⱼ)²], in nats², in evaluation mode, per example whatever the
    batches, in float32 (float64 for a float64 model; a half-precision model is computed in a float32 copy, on a GPU
    in its own precision with float32 sums). `exact` sums over all K labels by K − 1 backward passes (one for K = 2);
    `rademacher` and `sampled` take one random direction, or one label drawn from the model, by `seed` and the
    example's place; `auto` is `exact` up to 16 classes and `rademacher` beyond. `empirical` takes the data's labels
    and is not the Fisher: it vanishes as the model fits its data. The others never look at the labels.

    `model(**batch)` gives `.logits` of shape (N, K): softmax over K classes, or what the configuration's
    `problem_type` says; one output is a regression with variance 1. A causal language model's (N, T, K) are next
    tokens, for which one label is drawn at every position: the unit is then the sequence (the sum over its tokens
    of the tokens' Fishers, a mean over sequences). A batch is a mapping of tensors with one row per example; its
    `labels`, where present, are not passed to the model. It is cut smaller where memory asks for it.

    Tied parameters are one tensor. Parameters that the logits do not depend on get zeros. Mode and `requires_grad`
    are restored. Every estimate is checked against plain autograd on three examples; parameters that disagree, or
    that no rule covers, are computed one example at a time, named in `.fallbacks`, and warned of. `on_progress` is
    called after every batch and may raise `Cancelled`. With `state`, a file is written after every batch, from which
    the same call goes on later and ends with the same bits; the caller removes it.

    With `factors`, the result's `factors` hold the Kronecker factors of every linear layer, Conv1D and convolution
    without groups that no fallback concerns, from the same passes.

    Raises: FisherError, RecipeError; CacheError if `state` cannot be written.
    Source: Matena & Raffel 2022, equation 4; Kunstner et al. 2019 on the empirical Fisher.
    """
    started = time.monotonic()
    squares = SquaredGradients(_at_least_float32(model), labels, seed=seed, factors=factors)
    saved = _SavedState(state, labels) if state else None
    if saved:
        saved.resume(squares)
    skipped = squares.examples
    total = len(batches) if hasattr(batches, "__len__") else None
    with squares, fitting_threads(squares.model):
        for done, batch in enumerate(batches):
            count = batch_length({name: value for name, value in batch.items() if name != "labels"})
            if skipped >= count:
                skipped -= count
                continue
            rows, skipped = skipped, 0
            for part in squares.parts(rows_of(batch, slice(rows, None)) if rows else batch):
                rows += squares.add_part(part)
                if saved:
                    saved.save(squares)
                if on_progress:
                    on_progress((done + rows / count) / total if total else 0.0, _progress(squares))
    if squares.examples == 0:
        raise FisherError("The Fisher cannot be estimated: expected at least one example, got none. Check the split.")
    means = {name: total / squares.examples for name, total in squares.sums.items()}
    found = None if squares.factors is None else _factors(squares)
    seconds = time.monotonic() - started + (saved.before_s if saved else 0.0) - (found.seconds if found else 0.0)
    estimator = (squares.examples, squares.labels, seed, squares.fallbacks)
    return Fisher(means, *estimator, factors=found, seconds=max(0.0, seconds))


def _factors(squares: SquaredGradients) -> Factors:
    sums = squares.factors
    means = sums.means(squares.examples)
    layers = {
        name: LayerFactors(**own, bias=sums.layers[name].bias, is_transposed=sums.layers[name].is_transposed)
        for name, own in means.items()
    }
    return Factors(layers, squares.examples, sums.seconds)


def _progress(squares: SquaredGradients) -> str:
    slow = len(squares.fallbacks)
    scarce = f", at most {squares.at_most} at a time since memory ran out" if squares.at_most else ""
    return f"{squares.examples} examples" + (f", {slow} of its parameters one at a time" if slow else "") + scarce


class _SavedState:
    """An unfinished estimate in a file: sums, count, and what it takes to go on in the same way."""

    def __init__(self, path: Path, labels: str):
        self.path, self.labels = Path(path), labels
        self._cost_s, self._saved_at = 0.0, -math.inf
        # What the estimate had taken when it was stopped; and since when it goes on.
        self.before_s, self._begun_at = 0.0, time.monotonic()

    def resume(self, squares: SquaredGradients) -> None:
        """Raises: FisherError if the file is of another estimate; a damaged one is as if it were not there."""
        if not self.path.is_file():
            return
        try:
            with safe_open(self.path, framework="pt") as file:
                about = json.loads(file.metadata()["state"])
                sums = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return
        if ("tokens" in about) != (squares.factors is not None):
            got, expected = ("with", "without") if "tokens" in about else ("without", "with")
            raise FisherError(
                f'"{self.path.name}" is the state of another estimate: expected one {expected} factors, got one {got} them. '
                "Delete the file, or name another one."
            )
        factors = {name: sums.pop(name) for name in list(sums) if name not in squares.sums}
        shapes, saved = ({name: tensor.shape for name, tensor in each.items()} for each in (squares.sums, sums))
        if squares.factors is None or factors.keys() != {f"{n}:{each}" for n in about["tokens"] for each in NAMES}:
            saved |= {name: tensor.shape for name, tensor in factors.items()}
        if (about["requested"], about["seed"]) != (self.labels, squares.seed) or shapes != saved:
            raise FisherError(
                f'"{self.path.name}" is the state of another estimate: expected labels {self.labels}, seed '
                f"{squares.seed} and this model's {len(shapes)} tensors, got {about['requested']}, {about['seed']} and "
                f"{len(saved)} tensors. Delete the file, or name another one."
            )
        del about["requested"]
        tokens, seconds = about.pop("tokens", {}), about.pop("seconds", 0.0)
        self.before_s = float(about.pop("elapsed", 0.0))
        if squares.factors is not None:
            squares.factors.restore(factors, tokens, seconds)
        squares.resume(sums, about.pop("examples"), about)

    def save(self, squares: SquaredGradients) -> None:
        """After every batch; where writing takes longer than the batches since the last time, less often."""
        started = time.monotonic()
        if started - self._saved_at < self._cost_s:
            return
        about = {**squares.about(), "examples": squares.examples, "requested": self.labels}
        about["elapsed"] = self.before_s + started - self._begun_at
        sums = {name: total.cpu() for name, total in squares.sums.items()}
        if squares.factors is not None:
            about |= {"tokens": squares.factors.tokens, "seconds": squares.factors.seconds}
            sums |= {name: total.cpu() for name, total in squares.factors.flat().items()}
        write_atomically(self.path, lambda path: save_file(sums, path, metadata={"state": json.dumps(about)}))
        self._saved_at = time.monotonic()
        self._cost_s = self._saved_at - started


def _at_least_float32(model: nn.Module) -> nn.Module:
    """A GPU computes in half precision at several times the speed; a CPU gains nothing from it."""
    half = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())
    on_gpu = any(parameter.device.type == "cuda" for parameter in model.parameters())
    return copy.deepcopy(original(model)).float() if half and not on_gpu else model
