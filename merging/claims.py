"""What a configuration asks for, against what is stored beside it: a stranger's few lines must not fill the memory."""

from collections.abc import Iterator, Mapping

from merging.errors import CheckpointError

# How the families' configurations call the numbers of what is repeated.
REPEATED = ("layer", "depth", "block", "stage")
# A class may have parameters that a file lacks: a new head, a pooler.
MORE_TIMES, MORE = 2, 10_000_000


def check_repeats(config: object, stored: int, reference: str) -> None:
    """Raises: CheckpointError if a configuration asks for more layers than tensors are stored, each of them built one by one."""
    asked = max(_repeats(config), default=0)
    if asked > stored:
        raise CheckpointError(
            f'"{reference}" is damaged: expected a configuration of the {stored} tensors that are stored, got one with '
            f"{asked:.3g} layers. Download it again, or compare its config.json with its base's."
        )


def check_size(asked: int, stored: int, reference: str) -> None:
    """Raises: CheckpointError if a configuration asks for many more numbers than are stored."""
    if asked > MORE_TIMES * stored + MORE:
        raise CheckpointError(
            f'"{reference}" is damaged: expected a configuration of about the {stored:,} numbers that are stored, got one '
            f"of {asked:,}. Download it again, or compare its config.json with its base's."
        )


def _repeats(config: object, depth: int = 0) -> Iterator[float]:
    if not isinstance(config, Mapping) or depth > 5:
        return
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _repeats(value, depth + 1)
        elif any(word in str(name) for word in REPEATED):
            numbers = value if isinstance(value, list) else [value]
            yield sum(one for one in numbers if isinstance(one, int | float) and one == one)
