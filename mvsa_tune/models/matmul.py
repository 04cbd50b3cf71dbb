"""The matrix products of stacked layers, by the library that is fastest on the CPU.

On a CPU, torch multiplies float32 matrices by MKL (elsewhere by another BLAS), and can do so by oneDNN. Which is faster
depends on the instructions that the CPU has: MKL uses AVX-512 on Intel's CPUs alone, oneDNN on all (bench/matmul.py).
oneDNN is called for each replicate, so that a replicate's numbers do not depend on its stack.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEAST = 16  # with fewer outputs or terms, one call for the whole stack is faster than one for each replicate
BLAS = "MKL" if torch.backends.mkl.is_available() else "BLAS"
# The faster library by the instructions that torch uses on the CPU; where nothing is measured, torch's own choice.
FASTER = {"AVX512": "oneDNN", "AVX2": BLAS}
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
ONEDNN = HAS_ONEDNN and FASTER.get(torch.backends.cpu.get_cpu_capability()) == "oneDNN"


def library(device: torch.device) -> str:
    """Return the name of the library that multiplies float32 matrices on a device; others round differently."""
    return "cuBLAS" if device.type == "cuda" else "oneDNN" if ONEDNN else BLAS


def padded(left: Tensor) -> Tensor:
    """Pad M of `(R, M, K)` to a multiple of four by rows of zeros.

    MKL's rounding depends on whether a result begins at a multiple of 16 bytes. With a multiple of four outputs every
    replicate's does, as when it is alone.
    """
    missing = -left.shape[1] % 4
    return F.pad(left, (0, 0, 0, missing)) if missing else left


def by_onednn(left: Tensor) -> bool:
    """Return whether oneDNN multiplies `(…, M, K)` by `(…, N, K)`, which no graph to export may name."""
    usable = ONEDNN and not torch.compiler.is_compiling()
    return usable and left.dtype == torch.float32 and left.device.type == "cpu" and min(left.shape[-2:]) >= LEAST


def multiply_each(left: Iterable[Tensor], right: Iterable[Tensor]) -> list[Tensor]:
    """Multiply each pair by oneDNN, rows by rows: `(M, K)` and `(N, K)` → `(M, N)`, of any strides."""
    linear = torch.ops.mkldnn._linear_pointwise
    return [linear(a, b, None, "none", [], "") for a, b in zip(left, right, strict=True)]


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Multiply stacks by the faster library, rows by rows: `(R, M, K)` and `(R, N, K)` → `(R, M, N)`."""
    if not by_onednn(left):
        return torch.bmm(padded(left), right.transpose(1, 2))[:, : left.shape[1]]
    return torch.stack(multiply_each(left.unbind(), right.unbind()))


def mixed(device: torch.device) -> bool:
    """Return whether autocast is on: a forward pass then runs in mixed precision."""
    return torch.is_autocast_enabled(device.type)


class Linear(torch.autograd.Function):
    """`torch.baddbmm(bias, weight, x)`: `(R, out, 1)`, `(R, out, in)`, `(R, in, B)` → `(R, out, B)`."""

    @staticmethod
    def forward(ctx: Any, bias: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        """Multiply."""
        ctx.save_for_backward(weight, x)
        return multiply(weight, x.mT).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the gradients of bias, weight and, where it is needed, x."""
        weight, x = ctx.saved_tensors
        gradient = gradient.contiguous()  # that of a part of a concatenation is not: oneDNN takes 200 times as long
        to_x = multiply(weight.mT, gradient.mT).to(x.dtype) if ctx.needs_input_grad[2] else None
        return gradient.sum(dim=2, keepdim=True), multiply(gradient, x), to_x


@dataclass(frozen=True)
class Slices:
    """A stack of weights as its optimizer holds it: a tensor and, after a backward pass, a gradient for each replicate.

    Stacking the gradients would take a sixth of the time of their products (bench/LOG.md).
    """

    weights: Sequence[Tensor]
    gradients: list[Tensor]


class Hidden(torch.autograd.Function):
    """M modalities' hidden layers in training, Linear → BatchNorm → ReLU → Dropout, as one operation.

    It passes over the units half as often as separate layers do. BatchNorm cancels the linear layer's bias, whose
    gradient is therefore 0; separate layers give it rounding noise, which Adam scales up to full steps.
    """

    @staticmethod
    def forward(
        ctx: Any, slices: Sequence[Slices | None], kept: Tensor | None, scale: float, *tensors: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the layers.

        Args:
            ctx: autograd's.
            slices: by modality, the weights as an optimizer holds them; their gradients then go there, not to autograd.
            kept: `(R, M × D, B)`, 1 where dropout keeps a unit, 0 elsewhere; None if it keeps all.
            scale: what dropout multiplies kept units by.
            tensors: M each of the linear layers' biases `(R, D, 1)`, BatchNorm's weights and biases `(R, D)`, inputs
                `(R, in, B)`, and the linear layers' weights `(R, D, in)`.

        Returns:
            Units `(R, M × D, B)`, modality after modality, and the mean and biased variance `(R, M × D, 1)` of
            BatchNorm's input.
        """
        biases, gains, shifts, inputs, weights = _in_groups(tensors, len(slices))
        gain = torch.cat(gains, dim=1).mul_(scale).unsqueeze_(2)
        shift = torch.cat(shifts, dim=1).mul_(scale).unsqueeze_(2)
        narrow = torch.bfloat16 if mixed(gain.device) else gain.dtype
        inputs, weights = ([tensor.to(narrow) for tensor in group] for group in (inputs, weights))
        with torch.autocast(gain.device.type, enabled=False):
            if all(slices):
                products = [multiply_each(s.weights, x.mT.unbind()) for s, x in zip(slices, inputs, strict=True) if s]
                units = torch.cat([product for replicate in zip(*products, strict=True) for product in replicate])
                units = units.view(*gain.shape[:2], -1)
            else:
                units = gain.new_empty(*gain.shape[:2], inputs[0].shape[2])
                for of_modality, weight, x in zip(units.chunk(len(slices), dim=1), weights, inputs, strict=True):
                    of_modality.copy_(multiply(weight, x.mT))
            mean = units.mean(dim=2, keepdim=True)
            units.sub_(mean)
            variance = torch.linalg.vector_norm(units, dim=2, keepdim=True).square_().div_(units.shape[2])
            inverse = (variance + 1e-5).rsqrt_()
            out = (units * (inverse * gain)).add_(shift).clamp_min_(0)
            if kept is not None:
                out.mul_(kept)
        ctx.slices, ctx.scale = slices, scale
        ctx.save_for_backward(gain, units, inverse, out, *inputs, *weights)
        mean.add_(torch.cat(biases, dim=1))
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the inputs of `forward`."""
        gain, units, inverse, out, *rest = ctx.saved_tensors
        M, (R, D, B) = len(ctx.slices), units.shape
        inputs, weights = _in_groups(rest, M)
        # No gradient where the output is 0, by ReLU or by dropout.
        gradient = torch.ops.aten.threshold_backward(gradient, out, 0)
        zeros = torch.zeros(R * D, dtype=units.dtype, device=units.device)
        channels, saved = (1, R * D, B), (None, None, zeros, inverse.view(-1))  # the units are centred
        to_units, to_gain, to_shift = torch.ops.aten.native_batch_norm_backward(
            gradient.view(channels), units.view(channels), gain.view(-1), *saved, True, 1e-5, [True, True, True]
        )
        to_norm = [tensor.mul_(ctx.scale).view(R, D).chunk(M, dim=1) for tensor in (to_gain, to_shift)]
        to_linear = zeros.view(R, D, 1).chunk(M, dim=1)
        to_inputs: list[Tensor | None] = [None] * M
        to_weights: list[Tensor | None] = [None] * M
        for m, (units_m, x, weight) in enumerate(
            zip(to_units.view(R, D, B).chunk(M, dim=1), inputs, weights, strict=True)
        ):
            to_product = units_m.to(x.dtype)
            if ctx.needs_input_grad[3 + 3 * M + m]:
                to_inputs[m] = multiply(weight.mT, to_product.mT)
            if slices := ctx.slices[m]:
                slices.gradients[:] = multiply_each(to_product.unbind(), x.unbind())
            else:
                to_weights[m] = multiply(to_product, x).to(gain.dtype)
        return None, None, None, *to_linear, *to_norm[0], *to_norm[1], *to_inputs, *to_weights


def _in_groups(tensors: Sequence[Tensor], size: int) -> list[list[Tensor]]:
    """Cut tensors into groups of `size`."""
    return [list(tensors[start : start + size]) for start in range(0, len(tensors), size)]
