"""What a sweep will do, before it does it: configurations, caches, resources, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvsa_tune.cluster.resources import Placement
from mvsa_tune.config import Asha, Config, Replicate
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.data.splits import Split
from mvsa_tune.embeddings.cache import Cache
from mvsa_tune.encoders.registry import find_encoder, is_encoder
from mvsa_tune.training.task import Task
from mvsa_tune.tune.space import Search

if TYPE_CHECKING:
    from mvsa_tune.finetuning.trainer import FinetuneTask

# Bytes of a worker process beside its trial: Python, Ray and torch.
WORKER_MEMORY = 600 * 2**20


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
        placement: what a trial gets of the machine, or of the nodes.
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
    protocol: str = "reference"

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
                known = find_encoder(name, fetch=False).widths if is_encoder(name) else {}
                widths[modality] = known.get(modality, 0)
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

    def task(self, folder: Path) -> "Task | FinetuneTask":
        """What the trials share; `folder` is the sweep's."""
        return Task(caches=self.caches, **self.shared())

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
        from mvsa_tune.tune.costs import trial_seconds  # torch takes a while to import: only what needs it waits for it

        return trial_seconds(self, configs)

    def work(self, configs: Sequence[Config]) -> dict[str, float]:
        """What each configuration's trial takes against the others', by id, in no unit and without measuring."""
        from mvsa_tune.tune.costs import trial_work

        return trial_work(self, configs)

    def memory(self) -> int:
        """Estimate the bytes of memory of one worker."""
        from mvsa_tune.tune.costs import memory_bytes

        return memory_bytes(self)

    @property
    def trial_memory(self) -> int:
        """Bytes that a trial's process is given on a cluster: as asked, else the estimate."""
        return self.placement.memory or WORKER_MEMORY + self.memory()

    def parameters(self, config: Config) -> int:
        """Parameters that one replicate trains."""
        from mvsa_tune.models.heads import count_parameters

        return count_parameters(config.head, self.widths(config), config.D, len(self.dataset.classes))

    @property
    def sized(self) -> list[Config]:
        """The configurations whose vectors' lengths are known: those of which cost can be told."""
        return [config for config in self.configs if all(self.widths(config).values())]
