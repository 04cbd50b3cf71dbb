"""The result of a trial: its curves, its predictions, and the scores made of them.

The reference experiment reports the best validation accuracy over the epochs: a maximum over noisy numbers, chosen on
the samples that it is measured on. `cross_fitted` gives an accuracy without this bias.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.errors import InputError
from mvsa_tune.training import metrics

Kind = TypeVar("Kind", bound=np.generic)

NO_ROW, NO_CLASS = -1, 255  # padding of replicates that have fewer samples than another
# The arrays of a result that grow by an entry in each epoch.
CURVES = ("train_loss", "val_loss", "confusion", "predicted")
TEST_CURVES = ("test_confusion", "test_predicted")
# Of cross-fitting: 2 parts have a smaller error than 5 and 10 (`bench/choosing.py`); rounds average over random deals.
PARTS, ROUNDS = 2, 20
NO_TEST: Any = partial(np.zeros, (0, 0), dtype=np.uint8)  # makes the arrays of a split without test samples


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial after E epochs, of R replicates with at most N validation samples each, in C classes.

    Attributes:
        train_loss: `(E, R)` mean cross-entropy over the epoch's minibatches, with dropout.
        val_loss: `(E, R)` mean cross-entropy on the validation samples.
        confusion: `(E, R, C, C)` validation counts, true class down, predicted class across.
        rows: `(R, N)` row numbers of the validation samples, padded with `NO_ROW`.
        labels: `(R, N)` their classes, padded with `NO_CLASS`.
        predicted: `(E, R, N)` their predicted classes after each epoch, padded with `NO_CLASS`.
        seconds: training time of the whole stack.
        device: where it was trained.
        matmul: the library of its matrix products; empty where that is not known.
        select: what a replicate's best epoch is chosen by, validation `accuracy` or `loss`.
        test_rows: `(R, M)` row numbers of the test samples; empty if there are none. Nothing is chosen by them.
        test_labels: `(R, M)` their classes.
        test_predicted: `(E, R, M)` their predicted classes after each epoch.
        test_confusion: `(E, R, C, C)` test counts.
        trained_at: `(E, R)` when each epoch had been trained, in seconds since 1970; NaN where that is not known.
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
    matmul: str = ""
    test_rows: NDArray[np.int32] = field(default_factory=NO_TEST)
    test_labels: NDArray[np.uint8] = field(default_factory=NO_TEST)
    test_predicted: NDArray[np.uint8] = field(default_factory=NO_TEST)
    test_confusion: NDArray[np.int32] = field(default_factory=NO_TEST)
    trained_at: NDArray[np.float64] = field(default_factory=NO_TEST)

    def __post_init__(self) -> None:
        if not self.trained_at.size:
            object.__setattr__(self, "trained_at", np.full(self.train_loss.shape, np.nan))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name; those of the test samples only if there are any."""
        return {name: array for name, array in vars(self).items() if isinstance(array, np.ndarray) and array.size}

    @property
    def epochs(self) -> int:
        """Number of epochs trained, E."""
        return len(self.confusion)

    @property
    def tested(self) -> bool:
        """Whether there are test samples."""
        return self.test_rows.size > 0

    def distinct(self, rows: str) -> int:
        """Count the different samples of all replicates in the attribute `rows` or `test_rows`."""
        return int((np.unique(getattr(self, rows)) != NO_ROW).sum())

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Validation accuracy, shape `(E, R)`."""
        return metrics.accuracy(self.confusion)

    @property
    def _merit(self) -> NDArray[np.float64]:
        """The quantity that the best epoch maximises, shape `(E, R)`."""
        if self.select == "accuracy":
            return self.accuracy
        return -np.where(np.isfinite(self.val_loss), self.val_loss, np.inf).astype(np.float64)

    @property
    def best_epoch(self) -> NDArray[np.int64]:
        """Best epoch of each replicate, from 1, shape `(R,)`; the first of equally good ones."""
        return self._merit.argmax(axis=0) + 1

    @property
    def scores(self) -> NDArray[np.float64]:
        """What a sweep maximises, shape `(E,)`: the replicates' mean validation accuracy at their best epochs so far.

        It is an accuracy even where the loss selects the epoch, so that all configurations are compared in one unit.
        """
        merit = self._merit
        best_so_far = np.stack([merit[: epoch + 1].argmax(axis=0) for epoch in range(self.epochs)])
        return np.take_along_axis(self.accuracy, best_so_far, axis=0).mean(axis=1)

    def at_best(self, curve: NDArray[Kind]) -> NDArray[Kind]:
        """Return a curve at each replicate's best epoch: `(E, R, …)` → `(R, …)`."""
        return curve[self.best_epoch - 1, np.arange(curve.shape[1])]

    @property
    def best(self) -> NDArray[np.uint8]:
        """Predicted classes of the validation samples at each replicate's best epoch, shape `(R, N)`."""
        return self.at_best(self.predicted)

    @cached_property
    def correctness(self) -> "Correctness":
        """Which validation samples are predicted correctly."""
        present = self.rows != NO_ROW
        correct = (self.predicted == self.labels) & present
        shares = np.zeros(self.rows.shape, dtype=np.float32)
        for r, samples in enumerate(present):
            of_replicate = correct[:, r : r + 1, samples]
            # A single sample leaves no others to choose the epoch by.
            shares[r, samples] = cross_fitted(of_replicate)[0] if samples.sum() >= PARTS else of_replicate[-1, 0]
        return Correctness(self.rows, shares, self.at_best(correct), correct[-1])

    @property
    def diverged(self) -> NDArray[np.int64]:
        """First epoch of each replicate, from 1, in which a loss was not finite, shape `(R,)`; 0 if there is none."""
        bad = ~(np.isfinite(self.train_loss) & np.isfinite(self.val_loss))
        return np.where(bad.any(axis=0), bad.argmax(axis=0) + 1, 0)


@dataclass(frozen=True)
class Curves:
    """What is shown of a trial while it runs: `(E, R)` each, NaN where a replicate has not come as far."""

    train_loss: NDArray[np.float64]
    val_loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]  # on the validation samples
    trained_at: NDArray[np.float64]  # as in `TrialResult`

    @staticmethod
    def of(*results: "TrialResult | Curves") -> "Curves":
        """Return curves side by side; they may have different numbers of epochs."""
        longest = max(len(result.accuracy) for result in results)

        def beside(name: str) -> NDArray[np.float64]:
            parts = [np.asarray(getattr(result, name), dtype=np.float64) for result in results]
            ends = [((0, longest - len(part)), (0, 0)) for part in parts]
            return np.hstack([np.pad(p, end, constant_values=np.nan) for p, end in zip(parts, ends, strict=True)])

        return Curves(*(beside(item.name) for item in fields(Curves)))

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which replicates have been trained for each epoch, `(E, R)`."""
        return ~np.isnan(self.accuracy)  # a loss that is NaN has diverged

    @property
    def latest(self) -> float:
        """Mean accuracy of the replicates, each after its last epoch up to now."""
        return float(self.accuracy[self.present.sum(axis=0) - 1, np.arange(self.accuracy.shape[1])].mean())


@dataclass(frozen=True)
class Correctness:
    """Which validation samples a trial predicts correctly: the basis of intervals and tests.

    Attributes:
        rows: `(R, N)` row numbers of the samples, padded with `NO_ROW`; the other arrays are 0 there.
        cross_fitted: `(R, N)` share of correct predictions, see the function `cross_fitted`.
        best: `(R, N)` whether the prediction at the best epoch is correct.
        last: `(R, N)` whether the prediction at the last epoch is correct.
    """

    rows: NDArray[np.int32]
    cross_fitted: NDArray[np.float32]
    best: NDArray[np.bool_]
    last: NDArray[np.bool_]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """Cross-fitted accuracy of each replicate, shape `(R,)`."""
        return self.cross_fitted.sum(axis=1, dtype=np.float64) / (self.rows != NO_ROW).sum(axis=1)


def cross_fitted(correct: NDArray[np.bool_], parts: int = PARTS, rounds: int = ROUNDS) -> NDArray[np.float64]:
    """Return how often each sample is predicted correctly at the epoch that is best on other samples, shape `(R, N)`.

    In each round the samples are dealt to `parts`, and each part is scored at the epoch that is best on all the others
    (Stone 1974, doi 10.1111/j.2517-6161.1974.tb00994.x; for choosing among candidates, Varma & Simon 2006,
    doi 10.1186/1471-2105-7-91). The deals are the same in every call.

    `correct`, `(E, R, N)`, says whether replicate r predicts sample n correctly after epoch e.

    Raises:
        InputError: there are fewer samples than parts.
    """
    _, replicates, samples = correct.shape
    if samples < parts:
        raise InputError(f"{samples} validation samples cannot be divided into {parts} parts")
    rng = np.random.default_rng(0)
    total, scored = correct.sum(axis=2), np.zeros((replicates, samples))
    each = np.arange(replicates)[:, None]
    for _ in range(rounds):
        for part in np.array_split(rng.permutation(samples), parts):
            in_part = correct[:, :, part]
            chosen = (total - in_part.sum(axis=2)).argmax(axis=0)  # the first of equally good ones, as in `best_epoch`
            scored[:, part] += in_part[chosen[:, None], each, np.arange(len(part))]
    return scored / rounds


def take(result: TrialResult, indices: Sequence[int]) -> TrialResult:
    """Return the result of some replicates, in the order of `indices`, with their share of the seconds."""
    arrays: dict[str, Any] = {name: np.take(array, indices, _axis(name)) for name, array in result.arrays.items()}
    return replace(result, **arrays, seconds=result.seconds * len(indices) / len(result.rows))


def join(results: Sequence[TrialResult]) -> TrialResult:
    """Join results of one configuration, of equally many epochs, along their replicates.

    Replicates with fewer samples than others are padded; seconds are summed; device and library are the first one's.
    """
    joined: dict[str, Any] = {}
    for name in results[0].arrays:
        parts = [getattr(result, name) for result in results]
        if name.endswith(("rows", "labels", "predicted")):  # an entry for each sample
            longest, value = max(part.shape[-1] for part in parts), NO_ROW if name.endswith("rows") else NO_CLASS
            parts = [
                np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, longest - part.shape[-1])], constant_values=value)
                for part in parts
            ]
        joined[name] = np.concatenate(parts, _axis(name))
    return replace(results[0], **joined, seconds=sum(result.seconds for result in results))


def _axis(name: str) -> int:
    """Return the axis of the replicates in an array of a result: `(R, …)`, or `(E, R, …)`."""
    return 0 if name.endswith(("rows", "labels")) else 1


def lengthened(result: TrialResult, epochs: int) -> TrialResult:
    """Return a diverged replicate's result as one of `epochs` epochs: its last epoch repeated, with losses of NaN."""
    more = epochs - result.epochs
    curves: dict[str, Any] = {
        name: np.concatenate([curve, np.repeat(curve[-1:], more, axis=0)])
        for name in (*CURVES, *TEST_CURVES, "trained_at")
        if (curve := getattr(result, name)).size
    }
    for name in ("train_loss", "val_loss"):
        curves[name][result.epochs :] = np.nan
    return replace(result, **curves)
