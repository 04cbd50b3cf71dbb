"""What a sweep will do, before it does it: configurations, caches, resources, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.cache import Cache, cached_encoders, how_to_make, open_cache
from mvsa_tune.cluster import cpu_count, gpu_count
from mvsa_tune.config import Asha, Config, Replicate
from mvsa_tune.dataset import Dataset
from mvsa_tune.encoders import ENCODERS, find_encoder
from mvsa_tune.errors import InputError
from mvsa_tune.space import Search
from mvsa_tune.splits import Split


@dataclass(frozen=True)
class Placement:
    """What a trial gets of the machine.

    Attributes:
        cpus: CPU cores, and threads, of a trial.
        gpus: share of a GPU, or whole GPUs, of a trial.
        concurrent: how many trials fit at once.
    """

    cpus: int
    gpus: float
    concurrent: int

    @property
    def device(self) -> str:
        """Where trials train: `cuda` if they get a GPU, or part of one, else `cpu`."""
        return "cuda" if self.gpus else "cpu"


@dataclass(frozen=True)
class Plan:
    """A sweep that can be run.

    Attributes:
        dataset: the samples.
        split: which of them train and validate.
        replicates: seeds and folds of each trial.
        configs: all that were asked for, in order; in a search, corners of its space, to check and estimate by.
        caches: those that exist, by encoder and modality.
        not_run: why a configuration cannot run, by its id.
        skipped: samples that are in no part of the split, and why: an encoder could not read them.
        placement: what a trial gets of the machine.
        asha: when trials are stopped early; None for never.
        max_failures: how often a trial that fails is tried again.
        search: the search, where configurations are not given but looked for.
        protocol: whose defaults were taken.
    """

    dataset: Dataset
    split: Split
    replicates: tuple[Replicate, ...]
    configs: tuple[Config, ...]
    caches: Mapping[tuple[str, str], Cache]
    not_run: Mapping[str, str]
    skipped: Mapping[str, str]
    placement: Placement
    asha: Asha | None = None
    max_failures: int = 1
    search: Search | None = None
    protocol: str = "documents"

    @property
    def epochs(self) -> int:
        """Those of a whole trial."""
        return max(config.epochs for config in self.configs)

    @property
    def milestones(self) -> tuple[int, ...]:
        """The epochs at which a trial may be stopped."""
        return self.asha.milestones(self.epochs) if self.asha else ()

    @property
    def runnable(self) -> list[Config]:
        """The configurations whose caches are there."""
        return [config for config in self.configs if config.id not in self.not_run]

    def widths(self, config: Config) -> dict[str, int]:
        """Length of a configuration's vectors by modality: the caches', else the encoders'; 0 where neither tells."""
        widths = {}
        for modality, name in config.encoders.items():
            if cache := self.caches.get((name, modality)):
                widths[modality] = cache.manifest.width
            else:
                encoder = find_encoder(name, fetch=False)
                widths[modality] = encoder.widths.get(modality, 0) if encoder else 0
        return widths

    def origins(self, config: Config) -> dict[str, str]:
        """What a configuration's trial starts from, by modality, for its rows: the first digits of its vectors' SHA-256."""
        return {
            modality: self.caches[name, modality].manifest.sha256[:12] for modality, name in config.encoders.items()
        }

    @property
    def finetuned(self) -> dict[str, dict[str, str]]:
        """Weights and preprocessing of encoders that are fine-tuned, by `ENCODER MODALITY`; empty where they are frozen."""
        return {}

    def gone_past(self, folder: Path, configs: Sequence[Config]) -> dict[str, NDArray[np.float64]]:
        """`Outcome.scores` of each trial that goes on from a checkpoint, by id, as far as the scheduler has let it pass."""
        return {}

    def shared(self) -> dict[str, Any]:
        """What every kind of task tells its trials."""
        return {
            "labels": np.array(self.dataset.labels, dtype=np.int64),
            "classes": len(self.dataset.classes),
            "split": self.split,
            "replicates": self.replicates,
            "device": self.placement.device,
            "threads": self.placement.cpus,
            "milestones": self.milestones,
        }

    def seconds(self, configs: Sequence[Config]) -> dict[str, float]:
        """Estimate the seconds that each configuration's trial takes, by id."""
        from mvsa_tune.costs import trial_seconds  # torch takes a while to import: only what needs it waits for it

        return trial_seconds(self, configs)

    def work(self, configs: Sequence[Config]) -> dict[str, float]:
        """What each configuration's trial takes against the others', by id, in no unit and without measuring."""
        from mvsa_tune.costs import trial_work

        return trial_work(self, configs)

    def memory(self) -> int:
        """Estimate the bytes of memory of one worker."""
        from mvsa_tune.costs import memory_bytes

        return memory_bytes(self)

    def parameters(self, config: Config) -> int:
        """Parameters that one replicate trains."""
        from mvsa_tune.heads import count_parameters

        return count_parameters(config.head, self.widths(config), config.D, len(self.dataset.classes))

    @property
    def sized(self) -> list[Config]:
        """The configurations whose vectors' lengths are known: those of which cost can be told."""
        return [config for config in self.configs if all(self.widths(config).values())]


def find_caches(
    dataset: Dataset, folder: Path, configs: Sequence[Config]
) -> tuple[dict[tuple[str, str], Cache], dict[tuple[str, str], str]]:
    """Open the caches that configurations need; return those there are, and for the others the command that makes them.

    Raises:
        InputError: an encoder is unknown, has no such modality, or a cache does not fit the data.
    """
    caches, missing = {}, {}
    for encoder, modality in dict.fromkeys((e, m) for config in configs for m, e in config.encoders.items()):
        cache = open_cache(dataset, folder, encoder, modality)
        if cache:
            caches[encoder, modality] = cache
            continue
        _check_known(encoder, modality, folder)
        missing[encoder, modality] = how_to_make(dataset, folder, encoder, modality)
    return caches, missing


def _check_known(name: str, modality: str, folder: Path) -> None:
    if encoder := find_encoder(name, fetch=False):
        if encoder.widths and modality not in encoder.widths:
            raise InputError(f"encoder {name} has no {modality} side; write pairs as IMAGE_ENCODER+TEXT_ENCODER")
        return
    cached = cached_encoders(folder)
    if name in cached:
        raise InputError(f"there is no {modality} cache of {name} in {folder}; pairs are IMAGE_ENCODER+TEXT_ENCODER")
    raise InputError(
        f"unknown encoder {name}: known are {', '.join(dict.fromkeys([*ENCODERS, *cached]))}, and open names such as timm:NAME "
        "or hf:FOLDER; vectors made elsewhere become an encoder by `python -m mvsa_tune import --encoder NAME …`"
    )


def place(trials: int, cpus_per_trial: int | None, gpus_per_trial: float | None) -> Placement:
    """Choose what a trial gets, from what the machine has and what was asked.

    By default one CPU a trial, more where there are fewer trials than CPUs; on a machine with GPUs as many trials share one
    as it has CPUs for, up to four.

    Raises:
        InputError: more was asked for than the machine has.
    """
    cpus, gpus = cpu_count(), gpu_count()
    for flag, value, least in (("cpus", cpus_per_trial, 1), ("gpus", gpus_per_trial, 0)):
        if value is not None and not least <= value < float("inf"):
            raise InputError(f"--{flag}-per-trial {value:g}: must be {least} or more")
    if cpus_per_trial is not None and cpus_per_trial > cpus:
        raise InputError(f"--cpus-per-trial {cpus_per_trial}: this machine has {cpus} CPUs; no trial could ever start")
    if gpus_per_trial is not None and gpus_per_trial > gpus:
        raise InputError(
            f"--gpus-per-trial {gpus_per_trial:g}: this machine has {gpus} GPUs; no trial could ever start"
        )
    if gpus_per_trial is None:
        gpus_per_trial = 1 / min(4, max(1, cpus // gpus)) if gpus else 0.0
    per_gpu = int(1 / gpus_per_trial + 1e-9) if 0 < gpus_per_trial < 1 else 1
    by_gpu = gpus * per_gpu if gpus_per_trial <= 1 else int(gpus // gpus_per_trial)
    slots = max(1, min(trials, by_gpu) if gpus_per_trial else min(trials, cpus))
    share = cpus_per_trial or max(1, cpus // slots)
    return Placement(share, gpus_per_trial, max(1, min(slots, cpus // share)))
