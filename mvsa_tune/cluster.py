"""The machine and the Ray that runs on it."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    try:
        yield
    finally:
        ray.shutdown()
