"""Fine-tuned encoders and heads at work: a sweep's checkpoints, or an exported folder, → labels for pictures and texts. Needs no Ray.

network = load_finetuned("exported", {"mobilenet_v2": Path("mobilenet_v2.pth"), "minilm": Path("minilm")})
probabilities = network(pictures, texts)  # (N, classes), in the order of network.about["labels"]
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.text import NORMALISERS
from mvsa_tune.encoders.towers import ModelTower
from mvsa_tune.errors import InputError
from mvsa_tune.finetuning.checkpoint import Checkpoints, read_tensors
from mvsa_tune.finetuning.data import PreparedSamples
from mvsa_tune.finetuning.model import build_network, load_towers
from mvsa_tune.finetuning.trainer import FineTuner, FinetuneTask
from mvsa_tune.training.result import TrialResult

BLOCK = 32  # samples labelled at once


@dataclass(frozen=True)
class FineTuned:
    """R replicates of one configuration, encoders and head.

    Attributes:
        config: what was trained.
        about: the rest, as the card holds it: `labels` in class order, `encoders` by modality, `replicates`.
        towers: of the encoders, by modality; their weights are the untrained ones.
        files: each replicate's weights.
        prefix: of those weights' names in the files.
    """

    config: Config
    about: Mapping[str, Any]
    towers: Mapping[str, ModelTower]
    files: Sequence[Path]
    prefix: str = ""

    def __call__(self, pictures: Sequence[Path], texts: Sequence[str]) -> NDArray[np.float32]:
        """Picture files and texts as they come, N each → probabilities `(N, C)`, the replicates' mean."""
        mean: NDArray[np.float32] = self.votes(pictures, texts).mean(axis=0)
        return mean

    @torch.no_grad()
    def votes(self, pictures: Sequence[Path], texts: Sequence[str]) -> NDArray[np.float32]:
        """Picture files and texts as they come, N each → each replicate's probabilities `(R, N, C)`, in float32.

        Raises:
            InputError: a picture cannot be read, or a file of weights is damaged or not there.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        normalise = NORMALISERS[text_normalisation(self.about)]
        threads = torch.get_num_threads()
        prepared = PreparedSamples(self.towers, pictures, [normalise(text) for text in texts], threads, device)
        blocks = np.array_split(np.arange(len(pictures)), max(1, -(-len(pictures) // BLOCK)))
        found = []
        for path in self.files:
            network = build_network(self.config, self.towers, len(self.about["labels"]))
            network.load_state_dict(_weights(path, self.prefix))
            network.to(device).eval()
            logits = [network(inputs).float() for inputs in prepared.batches(blocks)]
            found.append(torch.cat(logits).softmax(dim=1).cpu().numpy())
        return np.stack(found)


def text_normalisation(about: Mapping[str, Any]) -> str:
    """Name of the normalisation that tweets went through; any where no text was seen."""
    told = about["encoders"].get("text", {}).get("preprocessing", "text raw")
    return str(told.partition("; ")[0].removeprefix("text "))


def _weights(path: Path, prefix: str) -> dict[str, Tensor]:
    if not path.exists():
        raise InputError(
            f"no fine-tuned weights in {path}: were they deleted? the same sweep under another --name makes them again"
        )
    return read_tensors(path, prefix)[0]


def open_finetuned(
    config: Config, about: Mapping[str, Any], files: Sequence[Path], weights: Mapping[str, Path], prefix: str = ""
) -> FineTuned:
    """Load the encoders that fine-tuned weights go into; InputError if they are not those of then."""
    towers = load_towers(config, weights)
    for modality, tower in towers.items():
        then, name = about["encoders"][modality], config.encoders[modality]
        if tower.weights != then["weights"] or not then["preprocessing"].endswith(tower.preprocessing):
            raise InputError(
                f"{name} is not what was fine-tuned ({then['weights']}; {then['preprocessing']}), but {tower.weights}; "
                f"{tower.preprocessing}: give that with --weights {name}=PATH"
            )
    return FineTuned(config, about, towers, files, prefix)


def best_files(sweep: Path, config: Config, replicates: Sequence[Replicate]) -> list[Path]:
    """Where a sweep keeps each replicate's weights of its best epoch."""
    return [Checkpoints(sweep, config).best(one) for one in replicates]


def refit_on_all(config: Config, task: FinetuneTask, outcome: TrialResult) -> tuple[list[Path], int]:
    """Fine-tune on all labelled samples, one replicate a seed, for the median of the best epochs found.

    What is there already is gone on from. Returns the files, and the epochs.
    """
    epochs = int(np.median(outcome.best_epoch))
    seeds = tuple(Replicate(seed) for seed in dict.fromkeys(one.seed for one in task.replicates))
    whole = replace(task, sweep=task.sweep / "refit", split=task.split.whole(), replicates=seeds, milestones=())
    tuner = FineTuner(config, whole, seeds)
    while tuner.advance(epochs) is None:
        pass
    return [tuner.checkpoints.last(one) for one in seeds], epochs


def load_finetuned(folder: Path | str, weights: Mapping[str, Path]) -> FineTuned:
    """Read what `export` wrote of a fine-tuned configuration.

    Args:
        folder: where it is.
        weights: of the encoders before fine-tuning, by name, where those are not the hub's: for their architecture and tokenizer.

    Raises:
        InputError: it is not there, or the encoders are other ones.
    """
    place = Path(folder)
    try:
        card = json.loads((place / "card.json").read_text(encoding="utf-8"))
        config, files = Config(**card["config"]), [place / name for name in card["files"]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"no exported fine-tuned configuration in {place} ({error})") from None
    return open_finetuned(config, card, files, weights)
