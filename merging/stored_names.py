"""Under which names files store the tensors that a recipe merges: the one home of what corresponds to what."""

from collections import Counter
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from merging.blueprints import outline
from merging.checkpoints import Checkpoint, body_prefix
from merging.errors import StructureError, quoted
from merging.families import answers_in_words, parameter_prefix


class Layout:
    """What a recipe merges, by the names of the parameters in its opened models, which are those of their Fishers.

    That is the first checkpoint's class, or with kept heads its body; files may have other names (those of an earlier
    version, a prefix of their own), and more tensors. `architecture` is the class of what is merged, `model_type` what
    configurations call it, and `buffers` are those of its tensors that are no parameters.
    """

    def __init__(self, first: Checkpoint, *, keeps_heads: bool):
        whole = outline(first)
        is_body = keeps_heads and not answers_in_words(first)
        self.architecture = type(whole.base_model if is_body else whole).__name__
        self.model_type = whole.config.model_type
        self._first = first.reference
        start, prefix = body_prefix(whole) if is_body else "", parameter_prefix(first)
        self._tensors = {name: own for name, own in whole.state_dict(keep_vars=True).items() if name.startswith(start)}
        # Of parameters that are one, the first name counts.
        first_names = {id(own): name for name, own in reversed(list(self._tensors.items()))}
        self._merged = {name: prefix + first_names[id(own)] for name, own in self._tensors.items()}
        self.buffers = {self._merged[name] for name, _ in whole.named_buffers() if name in self._merged}
        self._rename = _renaming(whole)

    def names(self, checkpoint: Checkpoint) -> dict[str, str]:
        """The merged tensors' names by those in the checkpoint's files; without what is not merged.

        Raises: StructureError if parameters are missing, there twice, of another shape, or cut or joined when opened.
        """
        new = {stored: self._rename(stored, self._tensors) for stored in checkpoint.shapes}
        fits = {stored: name for stored, name in new.items() if self._shape(name) == tuple(checkpoint.shapes[stored])}
        found = {stored: self._merged[name] for stored, name in fits.items()}
        unfit = set(self._merged.values()) - self.buffers - set(found.values())
        unfit |= {name for name, count in Counter(fits.values()).items() if count > 1}
        if unfit:
            raise StructureError(
                f'"{checkpoint.reference}" cannot be streamed: expected the parameters of {self.architecture} once each, '
                f'in the shapes of "{self._first}" and as transformers keeps them, got others for {quoted(unfit)}. '
                "Name checkpoints that come from one base, or see whether `run` opens them."
            )
        return found

    def _shape(self, name: str) -> tuple[int, ...] | None:
        return tuple(self._tensors[name].shape) if name in self._tensors else None


def _renaming(model: nn.Module) -> Callable[[str, Mapping[str, Tensor]], str]:
    """What `from_pretrained` calls a stored tensor, given those that the model has.

    These are no public functions of transformers, and may be elsewhere one day.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, rename_source_key
    except ImportError:
        return lambda name, there: name
    renamings = [one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)]

    def renamed(name: str, there: Mapping[str, Tensor]) -> str:
        tried = (rename_source_key(name, own, [], model.base_model_prefix, there)[0] for own in (renamings, []))
        return next((new for new in tried if new in there), name)

    return renamed
