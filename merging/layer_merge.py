"""Merges whole layers by their Kronecker factors; what depends on no weight is done once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from merging.errors import FisherError, StructureError, quoted
from merging.layer_factors import LayerFactors
from merging.rules import RULES, RuleSettings
from merging.rules.kronecker import Pair, conditioned, kfac, regmean, weighted_mean

# Of float64 numbers that are worked on at a time, so that memory stays bounded; and of what is kept between merges.
BATCH_BYTES = 256 * 2**20
KEPT_BYTES = 2 * 2**30


@dataclass(frozen=True, eq=False)
class _Batch:
    """Layers of one shape: matrices and conditioned factors, or the pair that they make; `sizes` (M, L) of the Fishers."""

    names: list[str]
    sizes: Tensor
    values: Tensor
    inputs: Tensor | None
    outputs: Tensor | None
    pair: Pair | None = None

    @property
    def size_bytes(self) -> int:
        tensors = [part.nbytes for part in (self.values, self.inputs, self.outputs) if part is not None]
        return sum(tensors) + (self.pair.size_bytes if self.pair else 0)


class LayerMerge:
    """The layers of M models, by a rule on layers; safe to use from several threads, each of which may do work twice.

    `names` are the parameters that it merges: weights, and the biases beside them.
    """

    def __init__(
        self,
        models: Sequence[Mapping[str, Tensor]],
        factors: Sequence[Mapping[str, LayerFactors] | None],
        rule: str,
        settings: RuleSettings,
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        """Raises: FisherError without factors for each model, or if those have other shapes than the models' layers."""
        if len(factors) != len(models) or any(own is None for own in factors):
            there = sum(own is not None for own in factors)
            raise FisherError(
                f'The rule "{rule}" needs Kronecker factors: expected those of {len(models)} models, got {there}. '
                "Estimate them with merging.diagonal_fisher(..., factors=True)."
            )
        self._models, self._factors, self._rule, self._settings = models, factors, RULES[rule], settings
        self._device = torch.device("cpu" if torch.device(device).type == "mps" else device)
        self._biases: dict[str, str | None] = {}
        self._transposed: dict[str, bool] = {}
        shapes: dict[tuple, list[str]] = {}
        for name in models[0]:
            if all(name in own for own in factors):
                bias = self._checked(name)
                if bias is None or bias in models[0]:
                    self._biases[name] = bias
                    shapes.setdefault((*models[0][name].shape, bias is None), []).append(name)
        self._groups = [part for group in shapes.values() for part in self._parts(group)]
        self._kept: dict[int, _Batch] = {}
        self.names = {*self._biases, *(bias for bias in self._biases.values() if bias)}

    def is_for(self, rule: str, settings: RuleSettings) -> bool:
        """Whether it merges by this rule, with what these settings make of the factors."""
        own = self._settings
        alike = (own.damping, own.shrinkage) == (settings.damping, settings.shrinkage)
        return alike and self._rule is RULES[rule]

    @property
    def size_bytes(self) -> int:
        """The memory that is kept between merges."""
        return sum(batch.size_bytes for batch in list(self._kept.values()))

    @torch.no_grad()
    def merge(
        self,
        weights_of: Callable[[str], Float[Tensor, " M"]],
        scales: Sequence[float],
        *,
        on_layer: Callable[[int, str], None] | None = None,
    ) -> dict[str, Tensor]:
        """The merged parameters by name, in float64; `weights_of` a weight's name are its models' λ.

        `scales` are what each model's Fisher is divided by. `on_layer` is told how many layers are done, and the last; it
        may raise `Cancelled`.

        Raises: RecipeError for factors that need a larger damping.
        """
        merged: dict[str, Tensor] = {}
        for place, names in enumerate(self._groups):
            batch = self._batch(place, names)
            lambdas = torch.stack([weights_of(name).to(batch.sizes) for name in names], 1)
            shares = lambdas * batch.sizes / batch.sizes.new_tensor(list(scales))[:, None]
            for name, own in zip(names, self._solved(batch, shares, lambdas), strict=True):
                merged |= self._split(name, own)
            if on_layer:
                on_layer(len(merged), names[-1])
        return merged

    def _solved(self, batch: _Batch, shares: Tensor, lambdas: Tensor) -> Tensor:
        if batch.pair is not None:
            found = batch.pair.merged(shares)
        elif batch.outputs is None:
            found = regmean(batch.values, shares, batch.inputs)
        else:
            found = kfac(batch.values, shares, batch.inputs, batch.outputs)
        # Where no model with a weight has a Fisher, the λ-weighted mean.
        silent = shares.sum(0) == 0
        return (
            torch.where(silent[:, None, None], weighted_mean(batch.values, lambdas), found) if silent.any() else found
        )

    def _batch(self, place: int, names: list[str]) -> _Batch:
        if place in self._kept:
            return self._kept[place]
        batch = self._made(names)
        if self.size_bytes + batch.size_bytes <= KEPT_BYTES:
            self._kept[place] = batch
        return batch

    def _made(self, names: list[str]) -> _Batch:
        """Reads the factors of some layers, one model after the other, and does what no weight changes."""
        takes_outputs = self._rule.combine is kfac
        settings = {"damping": self._settings.damping}
        sizes, values, inputs, outputs = [], [], [], []
        for model, factors in zip(self._models, self._factors, strict=True):
            own = [factors[name] for name in names]
            a = self._stacked(layer.weighted if self._rule.weighted else layer.inputs for layer in own)
            g = self._stacked(layer.outputs for layer in own) if takes_outputs else None
            values.append(torch.stack([self._matrix(model, name) for name in names]))
            self._require_finite(names, values[-1], [a] if g is None else [a, g])
            sizes.append(_traces(a) * (_traces(g) if g is not None else 1.0))
            inputs.append(conditioned(a, shrinkage=self._settings.shrinkage, **settings))
            outputs.append(conditioned(g, **settings) if g is not None else None)
        stacked = [torch.stack(values), torch.stack(inputs), torch.stack(outputs) if takes_outputs else None]
        if takes_outputs and len(values) == 2:
            pair = Pair.of(*stacked)
            return _Batch(names, torch.stack(sizes), pair.values, None, None, pair)
        return _Batch(names, torch.stack(sizes), *stacked)

    def _stacked(self, tensors: Iterator[Tensor]) -> Tensor:
        return torch.stack([tensor.to(self._device, torch.float64) for tensor in tensors])

    def _matrix(self, parameters: Mapping[str, Tensor], name: str) -> Float[Tensor, " o d"]:
        """A layer's weight, with its bias as the last column."""
        weight = parameters[name].to(self._device, torch.float64)
        matrix = weight.T if self._transposed[name] else weight.flatten(1)
        bias = self._biases[name]
        return matrix if bias is None else torch.cat([matrix, parameters[bias].to(matrix)[:, None]], 1)

    def _split(self, name: str, matrix: Tensor) -> dict[str, Tensor]:
        bias, like = self._biases[name], self._models[0][name]
        weight = matrix if bias is None else matrix[:, :-1]
        found = {name: (weight.T if self._transposed[name] else weight).reshape(like.shape)}
        return found if bias is None else {**found, bias: matrix[:, -1]}

    def _checked(self, name: str) -> str | None:
        """The bias of a layer. Raises: FisherError if a model's factors are not of this layer's sizes."""
        biases = set()
        for position, factors in enumerate(self._factors, start=1):
            own = factors[name]
            self._transposed[name] = own.is_transposed
            shape = self._models[0][name].shape
            rows, columns = (shape[1], shape[0]) if own.is_transposed else (shape[0], shape[1:].numel())
            columns += own.bias is not None
            if own.inputs.shape != (columns, columns) or own.outputs.shape != (rows, rows):
                raise FisherError(
                    f'The factors of model {position} do not fit: expected {rows} outputs and {columns} inputs for "{name}", '
                    f"got {len(own.outputs)} and {len(own.inputs)}. Estimate them again for this checkpoint."
                )
            biases.add(own.bias)
        if len(biases) > 1:
            raise FisherError(
                f'The factors do not fit together: expected one bias for "{name}", got {quoted(map(str, biases))}. '
                "Estimate them again for checkpoints of one architecture."
            )
        return biases.pop()

    def _require_finite(self, names: list[str], values: Tensor, factors: list[Tensor]) -> None:
        for place, (name, own) in enumerate(zip(names, values, strict=True)):
            if not own.isfinite().all():
                raise StructureError(
                    f'The models cannot be merged: expected finite numbers, got NaN or infinity in "{name}". '
                    "Check that every checkpoint is complete and that its training did not diverge."
                )
            if not all(factor[place].isfinite().all() for factor in factors):
                raise FisherError(
                    f'The factors of "{name}" cannot be used: expected finite numbers, got others. Estimate them again.'
                )

    def _parts(self, names: list[str]) -> Iterator[list[str]]:
        """Layers of one shape, in parts that fit into memory."""
        own = self._factors[0][names[0]]
        numbers = own.inputs.numel() + own.outputs.numel() + 3 * self._models[0][names[0]].numel()
        count = max(1, BATCH_BYTES // (8 * numbers * len(self._models)))
        return (names[start : start + count] for start in range(0, len(names), count))


def _traces(factors: Float[Tensor, " L d d"]) -> Float[Tensor, " L"]:
    return factors.diagonal(dim1=-2, dim2=-1).sum(-1)
