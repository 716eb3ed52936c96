"""What transformers calls the tensors that a checkpoint stores under names of an earlier version."""

from torch import nn

from merging.checkpoints import Checkpoint
from merging.errors import StructureError, quoted


def model_names(checkpoint: Checkpoint, model: nn.Module) -> dict[str, str]:
    """The name in `model`, the checkpoint's own class, by the name in its files; without what the model does not have.

    Raises: StructureError if parameters are missing, or are cut or joined when they are read.
    """
    known = {name: tuple(own.shape) for name, own in model.named_parameters(remove_duplicate=False)}
    known |= {name: tuple(own.shape) for name, own in model.named_buffers()}
    stored = checkpoint.shapes
    names = {name: name if name in known else _renamed(name, model) for name in stored}
    names = {name: new for name, new in names.items() if known.get(new) == tuple(stored[name])}
    missing = {name for name, _ in model.named_parameters()} - set(names.values())
    if missing or len(set(names.values())) < len(names):
        raise StructureError(
            f'"{checkpoint.reference}" cannot be streamed: expected the parameters of {checkpoint.architecture} as '
            f"transformers keeps them, got others for {quoted(missing)}. Merge it by `run`."
        )
    return names


def _renamed(name: str, model: nn.Module) -> str:
    """As `from_pretrained` renames it; these are no public functions of transformers, and may be elsewhere one day."""
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, apply_renamings
    except ImportError:
        return name
    renamings = [one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)]
    return apply_renamings(name, renamings)
