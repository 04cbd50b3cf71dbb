"""The exception for what a user can correct, and how lists are shortened and things counted in messages."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """An error in what the user gave. Its message says in one line what is wrong, where, and what to do.

    The commands print the message and exit with code 2; any other exception is a bug and keeps its traceback.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean WORD?` with the known word that is most like this one, or an empty text."""
    likely = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {likely[0]}?" if likely else ""


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one: `1 sample`, `1,025 samples`."""
    return f"{count:,} {noun if count == 1 else f'{noun}s'}"


def some(items: list[str], limit: int = 5) -> str:
    """Return the first few items as a text: `a, b, c and 12 more`."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit:,} more"
