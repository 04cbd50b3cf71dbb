"""What a trial has found: its curves and its predictions, and the scores that they give."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvsa_tune import metrics


@dataclass(frozen=True)
class Outcome:
    """What a trial has found by its E-th epoch. R replicates, N validation samples, C classes.

    Attributes:
        train_loss: `(E, R)` mean cross-entropy over the epoch's minibatches, dropout on.
        val_loss: `(E, R)` mean cross-entropy on the validation samples.
        confusion: `(E, R, C, C)` validation counts, true class down, predicted across.
        rows: `(R, N)` row numbers of the validation samples.
        best: `(R, N)` classes predicted at each replicate's best epoch.
        last: `(R, N)` classes predicted after epoch E.
        seconds: time of the whole stack, in seconds.
        device: where it was trained.
    """

    train_loss: NDArray[np.float32]
    val_loss: NDArray[np.float32]
    confusion: NDArray[np.int32]
    rows: NDArray[np.int32]
    best: NDArray[np.uint8]
    last: NDArray[np.uint8]
    seconds: float
    device: str

    @property
    def epochs(self) -> int:
        """E."""
        return len(self.confusion)

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """`(E, R)` validation accuracy."""
        return metrics.accuracy(self.confusion)

    @property
    def scores(self) -> NDArray[np.float64]:
        """`(E,)` what a sweep maximises: the best validation accuracy so far, averaged over replicates."""
        return np.maximum.accumulate(self.accuracy, axis=0).mean(axis=1)

    @property
    def best_epoch(self) -> NDArray[np.int64]:
        """`(R,)` the epoch, from 1, of the best validation accuracy; of equals the first."""
        return self.accuracy.argmax(axis=0) + 1

    @property
    def diverged(self) -> NDArray[np.int64]:
        """`(R,)` the first epoch, from 1, at which a loss was not finite; 0 where all were."""
        bad = ~(np.isfinite(self.train_loss) & np.isfinite(self.val_loss))
        return np.where(bad.any(axis=0), bad.argmax(axis=0) + 1, 0)
