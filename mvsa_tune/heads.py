"""Fusion heads as stacks: R replicates side by side in one tensor, and the registry that names them.

Shapes: R replicates, B samples, D units, C classes. Activations are `(R, units, B)` and weights `(R, out, in)`: so
`torch.baddbmm` is R linear layers in one call, and torch's own `batch_norm` and `cross_entropy` serve the whole stack
through a view, without a copy.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StackedLinear(nn.Module):
    """R times `nn.Linear`: `(R, in, B)` → `(R, out, B)`."""

    def __init__(self, replicates: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(replicates, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(replicates, outputs, 1))

    @torch.no_grad()
    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """Draw each replicate's weights from its own generator, as `nn.Linear.reset_parameters` does."""
        bound = 1 / math.sqrt(self.weight.shape[2])
        for weight, bias, generator in zip(self.weight, self.bias, generators, strict=True):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
            nn.init.uniform_(bias, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """`(R, in, B)` → `(R, out, B)`."""
        return torch.baddbmm(self.bias, self.weight, x)


class StackedBatchNorm(nn.Module):
    """R times `nn.BatchNorm1d`: `(R, D, B)` → the same, each replicate normalised over its own B samples.

    The replicates' units are the channels of one `batch_norm`, and the samples its length, so running statistics
    (momentum 0.1, unbiased variance) and evaluation mode are torch's own.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, replicates: int, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(replicates, units))
        self.bias = nn.Parameter(torch.zeros(replicates, units))
        self.register_buffer("running_mean", torch.zeros(replicates, units))
        self.register_buffer("running_var", torch.ones(replicates, units))

    def forward(self, x: Tensor) -> Tensor:
        """`(R, D, B)` → `(R, D, B)`."""
        channels = x.reshape(1, -1, x.shape[2])
        normalised = F.batch_norm(
            channels,
            self.running_mean.view(-1),
            self.running_var.view(-1),
            self.weight.view(-1),
            self.bias.view(-1),
            training=self.training,
        )
        return normalised.view(x.shape)


class StackedDropout(nn.Module):
    """R times `nn.Dropout`, each replicate's mask drawn from its own generator. Set `generators` before training.

    A unit is dropped where a random 16-bit number is below `rate` × 2^16 (so the rate is exact to 1e-5): drawing 64 bits
    for four units took a seventh of the time of `bernoulli_` on a CPU.
    """

    generators: Sequence[torch.Generator]

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def mask(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Draw which units stay: `(R, D, B)` of booleans."""
        units = math.prod(shape[1:])
        words = torch.empty(len(self.generators), math.ceil(units / 4), dtype=torch.int64, device=device)
        for row, generator in zip(words, self.generators, strict=True):
            row.random_(-(2**63), None, generator=generator)
        threshold = round(self.rate * 2**16) - 2**15
        return (words.view(torch.int16)[:, :units] >= threshold).view(shape)

    def forward(self, x: Tensor) -> Tensor:
        """`(R, D, B)` → the same, in training with units dropped and the others scaled up."""
        if not self.training or self.rate == 0:
            return x
        return x * self.mask(x.shape, x.device).to(x.dtype).mul_(1 / (1 - self.rate))


class StackedTower(nn.Module):
    """One modality's hidden layer, Linear → BatchNorm → ReLU → Dropout: `(R, width, B)` → `(R, D, B)`."""

    def __init__(self, replicates: int, width: int, D: int, dropout: float) -> None:
        super().__init__()
        self.linear = StackedLinear(replicates, width, D)
        self.norm = StackedBatchNorm(replicates, D)
        self.dropout = StackedDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`(R, width, B)` → `(R, D, B)`."""
        hidden: Tensor = self.dropout(F.relu(self.norm(self.linear(x))))
        return hidden


class ConcatHead(nn.Module):
    """The documents' head: a tower for each modality, concatenated, then Linear(D × modalities, C)."""

    def __init__(self, replicates: int, widths: Mapping[str, int], D: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(
            {modality: StackedTower(replicates, width, D, dropout) for modality, width in widths.items()}
        )
        self.classifier = StackedLinear(replicates, D * len(widths), classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`{modality: (R, width, B)}` → logits `(R, C, B)`."""
        hidden = [tower(inputs[modality]) for modality, tower in self.towers.items()]
        logits: Tensor = self.classifier(torch.cat(hidden, dim=1))
        return logits


HEADS = {"concat": ConcatHead}


def build_head(
    name: str, replicates: int, widths: Mapping[str, int], D: int, classes: int, dropout: float
) -> nn.Module:
    """Build a stack of heads by name, its linear weights not yet drawn."""
    return HEADS[name](replicates, widths, D, classes, dropout)


def initialise(head: nn.Module, weights: Sequence[torch.Generator], dropout: Sequence[torch.Generator]) -> None:
    """Draw every linear layer's weights and hand the dropout layers their generators, one a replicate."""
    for module in head.modules():
        if isinstance(module, StackedLinear):
            module.reset(weights)
        elif isinstance(module, StackedDropout):
            module.generators = dropout


def count_parameters(name: str, widths: Mapping[str, int], D: int, classes: int) -> int:
    """Trainable parameters of one replicate."""
    with torch.device("meta"):
        head = build_head(name, 1, widths, D, classes, dropout=0.0)
    return sum(parameter.numel() for parameter in head.parameters())
