"""CPUs, GPUs, versions and memory of this machine; Ctrl-C and SIGTERM."""

import ctypes
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata

from mvsa_tune import NUMERICS_VERSION, __version__

_interrupted = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt for the time of a `with`, and remember it; main thread only."""
    _interrupted.clear()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handle_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def handle_signals() -> None:
    """Set the handlers of `interruptible`; again after a library has replaced them by its own.

    A signal that is ignored stays so: a shell's background job does not react to Ctrl-C.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(*arguments: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def check_interrupted() -> None:
    """Raise KeyboardInterrupt if a signal has come since `interruptible` began, even if its exception was swallowed."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_count() -> int:
    """Return the number of GPUs that torch can use; on a Linux without a driver 0, without the import of torch."""
    drivers = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # of CUDA, of ROCm, of the Windows Subsystem for Linux
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
    """Let glibc keep the memory that this process frees, for its next allocations; without glibc do nothing.

    By default glibc returns every large block to the kernel, which zeroes each page again: for the activations of an
    encoder or a stack that takes longer than computing them (bench/LOG.md).
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX of malloc.h
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
