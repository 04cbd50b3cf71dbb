"""Fusion heads, each a stack of R replicates, and the registry that names them.

Every head but `linear` begins with the reference's hidden layer for each modality, so that heads differ in how they
fuse and in nothing else. With one modality a head is what remains of it without the other: attention over one token,
a product of one factor, no gate, the logits of one classifier.

A new head is a function here and an entry of `BUILT_IN`, or comes from a plug-in (docs/plugins.md). The functions
import torch when they are called: `--help`, which only names the heads, must not wait a second for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mvsa_tune.models import ATTENTION_HEADS
from mvsa_tune.plugins import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mvsa_tune.models.layers import StackedLinear

    Vectors = Mapping[str, Tensor]  # by modality, `(R, width, B)` each


@dataclass(frozen=True)
class HeadShape:
    """What a head is built for: the size of its stack and layers, and the dropout rate."""

    replicates: int
    widths: Mapping[str, int]  # of the vectors, by modality
    D: int  # hidden units of each modality
    classes: int
    dropout: float

    def linear(self, inputs: int, outputs: int) -> "StackedLinear":
        """Return a linear layer: `(R, inputs, B)` → `(R, outputs, B)`."""
        from mvsa_tune.models.layers import StackedLinear

        return StackedLinear(self.replicates, inputs, outputs)

    def fusion(
        self,
        fuse: "Callable[[Any, Tensor, Vectors], Tensor]",
        units: int,
        *,
        shared_norm: bool = False,
        **layers: "nn.Module | Mapping[str, nn.Module]",
    ) -> "nn.Module":
        """Return a head that fuses and classifies the units of each modality's hidden layer (attribute `towers`).

        Args:
            fuse: called with the head, the hidden units `(R, M × D, B)`, modality after modality, and the vectors;
                returns `(R, units, B)`.
            units: how many units `fuse` returns.
            shared_norm: whether the modalities' hidden layers share one BatchNorm.
            layers: further layers for `fuse`, as attributes of the head.
        """
        from mvsa_tune.models.layers import Head, StackedTowers

        def run(head: Any, inputs: "Vectors") -> "Tensor":
            return head.classifier(fuse(head, head.towers(inputs), inputs))

        towers = StackedTowers(self.replicates, self.widths, self.D, self.dropout, shared_norm)
        return Head(run, towers=towers, classifier=self.linear(units, self.classes), **layers)


@dataclass(frozen=True)
class HeadSpec:
    """A head of the registry.

    `build` returns a module `{modality: (R, width, B)}` → logits `(R, C, B)`; `layers.initialise` draws its weights.
    """

    build: Callable[[HeadShape], "nn.Module"]
    D_multiple_of: int = 1  # D must be a multiple of this


def concat(shape: HeadShape) -> "nn.Module":
    """Concatenate the hidden units: the reference's head."""
    from mvsa_tune.models.layers import ConcatHead, StackedTowers

    towers = StackedTowers(shape.replicates, shape.widths, shape.D, shape.dropout)
    return ConcatHead(towers, shape.linear(shape.D * len(shape.widths), shape.classes))


def concat_shared_norm(shape: HeadShape) -> "nn.Module":
    """Concatenate the hidden units, which share one BatchNorm: the head that the reference fine-tunes."""
    if len(shape.widths) == 1:
        return concat(shape)
    return shape.fusion(lambda head, hidden, inputs: hidden, shape.D * len(shape.widths), shared_norm=True)


def cross_attention(shape: HeadShape) -> "nn.Module":
    """Attend over both modalities' tokens, with 8 heads, and concatenate: the reference's later head.

    Each modality has a Linear(D, D) for query, key and value before the attention's own. The text comes first. With one
    modality the reference has no attention.
    """
    import torch

    from mvsa_tune.models.layers import StackedAttention

    def fuse(head: Any, hidden: "Tensor", inputs: "Vectors") -> "Tensor":
        image, text = hidden.chunk(2, dim=1)
        projected = torch.cat([head.text(text), head.image(image)], dim=2)  # (R, 3 D, 2 B)
        return _in_units(head.attention(*projected.chunk(3, dim=1)), 2)

    if len(shape.widths) == 1:
        return concat(shape)
    image, text = (shape.linear(shape.D, 3 * shape.D) for _ in shape.widths)  # query, key and value in one product
    attention = StackedAttention(shape.replicates, shape.D, 2, drawn_as_torch=True)
    return shape.fusion(fuse, 2 * shape.D, image=image, text=text, attention=attention)


def merged_attention(shape: HeadShape) -> "nn.Module":
    """Pass both tokens through one transformer block: METER's merged attention (Dou et al. 2022, arXiv:2111.02387)."""
    from mvsa_tune.models.layers import StackedBlock

    count = len(shape.widths)

    def fuse(head: Any, hidden: "Tensor", inputs: "Vectors") -> "Tensor":
        return _in_units(head.mix(hidden.unflatten(1, (count, -1)).transpose(1, 2).flatten(2)), count)

    return shape.fusion(fuse, shape.D * count, mix=StackedBlock(shape.replicates, shape.D, shape.dropout, count))


def _in_units(tokens: "Tensor", count: int) -> "Tensor":
    """Concatenate the tokens of each sample: `(R, D, T × B)` → `(R, T × D, B)`."""
    return tokens.unflatten(2, (count, -1)).transpose(1, 2).flatten(1, 2)


def co_attention(shape: HeadShape) -> "nn.Module":
    """Pass each token through a block that sees the other: METER's co-attention (Dou et al. 2022, arXiv:2111.02387).

    A block's cross-attention is over the token that enters the other block, as in METER. All attentions are over one
    token (see `StackedAttention`).
    """
    import torch

    from mvsa_tune.models.layers import StackedBlock

    def fuse(head: Any, hidden: "Tensor", inputs: "Vectors") -> "Tensor":
        tokens = hidden.chunk(len(head.blocks), dim=1)
        others = reversed(tokens) if len(tokens) > 1 else [None]
        triples = zip(head.blocks.values(), tokens, others, strict=True)
        return torch.cat([block(token, other) for block, token, other in triples], dim=1)

    both = len(shape.widths) > 1
    blocks = {m: StackedBlock(shape.replicates, shape.D, shape.dropout, 1, context=both) for m in shape.widths}
    return shape.fusion(fuse, shape.D * len(shape.widths), blocks=blocks)


def gated(shape: HeadShape) -> "nn.Module":
    """Weigh the modalities unit by unit: a gated multimodal unit (Arevalo et al. 2017, arXiv:1702.01992).

    z h_image + (1 - z) h_text with z = sigmoid(Linear(both vectors, D)); h is the reference's hidden layer where the
    paper has tanh(Linear).
    """
    import torch

    def fuse(head: Any, hidden: "Tensor", inputs: "Vectors") -> "Tensor":
        first, second = hidden.chunk(2, dim=1)
        gate = head.gate(torch.cat([inputs[modality] for modality in shape.widths], dim=1)).sigmoid()
        return torch.lerp(second, first, gate.to(first.dtype))

    if len(shape.widths) == 1:
        return concat(shape)
    return shape.fusion(fuse, shape.D, gate=shape.linear(sum(shape.widths.values()), shape.D))


def bilinear(shape: HeadShape) -> "nn.Module":
    """Multiply a Linear(D, D) of each modality: low-rank bilinear fusion (Kim et al. 2017, arXiv:1610.04325).

    By the biases, a logit has terms of each modality alone beside the products, as in Liu et al. 2018
    (arXiv:1806.00064).
    """
    import torch

    def fuse(head: Any, hidden: "Tensor", inputs: "Vectors") -> "Tensor":
        pairs = zip(head.factors.values(), hidden.chunk(len(head.factors), dim=1), strict=True)
        return torch.stack([factor(units) for factor, units in pairs]).prod(dim=0)

    return shape.fusion(fuse, shape.D, factors={modality: shape.linear(shape.D, shape.D) for modality in shape.widths})


def linear(shape: HeadShape) -> "nn.Module":
    """Classify the concatenated vectors without a hidden layer: D and dropout have no effect."""
    import torch

    from mvsa_tune.models.layers import Head

    def run(head: Any, inputs: "Vectors") -> "Tensor":
        return head.classifier(torch.cat([inputs[modality] for modality in shape.widths], dim=1))

    return Head(run, classifier=shape.linear(sum(shape.widths.values()), shape.classes))


def late(shape: HeadShape) -> "nn.Module":
    """Average the logits of a `concat` head for each modality."""
    import torch

    from mvsa_tune.models.layers import Head

    def run(head: Any, inputs: "Vectors") -> "Tensor":
        return torch.stack([single(inputs) for single in head.heads.values()]).mean(dim=0)

    singles = {modality: concat(replace(shape, widths={modality: width})) for modality, width in shape.widths.items()}
    return Head(run, heads=singles)


BUILT_IN = {
    "concat": HeadSpec(concat),
    "concat-shared-norm": HeadSpec(concat_shared_norm),
    "cross-attention": HeadSpec(cross_attention, ATTENTION_HEADS),
    "co-attention": HeadSpec(co_attention, ATTENTION_HEADS),
    "merged-attention": HeadSpec(merged_attention, ATTENTION_HEADS),
    "gated": HeadSpec(gated),
    "bilinear": HeadSpec(bilinear),
    "linear": HeadSpec(linear),
    "late": HeadSpec(late),
}
HEADS: Registry[HeadSpec] = Registry("mvsa_tune.heads", HeadSpec, BUILT_IN)


def register_head(name: str, spec: HeadSpec) -> None:
    """Add a head for `--head NAME` and `Config(head=NAME)`; InputError if the name is taken or invalid."""
    HEADS.register(name, spec)


def build_head(
    name: str, replicates: int, widths: Mapping[str, int], D: int, classes: int, dropout: float
) -> "nn.Module":
    """Build a stack of heads by name; `layers.initialise` draws its weights."""
    return HEADS[name].build(HeadShape(replicates, widths, D, classes, dropout))


def count_parameters(name: str, widths: Mapping[str, int], D: int, classes: int) -> int:
    """Count the trainable parameters of one replicate."""
    import torch

    with torch.device("meta"):
        head = build_head(name, 1, widths, D, classes, dropout=0.0)
    return sum(parameter.numel() for parameter in head.parameters())
