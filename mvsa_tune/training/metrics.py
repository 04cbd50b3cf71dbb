"""Confusion matrices → the scores reported. A matrix is `(..., C, C)`: true class down, predicted class across."""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.integer]
Scores = NDArray[np.float64]


def accuracy(confusion: Counts) -> Scores:
    """Return the share of samples labelled correctly: `(..., C, C)` → `(...)`."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def f1_per_class(confusion: Counts) -> Scores:
    """Return the F1 of each class, 0 where it is neither present nor predicted: `(..., C, C)` → `(..., C)`."""
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    mentions = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return np.divide(2 * correct, mentions, out=np.zeros(correct.shape), where=mentions > 0)


def f1_macro(confusion: Counts) -> Scores:
    """Return the unweighted mean of the classes' F1: `(..., C, C)` → `(...)`."""
    return f1_per_class(confusion).mean(axis=-1)


def f1_weighted(confusion: Counts) -> Scores:
    """Return the mean of the classes' F1, weighted by their true counts: `(..., C, C)` → `(...)`."""
    present = confusion.sum(axis=-1)
    return (f1_per_class(confusion) * present).sum(axis=-1) / present.sum(axis=-1)
