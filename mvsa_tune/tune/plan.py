"""A plan: what a sweep will run, made of its flags and checked before anything starts."""

import math
import sys
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvsa_tune.cluster.resources import Placement, place
from mvsa_tune.cluster.session import address_of, nodes_of, this_machine
from mvsa_tune.config import Asha, Config, Replicate, from_flags, join_pair
from mvsa_tune.data.dataset import Dataset, read_data
from mvsa_tune.data.demo import make_demo_set
from mvsa_tune.data.splits import Split, make_split
from mvsa_tune.data.text import TREATMENTS
from mvsa_tune.dimensions import Choice
from mvsa_tune.embeddings.cache import Cache, default_folder, find_caches
from mvsa_tune.embeddings.embed import check_samples, embed
from mvsa_tune.embeddings.pipeline import Settings
from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.encoders.weights import weights_by_name
from mvsa_tune.errors import InputError
from mvsa_tune.files import is_file_name
from mvsa_tune.machine import gpu_count
from mvsa_tune.protocols import PROTOCOLS
from mvsa_tune.training.task import Task
from mvsa_tune.tune.seeds import SeedCounts
from mvsa_tune.tune.space import PAIR, Search, corners

if TYPE_CHECKING:
    from mvsa_tune.finetuning.trainer import FinetuneTask

START_SECONDS = 8.5  # of a sweep besides its trials, from start to tables, on 2 cores (bench/startup.py)
WORKER_MEMORY = 600 * 2**20  # bytes of a worker process besides its trial: Python, Ray and torch


@dataclass(frozen=True)
class Finetuning:
    """How the encoders are fine-tuned: the arguments of `FinetuneTask.on`."""

    weights: Mapping[str, Path]
    text: str
    recomputed: bool
    checkpoint_seconds: float


@dataclass(frozen=True)
class Cost:
    """An estimate of what a trial takes."""

    parameters: int  # that one replicate trains
    memory: int  # bytes of its worker, torch and cached vectors not counted
    seconds: float  # from its first epoch to its last


@dataclass(frozen=True)
class Plan:
    """A sweep that can be run.

    Attributes:
        dataset: the samples.
        split: the rows of each part, samples that cannot be read left out.
        replicates: seeds and folds of each trial.
        further: more of them, for configurations between which they decide, in order.
        configs: the configurations of a grid, in order; of a search, the corners of its space, for estimates.
        placement: CPUs, GPUs and memory of a trial.
        caches: the embedding caches, by encoder and modality.
        widths: lengths of the vectors, by encoder and modality; 0 where they are not known.
        finetuning: how encoders are fine-tuned; None where they are frozen.
        finetuned: weights and preprocessing of fine-tuned encoders, by `ENCODER MODALITY`.
        not_run: why a configuration cannot run, by its id.
        skipped: why a sample cannot be read, by its guid.
        costs: estimates by configuration id; empty until something needs them.
        asha: when trials are stopped early; None for never.
        max_failures: how often a failed trial is tried again.
        search: the search; None for a grid.
        protocol: name of the protocol.
    """

    dataset: Dataset
    split: Split
    replicates: tuple[Replicate, ...]
    configs: tuple[Config, ...]
    placement: Placement
    caches: Mapping[tuple[str, str], Cache] = field(default_factory=dict)
    widths: Mapping[tuple[str, str], int] = field(default_factory=dict)
    finetuning: Finetuning | None = None
    finetuned: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    not_run: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    asha: Asha | None = None
    max_failures: int = 1
    further: tuple[Replicate, ...] = ()
    search: Search | None = None
    protocol: str = "reference"

    @property
    def epochs(self) -> int:
        """The epochs of the longest trial."""
        return max(config.epochs for config in self.configs)

    @property
    def milestones(self) -> tuple[int, ...]:
        """The epochs after which the scheduler may stop a trial."""
        return self.asha.milestones(self.epochs) if self.asha else ()

    @property
    def runnable(self) -> list[Config]:
        """The configurations that can run."""
        return [config for config in self.configs if config.id not in self.not_run]

    @property
    def all_replicates(self) -> tuple[Replicate, ...]:
        """The first and the further replicates, in the order in which they are trained."""
        return self.replicates + self.further

    @property
    def seed_counts(self) -> SeedCounts:
        """How many seeds each configuration begins with, and how many it has at most."""
        return SeedCounts(*(len({replicate.seed for replicate in of}) for of in (self.replicates, self.all_replicates)))

    @property
    def largest_stack(self) -> int:
        """Replicates of the largest stack; a round adds half of the seeds there are, so at most a third of the last."""
        return max(len(self.replicates), math.ceil(len(self.all_replicates) / 3))

    @property
    def memory(self) -> int:
        """Bytes that a worker needs besides Python, Ray and torch: all vectors, and its largest trial."""
        vectors = 4 * len(self.dataset.labels) * sum(self.widths.values())
        return vectors + max((cost.memory for cost in self.costs.values()), default=0)

    @property
    def trial_memory(self) -> int:
        """Bytes that a trial reserves on a cluster: those requested, else the estimate."""
        return self.placement.memory or WORKER_MEMORY + self.memory

    def origins(self, config: Config) -> dict[str, str]:
        """Return what identifies a trial's vectors, or its encoders' weights, by modality."""
        if self.finetuning:
            return {kind: self.finetuned[f"{name} {kind}"]["weights"] for kind, name in config.encoders.items()}
        return {kind: self.caches[name, kind].manifest.sha256[:12] for kind, name in config.encoders.items()}

    def task(self, folder: Path) -> "Task | FinetuneTask":
        """Return what all trials share; `folder` is the results folder."""
        shared: dict[str, Any] = {
            "split": self.split,
            "replicates": self.replicates,
            "device": self.placement.device,
            "threads": self.placement.cpus,
            "milestones": self.milestones,
        }
        if self.finetuning:
            from mvsa_tune.finetuning.trainer import FinetuneTask  # imports torch

            return FinetuneTask.on(self.dataset, sweep=folder, **vars(self.finetuning), **shared)
        labels = np.array(self.dataset.labels, dtype=np.int64)
        return Task(self.caches, labels=labels, classes=len(self.dataset.classes), **shared)


def whole_seconds(plan: Plan, trials: Sequence[float]) -> float:
    """Return the estimate of what a sweep takes from the command to its end, given that of each trial, in seconds."""
    longest, at_once = max(trials, default=0.0), plan.placement.concurrent
    return START_SECONDS + max(longest, sum(trials) / at_once)


def make_plan(options: Namespace, requested: Sequence[Config] | Search) -> Plan:
    """Make a plan and check all of it that needs no encoder.

    Args:
        options: the flags of `flags.parse_sweep`; without `--split` they get the protocol's split for the data.
        requested: the configurations of a grid, or a search.

    Raises:
        InputError: something is wrong, or caches are missing and the sweep may not go on without them.
    """
    search = requested if isinstance(requested, Search) else None
    configs = corners(requested) if isinstance(requested, Search) else requested
    if search and options.seeds.first < options.seeds.last:
        raise InputError(f"--seeds {options.seeds}: a search trains its finalists on --confirm-seeds; give one number")
    if not is_file_name(options.name):
        raise InputError(f"--name {options.name}: it names a folder in --results, so write no path")
    if not 0 <= options.max_failures <= 100:
        raise InputError(f"--max-failures {options.max_failures}: must be from 0 to 100")
    finetuning = _finetuning(options, configs) if configs[0].finetuned else None
    asha = from_flags(Asha, options) if options.scheduler == "asha" else None
    if asha:
        asha.milestones(max(config.epochs for config in configs))  # checks the brackets
    trials = (search.budget.trials or 1000) if search else len(configs)
    placement = _place(options, trials, finetuning)
    if options.demo:
        make_demo_set(options.data)
    dataset = read_data(options)
    if (dataset.dropped or dataset.notes) and not (options.quiet or options.dry_run):
        print("\n".join(dataset.description()))
    seeds = options.seed_list or range(42, 42 + options.seeds.last)
    protocol = PROTOCOLS[options.protocol]
    options.split = options.split or protocol.split_for(options.data, dataset.label_counts, finetuned=bool(finetuning))
    split, replicates = split_and_replicates(options.split, dataset, seeds)
    first = _first_replicates(options, split, replicates)
    plan = Plan(
        dataset,
        split,
        first,
        tuple(configs),
        placement,
        finetuning=finetuning,
        asha=asha,
        max_failures=options.max_failures,
        further=replicates[len(first) :],
        search=search,
        protocol=options.protocol,
    )
    return plan if finetuning else _with_caches(plan, options)


def _finetuning(options: Namespace, configs: Sequence[Config]) -> Finetuning:
    if not options.checkpoint_seconds >= 0:
        raise InputError(f"--checkpoint-seconds {options.checkpoint_seconds:g}: must be 0 or more")
    if options.gradient_checkpointing and any(config.batchnorm == "updated" for config in configs):
        raise InputError(
            "--gradient-checkpointing with --batchnorm updated: each minibatch would update the statistics twice; "
            "leave the former out, or give --batchnorm kept"
        )
    weights = weights_by_name(options.weights)
    return Finetuning(weights, options.text, options.gradient_checkpointing, options.checkpoint_seconds)


def split_and_replicates(text: str, dataset: Dataset, seeds: Sequence[int]) -> tuple[Split, tuple[Replicate, ...]]:
    """Return the split that `--split` asks for, and the replicates: each seed on each fold, or on its own fold.

    Raises:
        InputError: the seeds are wrong, the split cannot be made, or the replicates are too many.
    """
    if len(seeds) > 1000 or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**31 for seed in seeds or [-1]):
        raise InputError("--seeds, --seed-list: from 1 to 1,000 seeds, none twice, each at least 0 and below 2^31")
    split = make_split(text, dataset, seeds)
    replicates = tuple(Replicate(seed, fold) for seed in seeds for fold in split.folds_of(seed))
    if len(replicates) > 1000:
        raise InputError(
            f"--split {split.name}: {len(replicates):,} replicates of each trial are too many: take fewer --seeds, for "
            "1,000 at most"
        )
    return split, replicates


def _first_replicates(options: Namespace, split: Split, replicates: tuple[Replicate, ...]) -> tuple[Replicate, ...]:
    """Return the replicates that each configuration begins with; InputError if it cannot get further ones later."""
    seeds: SeedCounts = options.seeds
    if seeds.first == seeds.last:
        return replicates
    if options.seed_list:
        raise InputError(f"--seed-list with --seeds {seeds}: give one of them")
    if split.by_seed:
        raise InputError(
            f"--seeds {seeds} with --split {split.name}: each seed draws other samples, so configurations with more "
            "seeds cannot be compared with others; give one number, or another split"
        )
    return replicates[: seeds.first * len(split.folds_of(replicates[0].seed))]


def without(split: Split, dataset: Dataset, skipped: Collection[str]) -> Split:
    """Return the split without samples of these guids."""
    return split.without({row for row, guid in enumerate(dataset.guids) if guid in skipped})


def _place(options: Namespace, trials: int, finetuning: Finetuning | None) -> Placement:
    """Return what a trial gets of this machine or of the cluster; InputError if no trial could ever start."""
    gib = options.memory_per_trial
    if gib is not None and not 0 < gib < float("inf"):
        raise InputError(f"--memory-per-trial {gib:g}: must be greater than 0")
    address = address_of(options)
    nodes = nodes_of(address, options.nodes) if address else [this_machine()]
    gpus = options.gpus_per_trial
    if gpus is None and finetuning and gpu_count():
        gpus = 1.0
    return place(trials, options.cpus_per_trial, gpus, nodes, address, None if gib is None else int(gib * 2**30))


def _with_caches(plan: Plan, options: Namespace) -> Plan:
    """Add the embedding caches, missing ones made if that is requested; configurations without are left out."""
    dataset, folder = plan.dataset, options.cache or default_folder(plan.dataset.folder)
    caches, missing = find_caches(dataset, folder, plan.configs)
    if missing and ((options.embed and not options.dry_run) or options.demo):
        for name in dict.fromkeys(name for name, _ in missing):
            embed(dataset, folder, name, Settings(quiet=options.quiet, address=plan.placement.address))
        caches, missing = find_caches(dataset, folder, plan.configs)
    lacking = {
        config.id: [f"no {kind} cache of {name}" for kind, name in config.encoders.items() if (name, kind) in missing]
        for config in plan.configs
    }
    not_run = {config_id: " and ".join(reasons) for config_id, reasons in lacking.items() if reasons}
    if missing:
        _report_missing(missing, len(not_run), len(plan.configs), options)
    widths = {key: cache.manifest.width for key, cache in caches.items()}
    for name, modality in missing:
        widths[name, modality] = find_encoder(name, fetch=False).widths.get(modality, 0)
    skipped = {guid: reason for cache in caches.values() for guid, reason in cache.manifest.skipped.items()}
    split = without(plan.split, dataset, skipped)
    plan = replace(plan, caches=caches, widths=widths, not_run=not_run, skipped=skipped, split=split)
    if plan.search and plan.runnable:
        pairs = Choice(tuple(dict.fromkeys(map(join_pair, plan.runnable))))
        plan = replace(plan, search=replace(plan.search, space={**plan.search.space, PAIR: pairs}))
    return plan


def _report_missing(missing: Mapping[tuple[str, str], str], count: int, total: int, options: Namespace) -> None:
    """Print which caches are missing and how to make them; InputError if the sweep may not go on without them."""
    commands = "".join(f"\n  {name}, {modality}: {command}" for (name, modality), command in missing.items())
    message = f"{count} of {total} configurations have no embedding cache:{commands}\n"
    if options.dry_run or (options.skip_missing and count < total):
        print(message, file=sys.stderr)
        return
    others = ", or leave those configurations out with --skip-missing" if count < total else ""
    raise InputError(f"{message}Make them first (--embed runs the `embed` commands){others}")


def with_encoders(plan: Plan, options: Namespace) -> Plan:
    """Load the encoders of a plan that fine-tunes them and check every sample.

    Raises:
        InputError: weights cannot be loaded or samples cannot be read, and the sweep may not go on without them.
    """
    from mvsa_tune.finetuning.model import load_towers  # imports torch

    assert plan.finetuning is not None
    finetuned, not_run = {}, {}
    for config in plan.configs:
        try:
            towers = load_towers(config, plan.finetuning.weights)
        except InputError as error:
            not_run[config.id] = str(error)
            continue
        for modality, tower in towers.items():
            text = f"{TREATMENTS[plan.finetuning.text]}; " if modality == "text" else ""
            finetuned[f"{config.encoders[modality]} {modality}"] = {
                "weights": tower.weights,
                "preprocessing": f"{text}{tower.preprocessing}",
            }
    if not_run and not (options.skip_missing and len(not_run) < len(plan.configs)):
        raise InputError(next(iter(not_run.values())))
    skipped = check_samples(plan.dataset, {"image", "text"}, skip_bad=options.skip_bad)
    split = without(plan.split, plan.dataset, skipped)
    return replace(plan, finetuned=finetuned, not_run=not_run, skipped=skipped, split=split)
