"""Ctrl-C and SIGTERM, remembered: the KeyboardInterrupt they raise is swallowed where it lands in a destructor or a callback."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_asked = threading.Event()


@contextmanager
def heard() -> Iterator[None]:
    """Listen for the time of a `with`; in the main thread, which alone may."""
    _asked.clear()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen() -> None:
    """Take the signals; again after a library has put handlers of its own in the place of ours.

    One that is ignored stays so: a shell's background job is not for Ctrl-C.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(*arguments: object) -> None:
    _asked.set()
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt if one was asked for at any time since `heard` began."""
    if _asked.is_set():
        raise KeyboardInterrupt
