"""Stacked layers: R replicates side by side in one tensor, none of which sees another.

Shapes: R replicates, B samples, D units, M modalities, C classes. Activations are `(R, units, B)`, weights
`(R, out, in)`: `torch.baddbmm` then runs R linear layers in one call, and torch's `batch_norm` and `cross_entropy` take
the stack as a view, without a copy. T tokens of a sample are `(R, D, T × B)`, like T samples, for layers that treat
each token alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from mvsa_tune.models import ATTENTION_HEADS
from mvsa_tune.models.matmul import Hidden, Linear, Slices, by_onednn, mixed, padded


class StackedLinear(nn.Module):
    """R times `nn.Linear`: `(R, in, B)` → `(R, out, B)`.

    Initial weights and biases are those of `nn.Linear`, times `scale_of_weight` and `scale_of_bias`.
    """

    def __init__(
        self, replicates: int, inputs: int, outputs: int, scale_of_weight: float = 1.0, scale_of_bias: float = 1.0
    ) -> None:
        super().__init__()
        self.scales = scale_of_weight, scale_of_bias
        self.weight = nn.Parameter(torch.empty(replicates, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(replicates, outputs, 1))

    def slices(self, device: torch.device) -> Slices | None:
        """Return the weights as the optimizer holds them if products are computed by replicate, else None."""
        return getattr(self.weight, "slices", None) if by_onednn(self.weight) and not mixed(device) else None

    @torch.no_grad()
    def reset(self, generators: Sequence[torch.Generator]) -> None:
        """Draw each replicate's weights from its own generator as `nn.Linear.reset_parameters` does; scale them."""
        bound = 1 / math.sqrt(self.weight.shape[2])
        for weight, bias, generator in zip(self.weight, self.bias, generators, strict=True):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
            nn.init.uniform_(bias, -bound, bound, generator=generator)
        for parameter, scale in zip((self.weight, self.bias), self.scales, strict=True):
            parameter.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        """`(R, in, B)` → `(R, out, B)`."""
        if not mixed(x.device):
            return Linear.apply(self.bias, self.weight, x)
        return torch.baddbmm(padded(self.bias), padded(self.weight), x)[:, : self.weight.shape[1]]


class StackedBatchNorm(nn.Module):
    """R times `nn.BatchNorm1d`: `(R, D, B)` → the same, each replicate normalised over its own B samples.

    The replicates' units are the channels of one `batch_norm`; running statistics have momentum 0.1, as in torch.
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
        statistics = (self.running_mean.view(-1), self.running_var.view(-1))
        affine = (self.weight.view(-1), self.bias.view(-1))
        return F.batch_norm(x.reshape(1, -1, x.shape[2]), *statistics, *affine, training=self.training).view(x.shape)

    @torch.no_grad()
    def observe(self, mean: Tensor, variance: Tensor, samples: int) -> None:
        """Update the running statistics with means and biased variances `(R, D)` over `samples`, as `forward` does."""
        self.running_mean.mul_(0.9).add_(mean, alpha=0.1)
        self.running_var.mul_(0.9).add_(variance, alpha=0.1 * samples / (samples - 1))


class StackedDropout(nn.Module):
    """R times `nn.Dropout`, each replicate's mask drawn from its own generator. Set `generators` before training.

    A unit is dropped where a random 16-bit number is below `rate` × 2^16, so the rate is exact to 1e-5. Drawing 64 bits
    for four units takes a seventh of the time of `bernoulli_` on a CPU.
    """

    generators: Sequence[torch.Generator]

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def mask(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Draw which units stay: `(R, D, B)` int16, 1 for those that do."""
        units = math.prod(shape[1:])
        words = torch.empty(len(self.generators), math.ceil(units / 4), dtype=torch.int64, device=device)
        for row, generator in zip(words, self.generators, strict=True):
            row.random_(-(2**63), None, generator=generator)
        least = self.threshold - 1
        # The same as a comparison, in a third of the time.
        return words.view(torch.int16)[:, :units].clamp_(least, least + 1).sub_(least).view(shape)

    @property
    def threshold(self) -> int:
        """The signed 16-bit number below which a random one drops its unit."""
        return min(max(round(self.rate * 2**16), 1), 2**16 - 1) - 2**15

    def forward(self, x: Tensor) -> Tensor:
        """`(R, D, B)` → the same, in training with units dropped and the others scaled up."""
        if not self.training or self.rate == 0:
            return x
        return x * self.mask(x.shape, x.device).to(x.dtype).mul_(1 / (1 - self.rate))


class StackedTowers(nn.ModuleDict):
    """Each modality's hidden layer, Linear → BatchNorm → ReLU → Dropout; in training they run as one.

    With `shared_norm` all modalities use the first one's BatchNorm, one after another.
    """

    def __init__(
        self, replicates: int, widths: Mapping[str, int], D: int, dropout: float, shared_norm: bool = False
    ) -> None:
        super().__init__()
        for modality, width in widths.items():
            layers: dict[str, nn.Module] = {"linear": StackedLinear(replicates, width, D)}
            if not (shared_norm and len(self)):
                layers["norm"] = StackedBatchNorm(replicates, D)
            self[modality] = nn.ModuleDict({**layers, "dropout": StackedDropout(dropout)})

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`{modality: (R, width, B)}` → `(R, M × D, B)`, modality after modality."""
        vectors = [inputs[modality] for modality in self]
        towers: list[Any] = list(self.values())
        norms = [getattr(tower, "norm", towers[0].norm) for tower in towers]
        if not self.training:
            layers = zip(towers, norms, vectors, strict=True)
            return torch.cat([F.relu(norm(tower.linear(x))) for tower, norm, x in layers], dim=1)
        linears, dropout = [tower.linear for tower in towers], towers[0].dropout
        (R, D), B, device = norms[0].weight.shape, vectors[0].shape[2], vectors[0].device
        shape = torch.Size([R, len(towers) * D, B])
        kept = dropout.mask(shape, device).to(norms[0].weight.dtype) if dropout.rate else None
        hidden, mean, variance = Hidden.apply(
            [linear.slices(device) for linear in linears],
            kept,
            1 / (1 - dropout.rate),
            *(linear.bias for linear in linears),
            *(norm.weight for norm in norms),
            *(norm.bias for norm in norms),
            *vectors,
            *(linear.weight for linear in linears),
        )
        statistics = (values.squeeze(2).split(D, dim=1) for values in (mean, variance))
        for norm, norm_mean, norm_variance in zip(norms, *statistics, strict=True):
            norm.observe(norm_mean, norm_variance, B)
        return hidden


class StackedLayerNorm(nn.Module):
    """R times `nn.LayerNorm` over the units: `(R, D, B)` → the same."""

    def __init__(self, replicates: int, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(replicates, units, 1))
        self.bias = nn.Parameter(torch.zeros(replicates, units, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(R, D, B)` → `(R, D, B)`, in the weights' number format: a mean in bf16 would be coarse."""
        x = x.to(self.weight.dtype)
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return torch.addcmul(self.bias, (x - mean) * torch.rsqrt(variance + 1e-5), self.weight)


class StackedAttention(nn.Module):
    """R times `nn.MultiheadAttention` of 8 heads, in which each of a sample's T tokens looks at all T.

    Over one token the softmax is always 1, so query and key are left out. D must be a multiple of 8. Weights are drawn
    as those of `StackedLinear`, or with `drawn_as_torch` as `nn.MultiheadAttention` draws them: by Xavier's method over
    query, key and value as one matrix, with biases of 0.
    """

    def __init__(self, replicates: int, D: int, tokens: int, drawn_as_torch: bool = False) -> None:
        super().__init__()
        self.tokens = tokens
        scales, of_out = ((math.sqrt(1.5), 0.0), (1.0, 0.0)) if drawn_as_torch else ((1.0, 1.0), (1.0, 1.0))
        if tokens > 1:
            self.query = StackedLinear(replicates, D, D, *scales)
            self.key = StackedLinear(replicates, D, D, *scales)
        self.value = StackedLinear(replicates, D, D, *scales)
        self.out = StackedLinear(replicates, D, D, *of_out)

    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None) -> Tensor:
        """`(R, D, T × B)` each → the same; key and value are the query where they are not given."""
        mixed = self.value(query if value is None else value)
        if self.tokens > 1:
            R, D, T = *query.shape[:2], self.tokens
            heads, share = ATTENTION_HEADS, D // ATTENTION_HEADS
            # (R, heads, D / heads, T, T, B): products written out, since matrices of T × T would be too small for bmm
            queries = self.query(query).view(R, heads, share, T, 1, -1)
            keys = self.key(query if key is None else key).view(R, heads, share, 1, T, -1)
            scores = (queries * keys).sum(dim=2) / math.sqrt(share)  # (R, heads, T, T, B)
            values = mixed.view(R, heads, share, 1, T, -1)
            mixed = (scores.softmax(dim=3).unsqueeze(2) * values).sum(dim=4).view(query.shape)
        return self.out(mixed)


class StackedBlock(nn.Module):
    """A transformer block: self-attention, with a `context` attention to the other modality's token, feed-forward.

    Each sublayer's output is dropped out, added to its input and normalised, as in BERT (Devlin et al. 2019,
    arXiv:1810.04805); the feed-forward layer is 4 D wide, with GELU.
    """

    def __init__(self, replicates: int, D: int, dropout: float, tokens: int, context: bool = False) -> None:
        super().__init__()
        self.attention = StackedAttention(replicates, D, tokens)
        self.attention_norm = StackedLayerNorm(replicates, D)
        if context:
            self.cross = StackedAttention(replicates, D, 1)
            self.cross_norm = StackedLayerNorm(replicates, D)
        self.widen = StackedLinear(replicates, D, 4 * D)
        self.narrow = StackedLinear(replicates, 4 * D, D)
        self.norm = StackedLayerNorm(replicates, D)
        self.dropout = StackedDropout(dropout)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Tokens `(R, D, T × B)`, and the other modality's token `(R, D, B)` where there is one → `(R, D, T × B)`."""
        x = self.attention_norm(x + self.dropout(self.attention(x)))
        if context is not None:
            x = self.cross_norm(x + self.dropout(self.cross(context)))
        return self.norm(x + self.dropout(self.narrow(F.gelu(self.widen(x)))))


class Head(nn.Module):
    """A module whose attributes are layers, or dictionaries of layers, and whose forward pass is a function.

    `run(head, {modality: (R, width, B)})` returns logits `(R, C, B)`. It takes the layers from its argument `head`, so
    that a copy of the head uses its own.
    """

    def __init__(
        self, run: Callable[[Any, Mapping[str, Tensor]], Tensor], **layers: nn.Module | Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer if isinstance(layer, nn.Module) else nn.ModuleDict(layer))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """`{modality: (R, width, B)}` → logits `(R, C, B)`."""
        return self.run(self, inputs)


class ConcatHead(Head):
    """A head with nothing between its hidden layers, `towers`, and its `classifier`."""

    towers: StackedTowers
    classifier: StackedLinear

    def __init__(self, towers: StackedTowers, classifier: StackedLinear) -> None:
        super().__init__(
            lambda head, inputs: head.classifier(head.towers(inputs)), towers=towers, classifier=classifier
        )


def initialise(head: nn.Module, weights: Sequence[torch.Generator], dropout: Sequence[torch.Generator]) -> None:
    """Draw every linear layer's weights and give the dropout layers their generators, one for each replicate."""
    for module in head.modules():
        if isinstance(module, StackedLinear):
            module.reset(weights)
        elif isinstance(module, StackedDropout):
            module.generators = dropout


def run_some(head: nn.Module, which: Sequence[int], inputs: Mapping[str, Tensor]) -> Tensor:
    """Run the replicates `which` of a stack: `{modality: (R', width, B)}` → logits `(R', C, B)`.

    As when the whole stack runs, gradients reach its parameters, and their dropout generators and running statistics
    move on.
    """
    tensors = {name: tensor[which] for name, tensor in (*head.named_parameters(), *head.named_buffers())}
    dropouts = [module for module in head.modules() if isinstance(module, StackedDropout)]
    of_all = [module.generators for module in dropouts]
    for module, generators in zip(dropouts, of_all, strict=True):
        module.generators = [generators[r] for r in which]
    logits = functional_call(head, tensors, (inputs,))
    for module, generators in zip(dropouts, of_all, strict=True):
        module.generators = generators
    if head.training:
        for name, buffer in head.named_buffers():
            buffer[which] = tensors[name]
    return logits
