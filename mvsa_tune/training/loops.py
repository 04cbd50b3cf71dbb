"""What Numba compiles of a training step: all but the matrix products, for one replicate of the reference's head.

Torch would take some two hundred calls, which pass over the units again and again. Here AdamW changes a parameter where
its gradient is computed. The compiler may change the order of sums, which is the same for every row, and nothing else:
NaN and infinity come out as in torch. Results differ from those of autograd as float32 rounds.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from mvsa_tune.training.optimizer import BETA1, BETA2, EPSILON

Array = NDArray[Any]
REORDERED = {"reassoc", "nsz"}  # what fastmath allows: vectorised sums
# Numba keeps constants with the code that it has compiled, until this file changes: those of other files are arguments.
ZERO, ONE = np.float32(0), np.float32(1)
NORM_EPSILON, KEPT, NEW = np.float32(1e-5), np.float32(0.9), np.float32(0.1)  # BatchNorm's, as torch's


class Step(NamedTuple):
    """What AdamW needs to know in a step, beside gradients: `torch.optim.AdamW`'s factors, in float32."""

    decay: np.float32  # of weights: 1 - learning rate × weight decay
    rate: np.float32  # learning rate / (1 - β₁^steps)
    root: np.float32  # 1 / √(1 - β₂^steps)
    new_first: np.float32  # 1 - β₁
    second: np.float32  # β₂
    new_second: np.float32  # 1 - β₂
    epsilon: np.float32

    @classmethod
    def of(cls, count: int, lr: float, weight_decay: float) -> "Step":
        """Return the factors of a replicate's step `count`, from 1."""
        rate, root = lr / (1 - BETA1**count), 1 / math.sqrt(1 - BETA2**count)
        factors = (1 - lr * weight_decay, rate, root, 1 - BETA1, BETA2, 1 - BETA2, EPSILON)
        with np.errstate(over="ignore"):  # of a learning rate that makes a training diverge
            return cls(*map(np.float32, factors))


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function when it is first called, and keep what comes out where Python keeps its own."""

    def compile_it(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return numba.njit(cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's can be written
            return numba.njit(error_model="numpy", **options)(function)

    return compile_it


@compiled()
def _update(weights: Array, first: Array, second: Array, i: int, gradient: np.float32, step: Step) -> None:
    """Let AdamW change element i of some weights and of their moments."""
    first[i] += step.new_first * (gradient - first[i])
    second[i] = step.second * second[i] + step.new_second * gradient * gradient
    deviation = np.float32(math.sqrt(second[i])) * step.root + step.epsilon
    weights[i] = weights[i] * step.decay - step.rate * first[i] / deviation


@compiled()
def update_all(weights: Array, first: Array, second: Array, gradients: Array, step: Step) -> None:
    """Let AdamW change all of some weights; flat arrays."""
    for i in range(len(weights)):
        _update(weights, first, second, i, gradients[i], step)


@compiled(fastmath=REORDERED)
def run_hidden(
    units: Array,
    statistics: tuple[Array, ...],
    random: Array,
    threshold: int,
    scale: np.float32,
    classifier: Array,
    offset: int,
    out: Array,
    inverse: Array,
    logits: Array,
) -> None:
    """Run BatchNorm, ReLU and dropout on units `(D, B)`, and add what they contribute to the logits `(C, B)`.

    Args:
        units: the linear layer's product, without its bias; afterwards normalised.
        statistics: BatchNorm's weights, biases, running means and variances, and the linear layer's biases, `(D,)`.
        random: a number for each unit.
        threshold: units whose random number is below it are dropped.
        scale: what dropout multiplies kept units by.
        classifier: its weights, of all modalities' units: `(C, M × D)`.
        offset: where in them those of these units begin.
        out: for the hidden units `(D, B)`.
        inverse: for BatchNorm's 1 / deviation, `(D,)`.
        logits: of each class and sample.
    """
    gains, shifts, running_means, running_variances, biases = statistics
    D, B = units.shape
    count = np.float32(B)
    for d in range(D):
        row, result, numbers = units[d], out[d], random[d]
        mean = ZERO
        for b in range(B):
            mean += row[b]
        mean /= count
        variance = ZERO
        for b in range(B):
            variance += (row[b] - mean) * (row[b] - mean)
        variance /= count
        running_means[d] = KEPT * running_means[d] + NEW * (mean + biases[d])
        running_variances[d] = KEPT * running_variances[d] + NEW * (variance * (count / (count - ONE)))
        inverse[d] = ONE / np.float32(math.sqrt(variance + NORM_EPSILON))
        by, gain, shift = inverse[d], gains[d] * scale, shifts[d] * scale
        for b in range(B):
            row[b] = (row[b] - mean) * by
            unit = row[b] * gain + shift
            # NaN stays. `or` in place of `|` would take ten times as long: it is a branch.
            result[b] = ZERO if (unit <= ZERO) | (numbers[b] < threshold) else unit
        for c in range(len(logits)):
            weight, logit = classifier[c, offset + d], logits[c]
            for b in range(B):
                logit[b] += weight * result[b]


@compiled()
def run_loss(
    logits: Array,
    rows: Array,
    labels: Array,
    smoothing: np.float32,
    bias: Array,
    first: Array,
    second: Array,
    step: Step,
) -> float:
    """Return the sum of the cross-entropies of logits `(C, B)`, still without the bias; turn them into gradients.

    The gradients are those of the mean. Labels are all samples'. AdamW changes the bias `(C,)`, with its moments.
    """
    C, B = logits.shape
    count, share = np.float32(B), smoothing / np.float32(C)
    total = 0.0
    for b in range(B):
        highest = logits[0, b] + bias[0]
        for c in range(C):
            logits[c, b] += bias[c]
            highest = max(highest, logits[c, b])
        exponentials, label = ZERO, labels[rows[b]]
        loss = -(ONE - smoothing) * (logits[label, b] - highest)
        for c in range(C):
            loss -= share * (logits[c, b] - highest)
            logits[c, b] = np.float32(math.exp(logits[c, b] - highest))
            exponentials += logits[c, b]
        total += loss + math.log(exponentials)
        for c in range(C):
            target = share + (ONE - smoothing if c == label else ZERO)
            logits[c, b] = (logits[c, b] / exponentials - target) / count
    for c in range(C):
        gradient = ZERO
        for b in range(B):
            gradient += logits[c, b]
        _update(bias, first, second, c, gradient, step)
    return total


@compiled(fastmath=REORDERED)
def run_back(
    units: Array,
    out: Array,
    inverse: Array,
    scale: np.float32,
    gradients: Array,
    parameters: tuple[Array, ...],
    classifier: tuple[Array, Array, Array],
    offset: int,
    step: Step,
) -> None:
    """Turn normalised units `(D, B)` into the gradient of the linear layer's product; AdamW changes what is passed.

    Args:
        units: as `run_hidden` has left them.
        out: the hidden units.
        inverse: BatchNorm's 1 / deviation.
        scale: what dropout multiplied kept units by.
        gradients: of the logits, `(C, B)`.
        parameters: BatchNorm's weights and their moments, its biases and theirs, and the linear layer's biases, whose
            gradient is 0: BatchNorm cancels them.
        classifier: its weights and their moments, of all modalities' units: `(C, M × D)`.
        offset: where in them those of these units begin.
        step: AdamW's.
    """
    gains, gains_first, gains_second, shifts, shifts_first, shifts_second, biases = parameters
    weights, first, second = classifier
    D, B = units.shape
    count = np.float32(B)
    to_unit = np.empty(B, np.float32)
    for d in range(D):
        row, result = units[d], out[d]
        for b in range(B):
            to_unit[b] = ZERO
        for c in range(len(gradients)):
            gradient, weight = gradients[c], weights[c, offset + d]
            to_weight = ZERO
            for b in range(B):
                to_unit[b] += weight * gradient[b]
                to_weight += gradient[b] * result[b]
            _update(weights[c], first[c], second[c], offset + d, to_weight, step)
        to_shift = to_gain = ZERO
        for b in range(B):
            to_unit[b] = ZERO if result[b] <= ZERO else to_unit[b]
            to_shift += to_unit[b]
            to_gain += to_unit[b] * row[b]
        by, shift, gain = inverse[d] * gains[d] * scale, to_shift / count, to_gain / count
        for b in range(B):
            row[b] = by * (to_unit[b] - shift - row[b] * gain)
        _update(gains, gains_first, gains_second, d, to_gain * scale, step)
        _update(shifts, shifts_first, shifts_second, d, to_shift * scale, step)
        biases[d] *= step.decay
