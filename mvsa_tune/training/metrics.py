"""Confusion matrices → the scores reported. A matrix is `(..., C, C)`: true class down, predicted class across."""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.integer]
Scores = NDArray[np.float64]


def accuracy(confusion: Counts) -> Scores:
    """Share of samples labelled right: `(..., C, C)` → `(...)`."""
    right: Scores = np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))
    return right


def f1_per_class(confusion: Counts) -> Scores:
    """F1 of each class, 0 where it is neither present nor predicted: `(..., C, C)` → `(..., C)`."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    mentions = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return np.divide(2 * right, mentions, out=np.zeros(right.shape), where=mentions > 0)


def f1_macro(confusion: Counts) -> Scores:
    """Plain mean of the classes' F1: `(..., C, C)` → `(...)`."""
    mean: Scores = f1_per_class(confusion).mean(axis=-1)
    return mean


def f1_weighted(confusion: Counts) -> Scores:
    """Mean of the classes' F1, weighted by their true counts: `(..., C, C)` → `(...)`."""
    present = confusion.sum(axis=-1)
    mean: Scores = (f1_per_class(confusion) * present).sum(axis=-1) / present.sum(axis=-1)
    return mean
