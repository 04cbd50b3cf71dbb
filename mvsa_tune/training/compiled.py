"""The reference's head trained on a CPU in float32: one replicate after another, in loops that Numba compiles.

So a replicate's weights and moments stay in the cache for a whole epoch, and its numbers cannot depend on its stack.
bench/LOG.md says what that brings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvsa_tune.config import Config
from mvsa_tune.models.layers import ConcatHead
from mvsa_tune.models.matmul import by_onednn, multiply_each
from mvsa_tune.training.loops import Array, Step, run_back, run_hidden, run_loss, update_all
from mvsa_tune.training.optimizer import StackedAdamW


@dataclass(frozen=True)
class _Tower:
    """A modality's hidden layer of one replicate; what shares memory with the head's tensors."""

    weight: Tensor  # (D, width)
    flat: tuple[Array, Array, Array]  # the weights and their moments
    statistics: tuple[Array, ...]  # see `run_hidden`
    parameters: tuple[Array, ...]  # see `run_back`
    offset: int  # where its units begin in the classifier's weights


@dataclass(frozen=True)
class _Replicate:
    towers: list[_Tower]
    classifier: tuple[Array, Array, Array]  # its weights and their moments
    bias: tuple[Array, Array, Array]  # the same of its bias
    dropout: torch.Generator
    steps: Array  # (), those taken


class _Matrix:
    """A matrix for products, as torch and as NumPy see it."""

    def __init__(self, rows: int, columns: int) -> None:
        self.tensor = torch.empty(rows, columns)
        self.array = self.tensor.numpy()

    def hold(self, left: Tensor, right: Tensor) -> None:
        """Put in the product of `(M, K)` and `(N, K)`, rows by rows, `(M, N)`."""
        if by_onednn(left):
            (self.tensor,) = multiply_each([left], [right])
            self.array = self.tensor.numpy()
        else:
            torch.mm(left, right.mT, out=self.tensor)


class _Layer:
    """What a step with minibatches of one size computes of a modality."""

    def __init__(self, tower: _Tower, size: int, gradient: _Matrix) -> None:
        D, width = tower.weight.shape
        self.inputs = torch.empty(size, width)
        self.turned = self.inputs.mT
        self.units = _Matrix(D, size)
        self.out = np.empty((D, size), np.float32)
        self.inverse = np.empty(D, np.float32)
        self.gradient = gradient  # of the weights

    def gather(self, vectors: Tensor, rows: Tensor) -> None:
        """Put in the vectors of rows `(B,)`, in float32."""
        if vectors.dtype == self.inputs.dtype:
            torch.index_select(vectors, 0, rows, out=self.inputs)
        else:
            self.inputs.copy_(vectors.index_select(0, rows))


class _Workspace:
    """Where a step with minibatches of one size puts what it computes; all replicates use it in turn."""

    def __init__(self, replicate: _Replicate, size: int, gradients: Sequence[_Matrix]) -> None:
        towers = replicate.towers
        self.layers = [_Layer(tower, size, gradient) for tower, gradient in zip(towers, gradients, strict=True)]
        units = (len(towers), *self.layers[0].out.shape)
        self.words = torch.zeros(math.ceil(math.prod(units) / 4), dtype=torch.int64)
        self.random = self.words.view(torch.int16)[: math.prod(units)].view(units).numpy()
        self.logits = np.empty((len(replicate.bias[0]), size), np.float32)


class CompiledHead:
    """Trains a stack of `ConcatHead`, replicate by replicate, with the weights and moments that its optimizer holds."""

    def __init__(
        self, head: ConcatHead, optimizer: StackedAdamW, vectors: Sequence[Tensor], labels: Tensor, config: Config
    ) -> None:
        """Prepare to train on vectors `(N, width)` by modality and labels `(N,)`: float32 and int64, on the CPU."""
        dropout: Any = next(iter(head.towers.values())).dropout
        self.vectors, self.labels = vectors, labels.numpy()
        self.draws, self.scale = dropout.rate > 0, np.float32(1 / (1 - dropout.rate))
        self.threshold = dropout.threshold if self.draws else -(2**15)  # all random numbers are above it
        self.smoothing, self.weight_decay = np.float32(config.label_smoothing), optimizer.weight_decay
        self.replicates = [_replicate(head, optimizer, r, generator) for r, generator in enumerate(dropout.generators)]
        self.gradients = [_Matrix(*tower.weight.shape) for tower in self.replicates[0].towers]
        self.workspaces: dict[int, _Workspace] = {}

    def train(self, r: int, minibatches: Sequence[Tensor], rates: Sequence[float]) -> float:
        """Let replicate r learn from minibatches of rows `(B,)`, at these learning rates; return the sum of losses."""
        return sum(self._learn(self.replicates[r], *step) for step in zip(minibatches, rates, strict=True))

    def _learn(self, replicate: _Replicate, rows: Tensor, lr: float) -> float:
        if len(rows) not in self.workspaces:
            self.workspaces[len(rows)] = _Workspace(replicate, len(rows), self.gradients)
        space, scale = self.workspaces[len(rows)], self.scale
        replicate.steps[()] += 1
        step = Step.of(int(replicate.steps), lr, self.weight_decay)
        if self.draws:
            space.words.random_(-(2**63), None, generator=replicate.dropout)
        space.logits.fill(0)
        layers = list(zip(replicate.towers, space.layers, strict=True))
        for (tower, layer), vectors, random in zip(layers, self.vectors, space.random, strict=True):
            layer.gather(vectors, rows)
            layer.units.hold(tower.weight, layer.inputs)
            drop = random, self.threshold, scale
            made = layer.out, layer.inverse
            classifier = replicate.classifier[0], tower.offset
            run_hidden(layer.units.array, tower.statistics, *drop, *classifier, *made, space.logits)
        loss = run_loss(space.logits, rows.numpy(), self.labels, self.smoothing, *replicate.bias, step)
        for tower, layer in layers:
            made = layer.out, layer.inverse
            learned = tower.parameters, replicate.classifier
            run_back(layer.units.array, *made, scale, space.logits, *learned, tower.offset, step)
            layer.gradient.hold(layer.units.tensor, layer.turned)
            update_all(*tower.flat, layer.gradient.array.reshape(-1), step)
        return float(loss)


def _replicate(head: ConcatHead, optimizer: StackedAdamW, r: int, generator: torch.Generator) -> _Replicate:
    """Return replicate r's part of all tensors."""
    held = {id(stack): index for index, stack in enumerate(optimizer.stacks)}

    def of(stack: Tensor) -> tuple[Array, Array, Array]:
        """Return the replicate's weights of a stack, and their moments."""
        of_stack = held[id(stack)]
        weights, first, second = (t[of_stack][r] for t in (optimizer.weights, optimizer.first, optimizer.second))
        return weights.numpy(), first.numpy(), second.numpy()

    towers: list[_Tower] = []
    tower: Any
    for tower in head.towers.values():
        norm, (bias, *_), weights = tower.norm, of(tower.linear.bias), of(tower.linear.weight)
        gains, shifts = of(norm.weight), of(norm.bias)
        statistics = (gains[0], shifts[0], norm.running_mean[r].numpy(), norm.running_var[r].numpy(), bias[:, 0])
        parameters = (*gains, *shifts, bias[:, 0])
        flat: Any = tuple(values.reshape(-1) for values in weights)
        offset = len(towers) * len(bias)
        towers.append(_Tower(torch.from_numpy(weights[0]), flat, statistics, parameters, offset))
    bias_of_classes: Any = tuple(values[:, 0] for values in of(head.classifier.bias))
    return _Replicate(towers, of(head.classifier.weight), bias_of_classes, generator, optimizer.steps[r].numpy())
