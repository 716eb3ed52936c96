"""Sums for the Kronecker factors of layers, from the same parts as the squares: A, G and ‖g‖²-weighted A."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from merging.gradients.parts import Part, Patches, Product, active_tokens

# Beyond it a factor would take more than 268 MB: such a layer has its diagonal alone (a language model's output).
MOST_WIDTH = 8192
NAMES = ("inputs", "outputs", "weighted")
# Patches of so many examples are unfolded at a time.
EXAMPLES = 64


class Layer(NamedTuple):
    """A layer W (o, d): the name of its bias, the last of its inputs; and how the weight is stored."""

    outputs: int
    inputs: int
    bias: str | None
    is_transposed: bool


def layers_of_model(model: nn.Module) -> dict[str, Layer]:
    """Linear layers, GPT-2's Conv1D and convolutions without groups, by the names of their weights.

    A weight that another kind of module uses, too (a tied embedding), is none; nor is one of modules with different
    biases, or with a bias that another weight has, too: then no matrix is merged as one.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    kinds: dict[str, set[type]] = {}
    found: dict[str, Layer] = {}
    biases: dict[str, set[str | None]] = {}
    weights: dict[str | None, set[str]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            kinds.setdefault(names[parameter], set()).add(type(module))
        shape = _shape(module)
        if shape is not None and max(shape[:2]) < MOST_WIDTH:
            bias = None if module.bias is None else names[module.bias]
            name = names[module.weight]
            found[name] = Layer(shape[0], shape[1] + (bias is not None), bias, shape[2])
            biases.setdefault(name, set()).add(bias)
            weights.setdefault(bias, set()).add(name)
    return {
        name: layer
        for name, layer in found.items()
        if len(kinds[name]) == len(biases[name]) == 1 and (layer.bias is None or len(weights[layer.bias]) == 1)
    }


def _shape(module: nn.Module) -> tuple[int, int, bool] | None:
    """Outputs, inputs, and whether the weight is stored as (inputs, outputs)."""
    library = sys.modules.get("transformers.pytorch_utils")
    if library is not None and type(module) is library.Conv1D:
        return module.weight.shape[1], module.weight.shape[0], True
    if isinstance(module, nn.Linear) and type(module).forward is nn.Linear.forward:
        return module.out_features, module.in_features, False
    if isinstance(module, nn.Conv2d) and type(module).forward is nn.Conv2d.forward and module.groups == 1:
        return module.out_channels, module.weight[0].numel(), False
    return None


@dataclass
class FactorSums:
    """Σ_tokens a aᵀ, Σ g gᵀ and Σ ‖g‖² a aᵀ for every layer, and how many tokens counted; `seconds` of it."""

    layers: dict[str, Layer]
    sums: dict[str, dict[str, Tensor]]
    tokens: dict[str, int]
    seconds: float = 0.0

    @staticmethod
    def of(model: nn.Module, like: Mapping[str, Tensor]) -> "FactorSums":
        """Zeros for the layers of a model, in the dtypes and on the devices of `like`."""
        layers = layers_of_model(model)
        sums = {
            name: {
                "inputs": like[name].new_zeros(layer.inputs, layer.inputs),
                "outputs": like[name].new_zeros(layer.outputs, layer.outputs),
                "weighted": like[name].new_zeros(layer.inputs, layer.inputs),
            }
            for name, layer in layers.items()
        }
        return FactorSums(layers, sums, dict.fromkeys(layers, 0))

    def prepared(self, name: str, parts: Sequence[Part], *, is_first: bool) -> list[tuple[str, Tensor]] | None:
        """What these parts add, by the sums' names: made before anything is added.

        `is_first` says that the tokens have not counted yet: every cotangent comes by the same tokens. Parts of another
        kind than a layer's make it none: None.
        """
        started = time.perf_counter()
        layer = self.layers[name]
        added: dict[str, Tensor] = {}
        for part in parts:
            if not isinstance(part, Product | Patches):
                self.drop([name])
                return None
            for a, g in _tokens(part, self.sums[name]["inputs"].dtype):
                if layer.bias is not None:
                    a = torch.cat([a, a.new_ones(len(a), 1)], 1)
                loud = a * g.square().sum(1, keepdim=True)
                new = {"outputs": g.T @ g, "weighted": loud.T @ a}
                if is_first:
                    new |= {"inputs": a.T @ a, "tokens": a.new_tensor(len(a))}
                for each, value in new.items():
                    added[each] = added[each].add_(value) if each in added else value
        self.seconds += time.perf_counter() - started
        return list(added.items())

    def add(self, name: str, prepared: list[tuple[str, Tensor]]) -> None:
        """Adds what was prepared."""
        for each, value in prepared:
            if each == "tokens":
                self.tokens[name] += int(value)
            else:
                self.sums[name][each].add_(value)

    def drop(self, names: Iterable[str]) -> None:
        """Layers without factors from here on, where they were some."""
        for name in names:
            for own in (self.layers, self.sums, self.tokens):
                own.pop(name, None)

    def merge(self, other: "FactorSums") -> None:
        """Adds another worker's sums over other examples."""
        self.drop(set(self.layers) - set(other.layers))
        for name in self.layers:
            self.add(name, [*other.sums[name].items()])
            self.tokens[name] += other.tokens[name]
        self.seconds += other.seconds

    def flat(self) -> dict[str, Tensor]:
        """All sums under names of their own, for a file."""
        return {f"{name}:{each}": self.sums[name][each] for name in self.layers for each in NAMES}

    def restore(self, flat: Mapping[str, Tensor], tokens: Mapping[str, int], seconds: float) -> None:
        """Goes on from what `flat`, `tokens` and `seconds` were."""
        self.drop(set(self.layers) - set(tokens))
        for name in self.layers:
            for each in NAMES:
                self.sums[name][each].copy_(flat[f"{name}:{each}"])
        self.tokens, self.seconds = {name: int(count) for name, count in tokens.items()}, float(seconds)

    def means(self, examples: int) -> dict[str, dict[str, Tensor]]:
        """A over tokens, G and the weighted A over examples, for every layer."""
        counts = {name: {"inputs": max(1, self.tokens[name])} for name in self.layers}
        return {
            name: {each: total / counts[name].get(each, examples) for each, total in own.items()}
            for name, own in self.sums.items()
        }


def _tokens(part: Product | Patches, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """(inputs, gradients) of the tokens with a gradient, in parts: (n, d) and (n, o)."""
    if isinstance(part, Patches):
        for start in range(0, len(part.gradient), EXAMPLES):
            g, a = part.factors(start, min(start + EXAMPLES, len(part.gradient)), dtype)
            yield _active(a[:, 0].mT, g[:, 0].mT)
        return
    a = part.right if part.gradient is part.left else part.left
    g = part.gradient.to(dtype)
    yield _active(a.to(dtype), g if part.scale is None else g * part.scale[:, None, None])


def _active(a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    active = active_tokens(g)
    a, g = a.flatten(0, 1), g.flatten(0, 1)
    return (a, g) if active is None else (a[active.flatten()], g[active.flatten()])
