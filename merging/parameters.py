"""Named tensors: do they fit together, and where in the network does each one stand?"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from merging.errors import StructureError, quoted

KINDS = ("q", "k", "v", "qkv", "o", "up", "down", "norm", "embedding", "other")

_LAYER = re.compile(r"(?:^|[._])(?:layers?|h|blocks?)\.(\d+)\.")

# Looked through in this order: the first pattern that is found in the name decides.
_KIND_PATTERNS = (
    ("norm", re.compile(r"norm|\bln_|\.ln\d?\b", re.IGNORECASE)),
    ("embedding", re.compile(r"embed|\bwte\b|\bwpe\b|cls_token|class_embedding|relative_attention_bias")),
    ("qkv", re.compile(r"c_attn|qkv|in_proj")),
    ("q", re.compile(r"query|q_proj|q_lin|\.q\b")),
    ("k", re.compile(r"key|k_proj|k_lin|\.k\b")),
    ("v", re.compile(r"value|v_proj|v_lin|\.v\b")),
    ("o", re.compile(r"attention\.output|attn\.c_proj|out_proj|o_proj|out_lin|attention\.dense|\.o\b")),
    ("up", re.compile(r"intermediate|fc1|c_fc|lin1|up_proj|gate_proj|wi\b|wi_\d|\bffn\.(?!lin2)")),
    ("down", re.compile(r"output\.dense|fc2|mlp\.c_proj|lin2|down_proj|wo\b|ffn_output")),
)


class Place(NamedTuple):
    """Where a parameter stands: `layer` is its row in a heatmap, `kind` its column."""

    layer: str
    kind: str


def place_of(name: str) -> Place:
    """The layer and the kind of one parameter, read from its Hugging Face name.

    Example: `vit.encoder.layer.3.attention.attention.query.weight` -> `Place("layer 3", "q")`.
    """
    kind = next((kind for kind, pattern in _KIND_PATTERNS if pattern.search(name)), "other")
    layer = _LAYER.search(name)
    if layer:
        return Place(f"layer {int(layer[1])}", kind)
    return Place("embedding", kind) if kind == "embedding" or "embeddings." in name else Place("final", kind)


def layers_of(names: Sequence[str]) -> list[str]:
    """The layers of a model from its input to its output: `embedding`, `layer 0`, …, `final`."""
    layers = {place_of(name).layer for name in names}

    def depth(layer: str) -> int:
        return {"embedding": -1, "final": 10**9}.get(layer, int(layer.split()[-1]) if layer[-1].isdigit() else 0)

    return sorted(layers, key=depth)


def check_same_structure(models: Sequence[Mapping[str, Tensor]], names: Sequence[str] | None = None) -> list[str]:
    """The parameter names that all models share, in the first model's order.

    Raises: StructureError, naming the tensors that are missing or whose shapes differ.
    """
    first = models[0]
    for position, other in enumerate(models[1:], start=2):
        who = f'"{names[position - 1]}"' if names else f"model {position}"
        reference = f'"{names[0]}"' if names else "model 1"
        missing, extra = set(first) - set(other), set(other) - set(first)
        if missing or extra:
            raise StructureError(
                f"The models cannot be merged: expected {who} to have the same parameters as {reference}, got "
                f"{quoted(missing)} missing and {quoted(extra)} in addition. "
                "Pick checkpoints of one architecture that were fine-tuned from one base."
            )
        wrong = [name for name in first if tuple(first[name].shape) != tuple(other[name].shape)]
        if wrong:
            shapes = f"{list(first[wrong[0]].shape)} in {reference} and {list(other[wrong[0]].shape)} in {who}"
            raise StructureError(
                f"The models cannot be merged: expected equal shapes, got different ones for {quoted(wrong)} "
                f'("{wrong[0]}" is {shapes}). Pick checkpoints of one architecture and size.'
            )
    return list(first)
