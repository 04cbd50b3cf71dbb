"""`predictions/TRIAL.npz`: every curve and prediction of a trial, from which all of its numbers follow."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from mvsa_tune.config import Replicate
from mvsa_tune.errors import InputError
from mvsa_tune.files import write_whole
from mvsa_tune.training.result import Correctness, TrialResult

# How the names of a trial's `Correctness` begin among its arrays: for statistics, which need nothing else.
CORRECT = "correct_"
# The fields of a result that are kept: times are for the log of a running trial, the library stands in its rows.
STORED = [item.name for item in fields(TrialResult) if item.name not in ("trained_at", "matmul")]


def write_predictions(path: Path, replicates: Sequence[Replicate], result: TrialResult) -> None:
    """Write a trial's result, whole or not at all; `replicates` name its R replicates in order."""
    arrays: dict[str, Any] = {
        "seed": np.array([replicate.seed for replicate in replicates]),
        "fold": np.array([replicate.fold for replicate in replicates]),
        **{name: np.asarray(getattr(result, name)) for name in STORED},
        **{f"{CORRECT}{name}": array for name, array in vars(result.correctness).items()},
    }
    write_whole(path, lambda file: np.savez_compressed(file, **arrays))


def read_replicates(path: Path) -> tuple[Replicate, ...]:
    """Return the replicates that the file holds, in order; raise InputError as `read_result`."""
    arrays = _read(path, ["seed", "fold"])
    return tuple(Replicate(int(seed), int(fold)) for seed, fold in zip(arrays["seed"], arrays["fold"], strict=True))


def read_result(path: Path) -> TrialResult:
    """Return the result that the file holds.

    Raises:
        InputError: the file is missing or damaged.
    """
    arrays = _read(path, STORED)
    scalars = {"seconds": float(arrays["seconds"]), "device": str(arrays["device"]), "select": str(arrays["select"])}
    return TrialResult(**{**arrays, **scalars})


def read_correctness(path: Path) -> Correctness:
    """Return which validation samples the replicates classify correctly; raise InputError as `read_result`."""
    names = [item.name for item in fields(Correctness)]
    arrays = _read(path, [f"{CORRECT}{name}" for name in names])
    return Correctness(**{name: arrays[f"{CORRECT}{name}"] for name in names})


def _read(path: Path, names: Sequence[str]) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except Exception as error:  # a damaged file makes zipfile, zlib and NumPy raise errors of their own
        raise InputError(
            f"{path} cannot be read ({error}): run the same sweep again, which trains that trial anew"
        ) from None
