"""Trained configurations that predict: a `Head` on embeddings, or `FineTuned` encoders and head. Ray is not needed.

head = load_head("exported")
probabilities = head({"image": vectors, "text": vectors})  # (N, C), classes in the order of head.about["labels"]

network = load_finetuned("exported", {"mobilenet_v2": Path("mobilenet_v2.pth"), "minilm": Path("minilm")})
probabilities = network(pictures, texts)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mvsa_tune.config import Config
from mvsa_tune.data.text import NORMALISERS, TREATMENTS
from mvsa_tune.encoders.towers import ModelTower
from mvsa_tune.errors import InputError
from mvsa_tune.finetuning.checkpoint import read_tensors, write_tensors
from mvsa_tune.finetuning.model import PreparedSamples, build_network, load_towers
from mvsa_tune.models.heads import build_head
from mvsa_tune.training.trainer import normalised

VECTOR_BLOCK, SAMPLE_BLOCK = 4096, 32  # samples predicted at once by a head, by a network
KEY = "head"  # of `Head.about` in the file's metadata


@dataclass(frozen=True)
class Head:
    """R trained replicates of one configuration. They predict in float32 on the CPU, however they were trained."""

    config: Config
    about: Mapping[str, Any]  # `labels` in class order, `widths` and `encoders` by modality, `replicates`, `training`
    stack: nn.Module  # the weights, in evaluation mode

    def __call__(self, vectors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the replicates' mean probabilities `(N, C)` for raw vectors by modality, `(N, width)` each."""
        return np.asarray(self.votes(vectors).mean(axis=0))

    @torch.no_grad()
    def votes(self, vectors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return each replicate's probabilities `(R, N, C)` for raw vectors by modality, `(N, width)` each.

        Raises:
            InputError: a modality is missing, its vectors have another width, or modalities differ in N.
        """
        for modality, width in self.about["widths"].items():
            shape = np.shape(vectors[modality]) if modality in vectors else "none"
            if len(shape) != 2 or shape[1] != width:
                raise InputError(f"{modality} vectors must be (N, {width}), not {shape}")
        counts = {modality: len(vectors[modality]) for modality in self.config.modalities}
        if len(set(counts.values())) > 1:
            raise InputError(f"each modality needs a vector for every sample, but there are {counts}")
        blocks = []
        for start in range(0, max(counts.values()), VECTOR_BLOCK):
            rows = {name: np.array(vectors[name][start : start + VECTOR_BLOCK], dtype=np.float32) for name in counts}
            blocks.append(self.probabilities({name: torch.from_numpy(block) for name, block in rows.items()}).numpy())
        return np.concatenate(blocks, axis=1)

    def probabilities(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Return probabilities `(R, N, C)` for tensors by modality, `(N, width)` each."""
        inputs = {}
        for modality in self.config.modalities:
            columns = normalised(vectors[modality], self.config.normalise).T
            inputs[modality] = columns.expand(len(self.about["replicates"]), -1, -1)  # (R, width, N)
        return self.stack(inputs).softmax(dim=1).transpose(1, 2)

    def save(self, path: Path) -> None:
        """Write the head as safetensors, whole or not at all, with `about` in the file's metadata."""
        write_tensors(path, self.stack.state_dict(), self.about, KEY)


def make_head(about: Mapping[str, Any], state: Mapping[str, Tensor]) -> Head:
    """Build the head that `about` describes and load its weights."""
    config, widths, classes = Config(**about["config"]), about["widths"], len(about["labels"])
    stack = build_head(config.head, len(about["replicates"]), widths, config.D, classes, config.dropout)
    stack.load_state_dict(dict(state))
    return Head(config, about, stack.eval())


def load_head(path: Path | str) -> Head:
    """Read an exported head's folder or file; InputError if there is none, or the file is damaged."""
    file = Path(path) / "head.safetensors" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise InputError(f"no head in {file}: make one with mvsa-tune export results/NAME --out FOLDER")
    state, about = read_tensors(file, key=KEY)
    try:
        return make_head(about, state)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{file} is damaged or of another version ({str(error)[:80]}): delete it") from None


@dataclass(frozen=True)
class FineTuned:
    """R fine-tuned replicates of one configuration, encoders and head."""

    config: Config
    about: Mapping[str, Any]  # `labels` in class order, `encoders` by modality, `replicates`, `training`
    towers: Mapping[str, ModelTower]  # the pretrained encoders, by modality
    files: Sequence[Path]  # the weights of each replicate
    prefix: str = ""  # of the weights' names in those files

    def __call__(self, pictures: Sequence[Path], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the replicates' mean probabilities `(N, C)` for N picture files and raw texts."""
        return np.asarray(self.votes(pictures, texts).mean(axis=0))

    @torch.no_grad()
    def votes(self, pictures: Sequence[Path], texts: Sequence[str]) -> NDArray[np.float32]:
        """Return each replicate's probabilities `(R, N, C)` for N picture files and raw texts.

        Raises:
            InputError: a picture cannot be read, or a file of weights is missing or damaged.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        normalised_texts = list(map(NORMALISERS[text_normalisation(self.about)], texts))
        samples = PreparedSamples(self.towers, pictures, normalised_texts, torch.get_num_threads(), device)
        blocks = np.array_split(np.arange(len(pictures)), max(1, -(-len(pictures) // SAMPLE_BLOCK)))
        votes = []
        for path in self.files:
            network = build_network(self.config, self.towers, len(self.about["labels"]))
            network.load_state_dict(self.weights(path))
            network.to(device).eval()
            logits = torch.cat([network(inputs).float() for inputs in samples.batches(blocks)])
            votes.append(logits.softmax(dim=1).cpu().numpy())
        return np.stack(votes)

    def weights(self, path: Path) -> dict[str, Tensor]:
        """Read a replicate's weights; InputError if the file is missing or damaged."""
        if not path.exists():
            raise InputError(f"no fine-tuned weights in {path}: run the sweep again under another --name to make them")
        return read_tensors(path, self.prefix)[0]


def text_normalisation(about: Mapping[str, Any]) -> str:
    """Return the name of the text normalisation; the default one if no text was used.

    Raises:
        InputError: the texts were normalised by rules of an older version.
    """
    preprocessing: str = about["encoders"].get("text", {}).get("preprocessing", TREATMENTS["reference"])
    names = {treatment: name for name, treatment in TREATMENTS.items()}
    treatment = preprocessing.partition("; ")[0]
    if treatment not in names:
        raise InputError(f"trained on `{treatment}`, rules that this version has not: embed and train again")
    return names[treatment]


def open_finetuned(
    config: Config, about: Mapping[str, Any], files: Sequence[Path], weights: Mapping[str, Path], prefix: str = ""
) -> FineTuned:
    """Load a fine-tuned configuration; InputError if the pretrained encoders are not those that were fine-tuned."""
    towers = load_towers(config, weights)
    for modality, tower in towers.items():
        then, name = about["encoders"][modality], config.encoders[modality]
        if tower.weights != then["weights"] or not then["preprocessing"].endswith(tower.preprocessing):
            raise InputError(
                f"{name} is not the encoder that was fine-tuned: then {then['weights']}; {then['preprocessing']}, now "
                f"{tower.weights}; {tower.preprocessing}: give the former with --weights {name}=PATH"
            )
    return FineTuned(config, about, towers, files, prefix)


def load_finetuned(folder: Path | str, weights: Mapping[str, Path]) -> FineTuned:
    """Open an exported fine-tuned configuration.

    `weights` are files or folders of the pretrained encoders, by name; the others are loaded from the hub.

    Raises:
        InputError: there is no such export, or the encoders are not those that were fine-tuned.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        config, files = Config(**card["config"]), [folder / name for name in card["files"]]
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"no exported fine-tuned configuration in {folder} ({error})") from None
    return open_finetuned(config, card, files, weights)
