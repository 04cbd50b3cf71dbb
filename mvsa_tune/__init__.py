"""Hyperparameter sweeps for multimodal (picture + text) sentiment, with numbers one can trust."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvsa_tune.api import finetune, grid, load_head, load_results, search

__all__ = ["NUMERICS_VERSION", "__version__", "finetune", "grid", "load_head", "load_results", "search"]
__version__ = "0.1.0"
# Raised by hand whenever the same configuration, seed, fold and vectors would give other numbers: a golden-number test
# then fails (tests/training/test_golden.py). A results folder holds the rows of one such version.
NUMERICS_VERSION = 3

# Ray and torch read these when they are imported, so they stand where everything of ours begins.
for _name, _value in {
    # The name is historical: at 0, on any system, the servers of a local Ray bind to 127.0.0.1 alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Under `uv run` Ray would copy the working folder, data and results too, and start each worker by uv.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The terminal is ours, and so are the logs: Tune's printing and its per-trial loggers stay off.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Ctrl-C is ours too: Tune's own handler waits for the running trials, whose work is lost all the same.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Torch's, on Linux: large tensors in huge pages, which saves a CPU looking up small ones (bench/LOG.md).
    "THP_MEM_ALLOC_ENABLE": "1",
}.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> Any:
    """Return a function of `mvsa_tune.api`, which is imported when one is first used: it takes seconds."""
    if name in __all__:
        from mvsa_tune import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
