"""What a trial has found: its curves and its predictions, and the scores that they give."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.training import metrics
from mvsa_tune.training.epochs import PARTS, cross_fitted

Kind = TypeVar("Kind", bound=np.generic)

# What stands behind the samples of a replicate that has fewer than another: no row, and no class.
NO_ROW, NO_CLASS = -1, 255


def none() -> Any:
    """The array of a part that a split does not have."""
    return np.zeros((0, 0), dtype=np.uint8)


@dataclass(frozen=True)
class TrialResult:
    """What a trial has found by its E-th epoch. R replicates, N validation samples at most, C classes.

    A replicate with fewer samples has `NO_ROW` and `NO_CLASS` behind them.

    Attributes:
        train_loss: `(E, R)` mean cross-entropy over the epoch's minibatches, dropout on.
        val_loss: `(E, R)` mean cross-entropy on the validation samples.
        confusion: `(E, R, C, C)` validation counts, true class down, predicted across.
        rows: `(R, N)` row numbers of the validation samples.
        labels: `(R, N)` their classes.
        predicted: `(E, R, N)` classes predicted of them after each epoch.
        seconds: time of the whole stack, in seconds.
        device: where it was trained.
        select: which epoch is a replicate's best: that of the best validation `accuracy`, or of the least validation `loss`.
        test_rows: `(R, M)` row numbers of the test samples; empty for a split without any. Nothing is chosen by them.
        test_labels: `(R, M)` their classes.
        test_predicted: `(E, R, M)` classes predicted of them after each epoch.
        test_confusion: `(E, R, C, C)` test counts.
    """

    train_loss: NDArray[np.float32]
    val_loss: NDArray[np.float32]
    confusion: NDArray[np.int32]
    rows: NDArray[np.int32]
    labels: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    seconds: float
    device: str
    select: str = "accuracy"
    test_rows: NDArray[np.int32] = field(default_factory=none)
    test_labels: NDArray[np.uint8] = field(default_factory=none)
    test_predicted: NDArray[np.uint8] = field(default_factory=none)
    test_confusion: NDArray[np.int32] = field(default_factory=none)

    @property
    def epochs(self) -> int:
        """E."""
        return len(self.confusion)

    @property
    def tested(self) -> bool:
        """Whether there are test samples."""
        return self.test_rows.size > 0

    def distinct(self, rows: str) -> int:
        """How many different samples there are in `rows`, or in `test_rows`, over all replicates."""
        numbers = np.unique(getattr(self, rows))
        return int((numbers != NO_ROW).sum())

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """`(E, R)` validation accuracy."""
        return metrics.accuracy(self.confusion)

    @property
    def _merit(self) -> NDArray[np.float64]:
        """`(E, R)` what the best epoch has most of."""
        if self.select == "accuracy":
            return self.accuracy
        return -np.where(np.isfinite(self.val_loss), self.val_loss, np.inf).astype(np.float64)

    @property
    def best_epoch(self) -> NDArray[np.int64]:
        """`(R,)` each replicate's best epoch, from 1; of equals the first."""
        return self._merit.argmax(axis=0) + 1

    @property
    def scores(self) -> NDArray[np.float64]:
        """`(E,)` what a sweep maximises: the validation accuracy at the best epoch so far, averaged over replicates.

        It is what the trial would be ranked by if it ended there, whatever chooses the epoch: so configurations are compared in
        the same unit, where a loss would also tell how sure of themselves their heads are.
        """
        best_so_far = [self._merit[: epoch + 1].argmax(axis=0) for epoch in range(self.epochs)]
        scores: NDArray[np.float64] = np.take_along_axis(self.accuracy, np.stack(best_so_far), axis=0).mean(axis=1)
        return scores

    def at_best(self, curve: NDArray[Kind]) -> NDArray[Kind]:
        """A curve `(E, R, …)` at each replicate's best epoch: `(R, …)`."""
        return curve[self.best_epoch - 1, np.arange(curve.shape[1])]

    @property
    def best(self) -> NDArray[np.uint8]:
        """`(R, N)` classes predicted of the validation samples at each replicate's best epoch."""
        return self.at_best(self.predicted)

    @property
    def last(self) -> NDArray[np.uint8]:
        """`(R, N)` classes predicted of them after epoch E."""
        last: NDArray[np.uint8] = self.predicted[-1]
        return last

    @cached_property
    def correctness(self) -> "Correctness":
        """Which validation samples are answered rightly."""
        present = self.rows != NO_ROW
        right = (self.predicted == self.labels) & present
        shares = np.zeros(self.rows.shape, dtype=np.float32)
        for r, own in enumerate(present):
            mine = right[:, r : r + 1, own]
            # By a single sample no epoch can be chosen without it.
            shares[r, own] = cross_fitted(mine)[0] if mine.shape[2] >= PARTS else mine[-1, 0]
        return Correctness(self.rows, shares, self.at_best(right), right[-1])

    @property
    def diverged(self) -> NDArray[np.int64]:
        """`(R,)` the first epoch, from 1, at which a loss was not finite; 0 where all were."""
        bad = ~(np.isfinite(self.train_loss) & np.isfinite(self.val_loss))
        return np.where(bad.any(axis=0), bad.argmax(axis=0) + 1, 0)


@dataclass(frozen=True)
class Correctness:
    """Which validation samples a trial answers rightly: what its accuracy's interval, and any difference, is made of.

    Attributes:
        rows: `(R, N)` row numbers of the samples, `NO_ROW` behind a replicate's own; the other arrays are 0 there.
        cross_fitted: `(R, N)` how often rightly at the epoch that is best without the sample (`epochs.cross_fitted`).
        best: `(R, N)` whether rightly at the best epoch.
        last: `(R, N)` whether rightly after the last.
    """

    rows: NDArray[np.int32]
    cross_fitted: NDArray[np.float32]
    best: NDArray[np.bool_]
    last: NDArray[np.bool_]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """`(R,)` the cross-fitted accuracy."""
        right: NDArray[np.float64] = self.cross_fitted.sum(axis=1, dtype=np.float64)
        return right / (self.rows != NO_ROW).sum(axis=1)
