"""Fusion heads, each a stack of R replicates, and the registry that names them.

Every head but `linear` begins with the reference's hidden layer for each modality (`StackedTowers`), so that heads differ in
how they fuse and in nothing else. With one modality a head is what is left of it when the other is taken away:
attention over one token, a product of one factor, no gate, one classifier's logits.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mvsa_tune.models.layers import StackedAttention, StackedBlock, StackedDropout, StackedLinear, StackedTowers


@dataclass(frozen=True)
class Shape:
    """What a head is built from: R replicates, the vectors' widths by modality, D, C classes and the dropout rate."""

    replicates: int
    widths: Mapping[str, int]
    D: int
    classes: int
    dropout: float

    def linear(self, inputs: int, outputs: int) -> StackedLinear:
        """A linear layer for each replicate."""
        return StackedLinear(self.replicates, inputs, outputs)


class Head(nn.Module, ABC):
    """A hidden layer for each modality; `_fuse` makes units of theirs, and a classifier logits of those."""

    def __init__(self, shape: Shape, fused: int) -> None:
        super().__init__()
        self.towers = StackedTowers(shape.replicates, shape.widths, shape.D, shape.dropout)
        self.classifier = shape.linear(fused, shape.classes)

    @abstractmethod
    def _fuse(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Hidden units `(R, M × D, B)`, modality behind modality, and the vectors `{modality: (R, width, B)}` → `(R, fused, B)`."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`{modality: (R, width, B)}` → logits `(R, C, B)`."""
        logits: Tensor = self.classifier(self._fuse(self.towers(inputs), inputs))
        return logits


class ConcatHead(Head):
    """The reference's head: the hidden units concatenated."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, shape.D * len(shape.widths))

    def _fuse(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        return hidden


class CrossAttentionHead(ConcatHead):
    """The reference's later head: a token for each modality, 8-head attention between the two, then both concatenated."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.mix: nn.Module = StackedAttention(shape.replicates, shape.D, len(shape.widths))

    def _fuse(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        count = len(self.towers)
        tokens = self.mix(torch.cat(hidden.chunk(count, dim=1), dim=2))  # (R, D, T × B)
        return torch.cat(tokens.chunk(count, dim=2), dim=1)


class MergedAttentionHead(CrossAttentionHead):
    """METER's merged attention (Dou et al. 2022, arXiv:2111.02387): both tokens through one transformer block."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.mix = StackedBlock(shape.replicates, shape.D, shape.dropout, len(shape.widths))


class CoAttentionHead(ConcatHead):
    """METER's co-attention (Dou et al. 2022, arXiv:2111.02387): a transformer block for each modality's token.

    A block's cross-attention looks at the token that the other's block is given, as in METER. With a token for each
    modality both attentions are over one token (see `StackedAttention`).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        both = len(shape.widths) > 1
        self.blocks = nn.ModuleDict(
            {modality: StackedBlock(shape.replicates, shape.D, shape.dropout, 1, both) for modality in shape.widths}
        )

    def _fuse(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        tokens = hidden.chunk(len(self.blocks), dim=1)
        others = reversed(tokens) if len(tokens) > 1 else [None]
        mixed = zip(self.blocks.values(), tokens, others, strict=True)
        return torch.cat([block(token, other) for block, token, other in mixed], dim=1)


class GatedHead(Head):
    """A gated multimodal unit (Arevalo et al. 2017, arXiv:1702.01992): z h_image + (1 - z) h_text, unit by unit.

    z = sigmoid(Linear(both vectors, D)); h is the reference's hidden layer where the paper has tanh(Linear).
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, shape.D)
        if len(shape.widths) > 1:
            self.gate = shape.linear(sum(shape.widths.values()), shape.D)

    def _fuse(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        first, *second = hidden.chunk(len(self.towers), dim=1)
        if not second:
            return first
        gate = self.gate(torch.cat([inputs[modality] for modality in self.towers], dim=1)).sigmoid()
        return torch.lerp(second[0], first, gate.to(first.dtype))


class BilinearHead(Head):
    """Low-rank bilinear fusion (Kim et al. 2017, arXiv:1610.04325): the product of a Linear(D, D) of each modality.

    A logit is then a bilinear form, of rank D at most, in the two hidden layers, each with a 1 appended (the biases), as in
    Liu et al. 2018 (arXiv:1806.00064): so it holds each modality's own terms beside the products.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape, shape.D)
        self.factors = nn.ModuleDict({modality: shape.linear(shape.D, shape.D) for modality in shape.widths})

    def _fuse(self, hidden: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        units = zip(self.factors.values(), hidden.chunk(len(self.factors), dim=1), strict=True)
        return torch.stack([factor(own) for factor, own in units]).prod(dim=0)


class LateHead(nn.Module):
    """A head of its own for each modality, and the mean of their logits. With one modality it is `concat`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: ConcatHead(replace(shape, widths={name: width})) for name, width in shape.widths.items()}
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`{modality: (R, width, B)}` → logits `(R, C, B)`."""
        return torch.stack([head(inputs) for head in self.heads.values()]).mean(dim=0)


class LinearHead(nn.Module):
    """Logits straight from the concatenated vectors: no hidden layer, so neither D nor dropout matters."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(shape.widths)
        self.classifier = shape.linear(sum(shape.widths.values()), shape.classes)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`{modality: (R, width, B)}` → logits `(R, C, B)`."""
        logits: Tensor = self.classifier(torch.cat([inputs[modality] for modality in self.modalities], dim=1))
        return logits


# The names are `config.HEAD_NAMES`, which knows nothing of torch.
HEADS: Mapping[str, Callable[[Shape], nn.Module]] = {
    "concat": ConcatHead,
    "cross-attention": CrossAttentionHead,
    "co-attention": CoAttentionHead,
    "merged-attention": MergedAttentionHead,
    "gated": GatedHead,
    "bilinear": BilinearHead,
    "linear": LinearHead,
    "late": LateHead,
}


def build_head(
    name: str, replicates: int, widths: Mapping[str, int], D: int, classes: int, dropout: float
) -> nn.Module:
    """Build a stack of heads by name, its linear weights not yet drawn."""
    return HEADS[name](Shape(replicates, widths, D, classes, dropout))


def initialise(head: nn.Module, weights: Sequence[torch.Generator], dropout: Sequence[torch.Generator]) -> None:
    """Draw every linear layer's weights and hand the dropout layers their generators, one a replicate."""
    for module in head.modules():
        if isinstance(module, StackedLinear):
            module.reset(weights)
        elif isinstance(module, StackedDropout):
            module.generators = dropout


def run_some(head: nn.Module, which: Sequence[int], inputs: Mapping[str, Tensor]) -> Tensor:
    """Run some replicates of a stack alone, `{modality: (R', width, B)}` → logits `(R', C, B)`, as the whole stack runs.

    Gradients reach the stack's own parameters, dropout is drawn from those replicates' generators, and their running
    statistics are kept.
    """
    own = {name: tensor[which] for name, tensor in (*head.named_parameters(), *head.named_buffers())}
    dropouts = [module for module in head.modules() if isinstance(module, StackedDropout)]
    everyone = [module.generators for module in dropouts]
    for module, generators in zip(dropouts, everyone, strict=True):
        module.generators = [generators[r] for r in which]
    logits: Tensor = functional_call(head, own, (inputs,))
    for module, generators in zip(dropouts, everyone, strict=True):
        module.generators = generators
    if head.training:
        for name, buffer in head.named_buffers():
            buffer[which] = own[name]
    return logits


def count_parameters(name: str, widths: Mapping[str, int], D: int, classes: int) -> int:
    """Trainable parameters of one replicate."""
    with torch.device("meta"):
        head = build_head(name, 1, widths, D, classes, dropout=0.0)
    return sum(parameter.numel() for parameter in head.parameters())
