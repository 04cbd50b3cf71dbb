"""The exception for what a user can correct, and how lists are shortened in messages."""


class InputError(ValueError):
    """An error in what the user gave. Its message says in one line what is wrong, where, and what to do.

    The commands print the message and exit with code 2; any other exception is a bug and keeps its traceback.
    """


def some(items: list[str], limit: int = 5) -> str:
    """Return the first few items as a text: `a, b, c and 12 more`."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit:,} more"
