"""A trained head: the replicates' weights and what they are, in one file. Pure torch: it labels without Ray."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsa_tune.config import Config
from mvsa_tune.errors import InputError
from mvsa_tune.files import write_whole
from mvsa_tune.models.heads import build_head
from mvsa_tune.training.trainer import normalised

# Samples labelled at once.
BLOCK = 4096


@dataclass(frozen=True)
class Head:
    """R replicates of one configuration, trained. Applied in float32 on the CPU, whatever they were trained in.

    Attributes:
        config: what was trained.
        about: the rest, as the file and the card hold it: `labels` in class order, `widths` and `encoders` by modality,
            `replicates`, where the numbers come from.
        stack: the weights, in evaluation mode.
    """

    config: Config
    about: Mapping[str, Any]
    stack: nn.Module

    def __call__(self, vectors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Raw vectors by modality, `(N, width)` each → probabilities `(N, C)`, the replicates' mean."""
        mean: NDArray[np.float32] = self.votes(vectors).mean(axis=0)
        return mean

    @torch.no_grad()
    def votes(self, vectors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Raw vectors by modality, `(N, width)` each → each replicate's probabilities `(R, N, C)`.

        Raises:
            InputError: a modality is missing, or the vectors are not of the widths it was trained on, or not equally many.
        """
        for modality, width in self.about["widths"].items():
            shape = np.shape(vectors[modality]) if modality in vectors else "none"
            if len(shape) != 2 or shape[1] != width:
                raise InputError(f"{modality} vectors must be (N, {width}), not {shape}")
        counts = {modality: len(vectors[modality]) for modality in self.config.modalities}
        if len(set(counts.values())) > 1:
            raise InputError(f"a sample is a row of each modality's vectors, but there are {counts}")
        count = max(counts.values())
        blocks = []
        for start in range(0, count, BLOCK):
            block = {
                modality: torch.from_numpy(np.array(vectors[modality][start : start + BLOCK], dtype=np.float32))
                for modality in self.config.modalities
            }
            blocks.append(self.probabilities(block).numpy())
        return np.concatenate(blocks, axis=1)

    def probabilities(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Tensors by modality, `(N, width)` each → `(R, N, C)`."""
        replicates = len(self.about["replicates"])
        inputs = {}
        for modality in self.config.modalities:
            one = normalised(vectors[modality], self.config.normalise)
            inputs[modality] = one.T.expand(replicates, -1, -1)  # (R, width, N)
        return self.stack(inputs).softmax(dim=1).transpose(1, 2)


def make_head(about: Mapping[str, Any], state: Mapping[str, Tensor]) -> Head:
    """Put weights into the head that `about` describes."""
    config = Config(**about["config"])
    stack = build_head(
        config.head, len(about["replicates"]), about["widths"], config.D, len(about["labels"]), config.dropout
    )
    stack.load_state_dict(dict(state))
    return Head(config, about, stack.eval())


def describe(config: Config, **about: Any) -> dict[str, Any]:
    """What a head's file says of it."""
    return {"config": dataclasses.asdict(config), **about}


def save_head(head: Head, path: Path) -> None:
    """Write a head as safetensors, whole or not at all; what it is stands in the file's metadata."""
    state = {name: tensor.contiguous() for name, tensor in head.stack.state_dict().items()}
    content = safetensors.torch.save(state, {"head": json.dumps(dict(head.about))})
    write_whole(path, lambda file: file.write(content))


def read_head(path: Path) -> Head:
    """Read what `save_head` wrote.

    Raises:
        InputError: there is no such file, or it is damaged or not a head.
    """
    if not path.is_file():
        raise InputError(f"no head in {path}: make one with python -m mvsa_tune export results/NAME --out FOLDER")
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            about = json.loads(file.metadata()["head"])
            return make_head(about, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} is damaged, or no head of this version ({str(error)[:80]}): delete it") from None
