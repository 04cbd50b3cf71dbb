"""CPUs, GPUs and memory of a machine; Ctrl-C and SIGTERM."""

import ctypes
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from mvsa_tune import NUMERICS_VERSION, __version__

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


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_count() -> int:
    """GPUs that torch can use. Torch, which takes a second to import, is not asked on a Linux without a driver for any."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # CUDA's, ROCm's, and that of Windows' Linux
    if sys.platform == "linux" and not any(map(os.path.exists, drivers)):
        return 0
    import torch

    return torch.cuda.device_count()


def versions() -> dict[str, str]:
    """Return the versions of what numbers depend on, by name."""
    python = ".".join(platform.python_version_tuple()[:2])
    libraries = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"mvsa_tune": f"{__version__} with numerics {NUMERICS_VERSION}", "Python": python, **libraries}


def keep_freed_memory() -> None:
    """Let glibc keep what this process frees, for what it asks for next; elsewhere nothing.

    By default it takes every large block from the kernel and gives it back, which zeroes each page again: for the activations of
    an encoder or a stack that costs more than computing them (bench/LOG.md).
    """
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
