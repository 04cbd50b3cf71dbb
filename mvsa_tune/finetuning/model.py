"""Encoders and head as one network to fine-tune, and what is done to the encoders first."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mvsa_tune.training.stack import normalised

Inputs = Mapping[str, tuple[Tensor, ...]]


class Network(nn.Module):
    """An encoder for each modality, and a head of one replicate on their vectors."""

    def __init__(self, encoders: Mapping[str, nn.Module], head: nn.Module, normalise: str) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.head = head
        self.normalise = normalise

    def forward(self, inputs: Inputs) -> Tensor:
        """By modality, what its tower's `collate` made of B samples → logits `(B, C)`."""
        vectors = {
            modality: normalised(encoder(*inputs[modality]).float(), self.normalise)  # (B, width)
            for modality, encoder in self.encoders.items()
        }
        logits: Tensor = self.head({modality: one.T[None] for modality, one in vectors.items()})  # (1, C, B)
        return logits[0].T


def layers(encoder: nn.Module) -> list[nn.Module]:
    """The modules that own parameters, in the order in which the encoder names them: its input first, in every library's."""
    return [module for module in encoder.modules() if next(module.parameters(recurse=False), None) is not None]


def freeze(encoder: nn.Module, share: float) -> None:
    """Take the first `share` of an encoder's layers out of training."""
    owners = layers(encoder)
    for module in owners[: round(share * len(owners))]:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)


def train_mode(network: Network, batchnorm: str) -> None:
    """Put a network into training, its encoders' BatchNorm left at its running statistics unless those are `updated`.

    Frozen layers keep theirs in any case. Kept statistics are what makes a minibatch that goes through in parts give the same gradients as
    a whole one, and what lets weights be fine-tuned into which the statistics were folded.
    """
    network.train()
    for module in network.encoders.modules():
        if isinstance(module, _BatchNorm) and (batchnorm == "kept" or not _trained(module)):
            module.eval()


def _trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def recompute(encoder: nn.Module) -> None:
    """Let the repeated blocks of an encoder keep their inputs alone and run again in the backward pass: gradient checkpointing.

    Chen et al. 2016 (arXiv:1604.06174). Blocks are the members of lists and sequences of modules: a transformer's layers, a
    ResNet's stages. What they compute is the same, dropout included.
    """
    for block in _blocks(encoder):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members, with parameters, of every `ModuleList` and `Sequential`."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from (one for one in child if next(one.parameters(), None) is not None)
        else:
            yield from _blocks(child)


class Noise:
    """Torch's own generators as one replicate has them: encoders draw their dropout from those, and know no other."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(self.devices):
            torch.manual_seed(seed)
            self.state = self._current()

    def _current(self) -> list[Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in self.devices)]

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """For the time of a `with`, torch draws from where this replicate had come; those of others are as before after it."""
        with torch.random.fork_rng(self.devices):
            cpu, *gpus = self.state
            torch.set_rng_state(cpu)
            for device, state in zip(self.devices, gpus, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
            self.state = self._current()


def trainable_parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]
