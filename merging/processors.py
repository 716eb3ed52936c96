"""The tokenizer or image processor in a checkpoint's folder."""

from pathlib import Path

from merging.errors import CheckpointError

# A folder that reads images has one of these; a full CLIP has a tokenizer beside it.
IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")


def has_processor(folder: Path, *, images: bool) -> bool:
    """Whether there are files of an image processor, or of a tokenizer."""
    return any((folder / name).is_file() for name in (IMAGE_FILES if images else TOKENIZER_FILES))


def open_processor(folder: Path, *, images: bool, reference: str) -> object:
    """A folder's image processor, or its tokenizer. Raises: CheckpointError if it has none that can be opened."""
    from transformers import AutoImageProcessor, AutoTokenizer

    try:
        return (AutoImageProcessor if images else AutoTokenizer).from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as problem:  # libraries raise many kinds of errors on damaged files
        wanted = "an image processor" if images else "a tokenizer"
        reason = getattr(problem, "strerror", None) or str(problem).strip() or type(problem).__name__
        raise CheckpointError(
            f'"{reference}" cannot read data: expected {wanted} in its folder, got {reason.splitlines()[0][:160]}. '
            "Copy the files of the base's tokenizer or image processor into it."
        ) from problem
