"""In whose name the Hugging Face Hub is read: of this machine's user, or on a page for many, of each visitor who signs in.

What one visitor may read lies in the same caches as what others may: on such a page the Hub is asked each time in the
visitor's own name, and where it cannot be asked nothing is opened that was downloaded before.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Reader:
    """A visitor's account, and the token that was given for one request and the work that it asks for."""

    account: str
    token: str = field(repr=False)


_signed_in: Callable[[], Reader | None] | None = None
_GIVEN: ContextVar[Reader | None] = ContextVar("reader", default=None)


def read_for(signed_in: Callable[[], Reader | None] | None) -> None:
    """From now on the Hub is read for whoever `signed_in()` says; with None, for this machine's user."""
    global _signed_in
    _signed_in = signed_in


@contextmanager
def in_name_of(reader: Reader | None) -> Iterator[None]:
    """Inside, the Hub is read for this reader: in a process that knows of no visitors."""
    given = _GIVEN.set(reader)
    try:
        yield
    finally:
        _GIVEN.reset(given)


def reader() -> Reader | None:
    """Who has signed in, among those whom the page asks; None for this machine's user, and for strangers."""
    return _GIVEN.get() or (_signed_in() if _signed_in else None)


def account() -> str:
    """The account of the reader, by which what only they may read is kept apart; empty for everybody else."""
    own = reader()
    return own.account if own else ""


def is_shared() -> bool:
    """Whether visitors sign in here, so that what was downloaded is not for everybody."""
    return _signed_in is not None or _GIVEN.get() is not None


def token_for(token: bool | None) -> bool | str | None:
    """What the Hub's client is given: the reader's token in place of None, which is this machine's user's own."""
    own = reader()
    return own.token if token is None and own else token
