"""One recipe's merges with any weights, by any rule: what does not depend on the weights is done once."""

import threading
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from merging.fisher import Fisher
from merging.flat import FlatModels, flat_models
from merging.layer_merge import LayerMerge
from merging.merge import merge_parameters
from merging.recipe import Recipe
from merging.rules import RULES

# Rules on layers, or settings of them, between which a page changes.
KEPT_LAYERS = 3
# Of what they have made of the factors, before a further one is made.
KEPT_BYTES = 2**30
Parameters = Mapping[str, Tensor]


class Merger:
    """Merges the same models and Fishers again and again; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flats: dict[str, FlatModels | None] = {}
        self._layers: dict[tuple, LayerMerge] = {}

    def merge(
        self,
        recipe: Recipe,
        rule: str,
        models: Sequence[Parameters],
        fishers: Sequence[Fisher],
        *,
        base: Parameters | None,
        device: str,
        on_progress: Callable[[float, str], None] | None = None,
    ) -> dict[str, Tensor]:
        """The merged parameters with the recipe's weights and settings, by `rule`. Raises: MergingError."""
        own, settings = recipe.fisher, recipe.settings
        asked = {"floor": float(own.floor), "normalise": own.normalise, "zero_rule": own.zero_rule}
        asked |= {"base": base, "on_progress": on_progress}
        # What goes number by number goes by all tensors at once.
        if RULES[rule].is_plain and settings.scale == 1 and not recipe.layer_weights:
            flat = self._flat(models, fishers, device)
            if flat is not None:
                return flat.merge(rule, recipe.weights, **asked)
        layers = self._layer_merge(rule, recipe, models, fishers, device) if RULES[rule].needs_factors else None
        asked |= {"settings": settings, "layer_weights": recipe.layer_weights, "layers": layers, "device": device}
        return merge_parameters(models, rule, recipe.weights, fishers=fishers or None, **asked)

    def size_bytes(self) -> int:
        """The memory that is kept between merges."""
        flats = sum(one.size_bytes() for one in list(self._flats.values()) if one is not None)
        return flats + sum(one.size_bytes for one in list(self._layers.values()))

    def forget_flat(self) -> None:
        """Gives back the memory of small models laid end to end; the next merge lays them again."""
        self._flats.clear()

    def _flat(self, models: Sequence[Parameters], fishers: Sequence[Fisher], device: str) -> FlatModels | None:
        if device not in self._flats:  # two at once lay out the same
            found = self._flats[device] = flat_models(models, fishers or None, device)
            return found
        return self._flats.get(device)  # None where they were just given back: then it goes tensor by tensor

    def _layer_merge(
        self, rule: str, recipe: Recipe, models: Sequence[Parameters], fishers: Sequence[Fisher], device: str
    ) -> LayerMerge:
        key = rule, recipe.settings.damping, recipe.settings.shrinkage, device
        with self._lock:
            if key not in self._layers:
                while (
                    len(self._layers) >= KEPT_LAYERS
                    or sum(one.size_bytes for one in self._layers.values()) > KEPT_BYTES
                ):
                    self._layers.pop(next(iter(self._layers)))
                factors = [getattr(fisher, "factors", None) for fisher in fishers]
                self._layers[key] = LayerMerge(models, factors, rule, recipe.settings, device=device)
            return self._layers[key]
