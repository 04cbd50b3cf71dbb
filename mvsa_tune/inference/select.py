"""The chosen configuration of a sweep, trained again.

A sweep keeps numbers, not weights: a training takes seconds, and is the same every time.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.embeddings.cache import Cache, default_folder, find_caches
from mvsa_tune.errors import InputError
from mvsa_tune.finetuning.trainer import NETWORK, FinetuneTask
from mvsa_tune.inference.finetuned import FineTuned, best_files, open_finetuned, refit_on_all, text_normalisation
from mvsa_tune.inference.head import Head, describe, make_head, read_head, save_head
from mvsa_tune.machine import keep_freed_memory
from mvsa_tune.results.provenance import code_version
from mvsa_tune.results.store import Store, sweep_data
from mvsa_tune.training.result import NO_ROW, TrialResult
from mvsa_tune.training.task import Task
from mvsa_tune.training.trainer import StackTrainer

Caches = Mapping[tuple[str, str], Cache]


def open_data(store: Store, config: Config, data: Path | None, cache: Path | None) -> tuple[Dataset, Caches]:
    """The samples and vectors that a configuration of a sweep was trained on.

    Args:
        store: the sweep.
        config: whose vectors.
        data: where the samples are; None for where they were.
        cache: where the caches are; None for the data's own folder.

    Raises:
        InputError: they are not there, or are not those of then.
    """
    dataset = sweep_data(store, data)
    place = cache or default_folder(dataset.folder)
    caches, missing = find_caches(dataset, place, [config])
    for (encoder, modality), how in missing.items():
        raise InputError(
            f"no {modality} vectors of {encoder} in {place}: say where they are with --cache, or make them: {how}"
        )
    for (encoder, modality), found in caches.items():
        then = store.manifest.vectors.get(f"{encoder} {modality}", "none")
        if found.manifest.sha256 != then:
            raise InputError(
                f"{found.path} is not what {store.folder} was trained on: its SHA-256 is {found.manifest.sha256[:12]}, the "
                f"sweep's {then[:12]}; say where those vectors are with --cache"
            )
    return dataset, caches


def chosen_head(store: Store, config: Config, data: Path | None, cache: Path | None, *, refit: bool = False) -> Head:
    """A configuration's head, trained again the first time and kept in the sweep's `heads/`.

    Each replicate is as of its best epoch on the validation samples. With `refit` one a seed, trained on all labelled samples
    for the median of those epochs. `data` and `cache` are `open_data`'s.

    Raises:
        InputError: what it was trained on is not at hand, or the kept file is damaged.
    """
    path = store.folder / "heads" / f"{config.id}{'-refit' if refit else ''}.safetensors"
    if path.exists():
        return read_head(path)
    dataset, caches = open_data(store, config, data, cache)
    head = _train(store, config, dataset, caches, refit=refit)
    save_head(head, path)
    return head


def chosen_network(
    store: Store, config: Config, dataset: Dataset, weights: Mapping[str, Path], *, refit: bool = False
) -> FineTuned:
    """A fine-tuned configuration's replicates, from their checkpoints.

    Each is as of its best epoch on the validation samples. With `refit` one a seed, fine-tuned on all labelled samples for the
    median of those epochs, as long as that takes; its checkpoints are in the sweep's `refit/`.

    Args:
        store: the sweep.
        config: one of its configurations.
        dataset: the sweep's data.
        weights: of the encoders before fine-tuning, by name, where they are not the hub's.
        refit: train anew.

    Raises:
        InputError: the encoders cannot be loaded, or are not those of then.
    """
    recorded, replicates, split = store.result(config.id), store.manifest.replicates, store.split()
    encoders = {
        modality: {"encoder": name, **store.manifest.finetuned[f"{name} {modality}"]}
        for modality, name in config.encoders.items()
    }
    about = describe(
        config,
        labels=list(store.manifest.classes),
        encoders=encoders,
        replicates=[dataclasses.asdict(one) for one in replicates],
        split=split.name,
        training={
            "samples": [len(split.train[one.fold]) for one in replicates],
            "validation_samples": recorded.distinct("rows"),
            "test_samples": recorded.distinct("test_rows"),
            "best_epochs": recorded.best_epoch.tolist(),
        },
        data_fingerprint=dataset.fingerprint,
        sweep=store.folder.name,
        code=code_version(),
    )
    network = open_finetuned(config, about, best_files(store.folder, config, replicates), weights)
    if not refit:
        return network
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task = FinetuneTask.on(
        dataset,
        text_normalisation(about),
        store.folder,
        weights,
        split=split,
        replicates=replicates,
        device=device,
        threads=torch.get_num_threads(),
    )
    files, epochs = refit_on_all(config, task, recorded)
    seeds = [{"seed": seed, "fold": 0} for seed in dict.fromkeys(one.seed for one in replicates)]
    whole = split.whole()
    training = {"samples": len(whole.train[0]), "epochs": epochs}
    about = {**about, "replicates": seeds, "split": whole.name, "training": training}
    return FineTuned(config, about, network.towers, files, NETWORK)


def replay(trainer: StackTrainer) -> tuple[dict[str, Tensor], TrialResult]:
    """Train to the last epoch; return the weights with each replicate as of its best epoch, and the outcome."""
    kept = {name: tensor.clone() for name, tensor in trainer.head.state_dict().items()}
    for epoch in range(1, trainer.config.epochs + 1):
        outcome = trainer.advance(epoch)
        improved = torch.from_numpy(outcome.best_epoch == epoch).to(trainer.device)
        for name, tensor in trainer.head.state_dict().items():
            kept[name][improved] = tensor[improved]
    return kept, outcome


def _train(store: Store, config: Config, dataset: Dataset, caches: Caches, *, refit: bool) -> Head:
    recorded = store.result(config.id)
    replicates, split = store.manifest.replicates, store.split()
    epochs = int(np.median(recorded.best_epoch))
    if refit:
        replicates = tuple(Replicate(seed) for seed in dict.fromkeys(one.seed for one in replicates))
        split = split.whole()
    task = Task(
        caches=caches,
        labels=np.array(dataset.labels, dtype=np.int64),
        classes=len(dataset.classes),
        split=split,
        replicates=replicates,
        device="cuda" if recorded.device != "cpu" and torch.cuda.is_available() else "cpu",
        threads=torch.get_num_threads(),
    )
    print(f"training {config.name} again: it took {recorded.seconds:,.0f} s in the sweep", file=sys.stderr, flush=True)
    keep_freed_memory()
    trainer = task.build(config, replicates)
    if refit:
        trainer.advance(epochs)
        state = trainer.head.state_dict()
        training: dict[str, Any] = {"samples": len(split.train[0]), "epochs": epochs}
    else:
        state, outcome = replay(trainer)
        training = {
            "samples": [len(split.train[one.fold]) for one in replicates],
            "validation_samples": recorded.distinct("rows"),
            "test_samples": recorded.distinct("test_rows"),
            "best_epochs": recorded.best_epoch.tolist(),
            "differs_from_recorded": int((outcome.best != recorded.best).sum()),
            "recorded_predictions": int((recorded.rows != NO_ROW).sum()),
        }
    manifests = {modality: caches[encoder, modality].manifest for modality, encoder in config.encoders.items()}
    about = describe(
        config,
        labels=list(dataset.classes),
        widths={modality: manifest.width for modality, manifest in manifests.items()},
        encoders={
            modality: {
                name: getattr(manifest, name)
                for name in ("encoder", "weights", "preprocessing", "source", "dtype", "sha256")
            }
            for modality, manifest in manifests.items()
        },
        replicates=[dataclasses.asdict(one) for one in replicates],
        split=split.name,
        training=training,
        data_fingerprint=dataset.fingerprint,
        sweep=store.folder.name,
        code=code_version(),
    )
    return make_head(about, state)
