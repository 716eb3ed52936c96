"""The parameters that a configuration asks for, built without memory, and how two configurations differ in size."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from merging.checkpoints import Checkpoint, body_prefix
from merging.claims import check_repeats
from merging.errors import CheckpointError, quoted
from merging.families import TOWER, body_class, body_config
from merging.headers import Header, reason

FLOATS = {"F64", "F32", "F16", "BF16"}  # what safetensors calls the types that can be merged
# Sizes as the families' configurations call them; the first words that someone recognises a model by.
SIZES = (
    *("hidden_size", "dim", "n_embd", "d_model", "embedding_size", "projection_dim"),
    *(
        "num_hidden_layers",
        "n_layers",
        "n_layer",
        "num_layers",
        "num_attention_heads",
        "n_heads",
        "n_head",
        "num_heads",
    ),
    *("intermediate_size", "hidden_dim", "d_ff", "vocab_size", "max_position_embeddings", "n_positions"),
    *("type_vocab_size", "image_size", "patch_size", "num_channels"),
)


def blueprint(header: Header, *, body_only: bool = True) -> dict[str, Tensor]:
    """The parameters that are merged, by name, as tensors of shape alone; with the head unless `body_only`.

    Raises: CheckpointError if the configuration is none of its class; StructureError if the class has no head.
    """
    model, architecture = outline(header), body_class(header)
    is_whole = not body_only or architecture == TOWER or model.base_model is model
    if is_whole and architecture.endswith("Classification"):
        body_prefix(model)
    prefix = "" if is_whole else body_prefix(model)
    return {name: tensor for name, tensor in model.named_parameters() if name.startswith(prefix)}


def outline(header: Header | Checkpoint) -> nn.Module:
    """The model that is merged, with its head if it has one, without its numbers.

    Raises: CheckpointError if the configuration is none of its class.
    """
    import transformers

    architecture = body_class(header)
    kind = getattr(transformers, architecture)
    check_repeats(
        header.config, len(header.shapes if isinstance(header, Checkpoint) else header.tensors), header.reference
    )
    try:
        config = kind.config_class.from_dict({**body_config(header)})
        with torch.device("meta"):
            return kind(config)
    # Transformers checks configurations in many ways, and its models trust the rest.
    except Exception as problem:
        raise CheckpointError(
            f'"{header.reference}" is damaged: expected a configuration of {architecture}, got "{reason(problem)}". '
            "Compare its config.json with its base's."
        ) from problem


def check_stored(header: Header, parameters: Mapping[str, Tensor]) -> None:
    """Raises: CheckpointError if parameters are not stored in the shapes that the configuration asks for, or quantised."""
    stored = header.tensors
    wrong = [name for name in parameters if name in stored and stored[name].shape != tuple(parameters[name].shape)]
    if wrong:
        name = sorted(wrong)[0]
        raise CheckpointError(
            f'"{header.reference}" is damaged: expected the shapes that its config.json asks for, got others for '
            f'{quoted(wrong)} ("{name}" is {list(stored[name].shape)} and should be {list(parameters[name].shape)}). '
            "Save the checkpoint again."
        )
    whole = {stored[name].dtype for name in parameters if name in stored} - FLOATS
    if whole:
        raise CheckpointError(
            f'"{header.reference}" cannot be merged: expected parameters in {", ".join(sorted(FLOATS))}, got '
            f"{quoted(whole)}, that is quantised ones. Use the checkpoint before its quantisation."
        )


def size_differences(first: Header, other: Header) -> str:
    """The sizes in which two configurations differ, as a clause; empty if there are none."""
    one, two = (header.config.get("vision_config") or header.config for header in (first, other))
    found = [
        f"{name} is {one[name]} in one and {two[name]} in the other"
        for name in SIZES
        if name in one and name in two and one[name] != two[name]
    ]
    return ", ".join(found[:3])
