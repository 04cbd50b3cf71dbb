"""The machine and the Ray that runs on it."""

import ctypes
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

# Ray's own servers, by the names of their processes: a sweep cannot go on without them.
SERVERS = ("gcs_server", "raylet")


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


@contextmanager
def local_ray(cpus: int) -> Iterator[None]:
    """Run a Ray of our own on this machine, with `cpus` CPUs and all its GPUs, for the time of a `with`.

    What goes wrong in a worker is recorded by who uses it; Ray's own messages would garble the progress display.
    """
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    ray.init(
        address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
    )
    over = threading.Event()
    servers = [child for child in psutil.Process().children() if child.name() in SERVERS]
    threading.Thread(target=_watch, args=(servers, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()
        ray.shutdown()


def _watch(servers: list[psutil.Process], over: threading.Event) -> None:
    """End this process when one of Ray's does: Ray itself would wait a minute for it and then end us without a word."""
    while not over.wait(0.5):
        dead = [one for one in servers if not one.is_running() or one.status() == psutil.STATUS_ZOMBIE]
        if dead and not over.is_set():
            print(
                "Ray has died (was it killed? had the machine no memory left?). What is recorded is whole: the same command goes on.",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)
