"""What a sweep that fine-tunes will do, before it does it: encoders, costs, and what its trials share."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import psutil
import torch

from mvsa_tune.config import Config
from mvsa_tune.data.splits import largest_fold
from mvsa_tune.embeddings.embed import check_pictures
from mvsa_tune.encoders.weights import weights_by_name
from mvsa_tune.errors import InputError
from mvsa_tune.finetuning.model import load_towers
from mvsa_tune.finetuning.trainer import FinetuneTask
from mvsa_tune.tune.plan import Plan
from mvsa_tune.tune.prepare import rows_of
from mvsa_tune.tune.probe import Probe, probe


@dataclass(frozen=True)
class FinetunePlan(Plan):
    """A sweep whose trials train the encoders, too.

    Attributes:
        weights: of encoders, by name, where they are not the hub's.
        text: name of the normalisation that tweets go through.
        recomputed: gradient checkpointing.
        checkpoint_seconds: how long a training may go on before its state is kept again.
    """

    weights: Mapping[str, Path] = field(default_factory=dict)
    text: str = "reference"
    recomputed: bool = False
    checkpoint_seconds: float = 60.0

    @property
    def sized(self) -> list[Config]:
        """The configurations of which cost can be told: those whose encoders could be loaded."""
        return self.runnable

    def origins(self, config: Config) -> dict[str, str]:
        """What a configuration's trial starts from, by modality, for its rows: its encoders' weights."""
        return {modality: tower.weights for modality, tower in load_towers(config, self.weights).items()}

    @property
    def finetuned(self) -> dict[str, dict[str, str]]:
        """Weights and preprocessing of the encoders, by `ENCODER MODALITY`."""
        said = {"image": "", "text": f"text {self.text}; "}
        return {
            f"{config.encoders[modality]} {modality}": {
                "weights": tower.weights,
                "preprocessing": f"{said[modality]}{tower.preprocessing}",
            }
            for config in self.runnable
            for modality, tower in load_towers(config, self.weights).items()
        }

    @cached_property
    def probes(self) -> dict[str, Probe]:
        """What the configurations that can run cost, by id; those that differ in nothing that costs are measured once."""
        task = self.task(Path())
        if not torch.cuda.is_available():  # a cluster's are elsewhere
            task = replace(task, device="cpu")
        measured: dict[tuple[object, ...], Probe] = {}
        found = {}
        for config in self.sized:
            shape = (*config.encoders.items(), config.head, config.D, config.frozen, config.precision)
            if shape not in measured:
                measured[shape] = probe(config, task)
            found[config.id] = measured[shape]
        return found

    def parameters(self, config: Config) -> int:
        """Parameters that one replicate trains: the head's, and those of the encoders that are not frozen."""
        return self.probes[config.id].trained

    def seconds(self, configs: Sequence[Config]) -> dict[str, float]:
        """Estimate the seconds that each configuration's trial takes, by id, from a step on a few samples."""
        folds = [one.fold for one in self.replicates]
        train = sum(len(self.split.train[fold]) for fold in folds)
        scored = sum(len(self.split.validation[fold]) + len(self.split.test[fold]) for fold in folds)
        estimates = {}
        for config in configs:
            cost = self.probes[config.id]
            estimates[config.id] = config.epochs * (train * cost.train_seconds + scored * cost.score_seconds)
        return estimates

    def work(self, configs: Sequence[Config]) -> dict[str, float]:
        """The same as `seconds`: what the encoders cost has to be measured."""
        return self.seconds(configs)

    def memory(self) -> int:
        """Estimate the bytes of one worker, which has one replicate in memory at a time.

        The weights twice (one copy stays as it was loaded), gradients and two moments of those that are trained, and what a
        part of a minibatch keeps for its backward pass.
        """
        needs = [0]
        for config in self.sized:
            cost = self.probes[config.id]
            part = min(config.batch_size, largest_fold(self.split.train)) / config.accumulation
            needs.append(int(4 * (2 * cost.weights + 3 * cost.trained) + part * cost.sample_bytes))
        return max(needs)

    def task(self, folder: Path) -> FinetuneTask:
        """What the trials share; `folder` is the sweep's."""
        shared = self.shared()
        del shared["labels"], shared["classes"]
        return FinetuneTask.on(
            self.dataset,
            self.text,
            folder,
            self.weights,
            **shared,
            recomputed=self.recomputed,
            checkpoint_seconds=self.checkpoint_seconds,
        )


def check_memory(plan: FinetunePlan) -> None:
    """InputError where the trials that run at once need more memory than is free: Ray would end them one after another."""
    place, need = plan.placement, plan.memory()
    if place.address:
        place.check_memory(plan.trial_memory)
        return
    if place.gpus:
        free, asked = torch.cuda.mem_get_info()[0], "--gpus-per-trial"
        at_once = max(1, int(1 / place.gpus))
    else:
        free, asked, at_once = psutil.virtual_memory().available, "--cpus-per-trial", place.concurrent
    if need * at_once > free:
        raise InputError(
            f"{at_once} trials at once need about {need * at_once / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} are free: run "
            f"fewer with a larger {asked}, or make each smaller with --accumulation, --frozen or --gradient-checkpointing"
        )


def make_finetune_plan(options: Namespace, bare: Plan) -> FinetunePlan:
    """Check what `prepare.bare_plan` has not; encoders are loaded and every picture is looked at.

    Args:
        options: the flags of `prepare.add_sweep_flags` and `sweeps/finetune.py`.
        bare: what `prepare.bare_plan` made of them.

    Raises:
        InputError: anything is wrong: weights that cannot be had (unless their configurations may be left out), pictures that cannot
            be read (unless those may).
    """
    configs = bare.configs
    weights = weights_by_name(options.weights)
    not_run = _lacking(configs, weights)
    if not_run and not (options.skip_missing and len(not_run) < len(configs)):
        raise InputError(next(iter(not_run.values())))
    skipped = check_pictures(bare.dataset, skip_bad=options.skip_bad)
    left_out = rows_of(bare.dataset, list(skipped))
    plan = FinetunePlan(
        **{**vars(bare), "not_run": not_run, "skipped": skipped, "split": bare.split.without(left_out)},
        weights=weights,
        text=options.text,
        recomputed=options.gradient_checkpointing,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    if not options.dry_run:
        check_memory(plan)
    return plan


def _lacking(configs: Sequence[Config], weights: Mapping[str, Path]) -> dict[str, str]:
    """Why configurations cannot run, by id."""
    lacking = {}
    for config in configs:
        try:
            load_towers(config, weights)
        except InputError as error:
            lacking[config.id] = str(error)
    return lacking
