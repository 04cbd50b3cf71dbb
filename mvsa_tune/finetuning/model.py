"""The network that is fine-tuned: encoders and a head of one replicate; and the samples prepared for it.

towers = load_towers(config, {})
network = build_network(config, towers, classes=3)
samples = PreparedSamples(towers, pictures, texts, threads=2, device=torch.device("cpu"))
logits = [network(inputs) for inputs in samples.batches([np.arange(32), np.arange(32, 64)])]  # (32, 3) each
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mvsa_tune.config import Config
from mvsa_tune.embeddings.pipeline import prefetch, prepare_picture, preparing_threads
from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.encoders.towers import ModelTower
from mvsa_tune.errors import InputError
from mvsa_tune.models.heads import build_head
from mvsa_tune.training.trainer import normalised

Inputs = Mapping[str, tuple[Tensor, ...]]  # by modality, what the tower's `collate` returns
AHEAD = 4  # batches whose pictures are prepared before they are needed


def load_towers(config: Config, weights: Mapping[str, Path]) -> dict[str, ModelTower]:
    """Load a configuration's encoders onto the CPU, by modality; a process loads each only once.

    Raises:
        InputError: an encoder is unknown, lacks the modality or trainable weights, or its weights cannot be loaded.
    """
    return {modality: _load_tower(name, modality, weights.get(name)) for modality, name in config.encoders.items()}


@lru_cache(maxsize=8)
def _load_tower(name: str, modality: str, weights: Path | None) -> ModelTower:
    tower = find_encoder(name, modality).load(modality, weights, torch.device("cpu"))
    if not isinstance(tower, ModelTower) or not list(tower.model.parameters()):
        raise InputError(f"encoder {name} has no weights that could be fine-tuned")
    return tower


@dataclass(eq=False)
class PreparedSamples:
    """N samples for the towers of one configuration. Texts are tokenised once; threads prepare pictures ahead."""

    towers: Mapping[str, ModelTower]  # by modality
    pictures: Sequence[Path]
    texts: Sequence[str]  # normalised
    threads: int
    device: torch.device  # where the batches go

    def __post_init__(self) -> None:
        self.tokens = [self.towers["text"].prepare(text) for text in self.texts] if "text" in self.towers else []

    def batches(self, rows: Sequence[NDArray[np.int64]]) -> Iterator[Inputs]:
        """Yield the network's inputs for the row numbers of each batch; InputError if a picture cannot be read."""
        with preparing_threads(self.threads) as pool:
            ahead = AHEAD * max(map(len, rows), default=0)
            ready = prefetch(pool, self._prepare, (int(row) for batch in rows for row in batch), ahead)
            for batch in rows:
                items = [next(ready) for _ in batch]
                yield {
                    modality: tuple(map(self._move, tower.collate([item[modality] for item in items])))
                    for modality, tower in self.towers.items()
                }

    def _prepare(self, row: int) -> dict[str, Any]:
        item: dict[str, Any] = {"text": self.tokens[row]} if self.tokens else {}
        if "image" in self.towers:
            item["image"] = prepare_picture(self.towers["image"], self.pictures[row])
        return item

    def _move(self, tensor: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


class Network(nn.Module):
    """An encoder for each modality, and a head of one replicate on their vectors."""

    def __init__(self, encoders: Mapping[str, nn.Module], head: nn.Module, normalise: str) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.head = head
        self.normalise = normalise

    def forward(self, inputs: Inputs) -> Tensor:
        """Return the logits `(B, C)` of B samples."""
        vectors = {
            modality: normalised(encoder(*inputs[modality]).float(), self.normalise).T[None]  # (1, width, B)
            for modality, encoder in self.encoders.items()
        }
        return self.head(vectors)[0].T


def build_network(config: Config, towers: Mapping[str, ModelTower], classes: int) -> Network:
    """Copy the towers' models and build a head of one replicate, whose weights are not yet drawn."""
    widths = {modality: tower.width for modality, tower in towers.items()}
    head = build_head(config.head, 1, widths, config.D, classes, config.dropout)
    return Network({name: deepcopy(tower.model) for name, tower in towers.items()}, head, config.normalise)


def layers(encoder: nn.Module) -> list[nn.Module]:
    """Return the modules that hold parameters themselves, from the input on."""
    return [module for module in encoder.modules() if next(module.parameters(recurse=False), None) is not None]


def freeze(encoder: nn.Module, share: float) -> None:
    """Exclude the first `share` of an encoder's layers from training."""
    modules = layers(encoder)
    for module in modules[: round(share * len(modules))]:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)


def trainable_parameters(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for module in modules for parameter in module.parameters() if parameter.requires_grad]


def train_mode(network: Network, batchnorm: str) -> None:
    """Switch a network to training; with `kept` the encoders' BatchNorm goes on using its running statistics.

    Frozen BatchNorm layers always do. With kept statistics a minibatch cut into parts gives the gradients of the whole
    one, and encoders whose weights contain the statistics can be fine-tuned.
    """
    network.train()
    for module in network.encoders.modules():
        if isinstance(module, _BatchNorm) and (batchnorm == "kept" or not trainable_parameters([module])):
            module.eval()


def recompute(encoder: nn.Module) -> None:
    """Switch on gradient checkpointing (Chen et al. 2016, arXiv:1604.06174); the numbers stay the same.

    The encoder's repeated blocks, a transformer's layers or a ResNet's stages, keep only their inputs and run again in
    the backward pass.
    """
    for block in _blocks(encoder):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost members, with parameters, of every `ModuleList` and `Sequential`."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from (block for block in child if next(block.parameters(), None) is not None)
        else:
            yield from _blocks(child)


def random_states(seed: int, device: torch.device) -> list[Tensor]:
    """Return the states that a seed gives torch's global generators: the CPU's, then a GPU's if that is the device."""
    devices = dict.fromkeys([torch.device("cpu"), device])
    return [torch.Generator(device).manual_seed(seed).get_state() for device in devices]


@contextmanager
def drawing_from(states: list[Tensor], device: torch.device) -> Iterator[None]:
    """Set torch's global generators, which encoders draw their dropout from, to `states` during a `with`.

    Afterwards `states` are updated for the next call, and the generators are as they were before.
    """
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, device)
        yield
        states[:] = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, gpus)]
