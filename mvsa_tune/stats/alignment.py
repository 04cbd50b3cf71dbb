"""Correctness of replicates → seeds × samples, the same sample in the same place: what intervals and tests are made of.

K folds that share out the samples make one row for each seed, its K parts put together. Where seeds were scored on other samples than each other
(a holdout drawn for each), nothing can be lined up: there each replicate is its accuracy alone (`intervals.Redrawn`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import Replicate
from mvsa_tune.data.splits import Split
from mvsa_tune.training.result import NO_ROW, Correctness

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Alignment:
    """Where each answer goes.

    Attributes:
        places: by seed, the positions of its answers in the flattened `(R, N)`, in the order of the samples; None where seeds were scored on others.
        rows: `(M,)` row numbers of the samples, in that order; empty where places is None.
        ratio: validation to training samples of a fold, the mean, where nothing lines up: by it `Redrawn` widens its intervals.
    """

    places: NDArray[np.int64] | None
    rows: NDArray[np.int32]
    ratio: float

    def apply(self, values: NDArray[np.generic], rows: NDArray[np.int32]) -> Array:
        """`(R, N)` → `(S, M)` seeds × samples, or `(R, 1)` accuracies where nothing can be lined up."""
        if self.places is not None:
            return values.astype(np.float64).ravel()[self.places]
        own = rows != NO_ROW
        means: Array = np.where(own, values, 0).sum(axis=1, keepdims=True, dtype=np.float64) / own.sum(
            axis=1, keepdims=True
        )
        return means


def align(answers: Correctness, replicates: Sequence[Replicate], split: Callable[[], Split]) -> Alignment:
    """How a sweep's answers line up: the same for each of its trials. The split is asked for only where they do not."""
    flat = answers.rows.ravel()
    seed_of = np.repeat([one.seed for one in replicates], answers.rows.shape[1])
    by_seed = []
    for seed in dict.fromkeys(one.seed for one in replicates):
        mine = np.flatnonzero((seed_of == seed) & (flat != NO_ROW))
        by_seed.append(mine[np.argsort(flat[mine], kind="stable")])
    first = flat[by_seed[0]]
    if len(first) > 1 and all(np.array_equal(flat[places], first) for places in by_seed):
        return Alignment(np.stack(by_seed), first, 0.0)
    parts = split()
    return Alignment(
        None, first[:0], float(np.mean([len(parts.validation[fold]) / len(parts.train[fold]) for fold in parts.train]))
    )
