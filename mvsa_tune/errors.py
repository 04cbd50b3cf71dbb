"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Something the user gave is wrong: what, where, and what to do, in one line.

    The commands print its message and exit with code 2; any other exception is a bug and keeps its traceback.
    """


def some(items: list[str], limit: int = 5) -> str:
    """Name the first few of many: `a, b, c and 12 more`."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit:,} more"
