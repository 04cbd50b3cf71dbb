"""From a configuration of a finished sweep to a model that predicts: its head, or its fine-tuned networks.

store = Store(Path("results/grid"))
head = chosen_head(store, choose(store, "best"))

A sweep over frozen encoders keeps no weights: its heads are trained again, in seconds and with the same numbers.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvsa_tune.config import Config, Replicate
from mvsa_tune.data.dataset import Dataset
from mvsa_tune.embeddings.cache import Cache, default_folder, how_to_make, open_cache
from mvsa_tune.errors import InputError
from mvsa_tune.finetuning.checkpoint import Checkpoints
from mvsa_tune.finetuning.trainer import NETWORK, FinetuneTask
from mvsa_tune.inference.trained import FineTuned, Head, load_head, make_head, open_finetuned, text_normalisation
from mvsa_tune.machine import keep_freed_memory
from mvsa_tune.results.manifest import code_version
from mvsa_tune.results.store import Store, sweep_data
from mvsa_tune.training.result import NO_ROW, TrialResult
from mvsa_tune.training.task import Task
from mvsa_tune.training.trainer import StackTrainer

# The fields of a cache's manifest that a head's card repeats.
VECTORS = ("encoder", "weights", "preprocessing", "source", "dtype", "sha256")


def sweep_caches(store: Store, config: Config, dataset: Dataset, cache: Path | None) -> Mapping[tuple[str, str], Cache]:
    """Open the caches that a configuration was trained on, by encoder and modality; `cache` is their folder, if moved.

    Raises:
        InputError: a cache is missing or has changed since.
    """
    swept = Path(str(store.settings().get("cache") or ""))
    folder = cache or (swept if swept.name and swept.is_dir() else default_folder(dataset.folder))
    caches = {}
    for modality, encoder in config.encoders.items():
        vectors = open_cache(dataset, folder, encoder, modality)
        if vectors is None:
            how = how_to_make(dataset, folder, encoder, modality)
            raise InputError(
                f"no {modality} vectors of {encoder} in {folder}: say where they are with --cache, or make them: {how}"
            )
        now, then = vectors.manifest.sha256, store.manifest.vectors.get(f"{encoder} {modality}", "none")
        if now != then:
            raise InputError(
                f"{vectors.path} is not what {store.folder} was trained on: its SHA-256 is {now[:12]}, the sweep's "
                f"{then[:12]}; say where those vectors are with --cache"
            )
        caches[encoder, modality] = vectors
    return caches


def recipe(store: Store, config: Config, *, refit: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how to train a configuration as its sweep did, or to refit it: the fields of a task, and the card.

    A refit is trained on all labelled samples, one replicate for each seed, for the median number of best epochs.
    """
    recorded, replicates, split = store.result(config.id), store.replicates(config.id), store.split()
    training: dict[str, Any] = {
        "samples": [len(split.train[replicate.fold]) for replicate in replicates],
        "validation_samples": recorded.distinct("rows"),
        "test_samples": recorded.distinct("test_rows"),
        "best_epochs": recorded.best_epoch.tolist(),
    }
    if refit:
        replicates = tuple(Replicate(seed) for seed in dict.fromkeys(replicate.seed for replicate in replicates))
        split = split.whole()
        training = {"samples": len(split.train[0]), "epochs": int(np.median(recorded.best_epoch))}
    card = {
        "config": asdict(config),
        "labels": list(store.manifest.classes),
        "replicates": [asdict(replicate) for replicate in replicates],
        "split": split.name,
        "training": training,
        "data_fingerprint": store.manifest.data_fingerprint,
        "sweep": store.folder.name,
        "code": code_version(),
    }
    return {"split": split, "replicates": replicates, "threads": torch.get_num_threads()}, card


def chosen_head(
    store: Store, config: Config, data: Path | None = None, cache: Path | None = None, *, refit: bool = False
) -> Head:
    """Return a configuration's head, each replicate as of its best epoch; for `refit` see `recipe`.

    It is trained the first time, and again when the trial has more replicates; the sweep's `heads/` keeps it. `data`
    and `cache` are needed if the sweep's data and caches have moved.

    Raises:
        InputError: the sweep's data or vectors are missing, or the kept file is damaged.
    """
    fields, card = recipe(store, config, refit=refit)
    path = store.folder / "heads" / f"{config.id}{'-refit' if refit else ''}.safetensors"
    if path.exists():
        about = (head := load_head(path)).about
        if about["replicates"] == card["replicates"] and card["training"].items() <= about["training"].items():
            return head
    dataset, recorded = sweep_data(store, data), store.result(config.id)
    caches = sweep_caches(store, config, dataset, cache)
    device = "cuda" if recorded.device != "cpu" and torch.cuda.is_available() else "cpu"
    labels = np.array(dataset.labels, dtype=np.int64)
    task = Task(caches=caches, labels=labels, classes=len(dataset.classes), device=device, **fields)
    print(f"training {config.name} again: it took {recorded.seconds:,.0f} s in the sweep", file=sys.stderr, flush=True)
    keep_freed_memory()
    trainer = task.build(config, fields["replicates"])
    if refit:
        trainer.train(card["training"]["epochs"])
        state = trainer.head.state_dict()
    else:
        state, result = replay(trainer)
        card["training"]["differs_from_recorded"] = int((result.best != recorded.best).sum())
        card["training"]["recorded_predictions"] = int((recorded.rows != NO_ROW).sum())
    manifests = {modality: asdict(caches[name, modality].manifest) for modality, name in config.encoders.items()}
    card["widths"] = {modality: manifest["width"] for modality, manifest in manifests.items()}
    card["encoders"] = {name: {key: manifest[key] for key in VECTORS} for name, manifest in manifests.items()}
    head = make_head(card, state)
    head.save(path)
    return head


def replay(trainer: StackTrainer) -> tuple[dict[str, Tensor], TrialResult]:
    """Train to the last epoch; return the weights, each replicate's as of its best epoch, and the result."""
    kept = {name: tensor.clone() for name, tensor in trainer.head.state_dict().items()}
    for epoch in range(1, trainer.config.epochs + 1):
        trainer.train(epoch)
        result = trainer.result()
        improved = torch.from_numpy(result.best_epoch == epoch).to(trainer.device)
        for name, tensor in trainer.head.state_dict().items():
            kept[name][improved] = tensor[improved]
    return kept, result


def chosen_network(
    store: Store, config: Config, data: Path | None, weights: Mapping[str, Path], *, refit: bool = False
) -> FineTuned:
    """Return a fine-tuned configuration's replicates, each as of its best epoch.

    `weights` are files or folders of the pretrained encoders, by name; the others are loaded from the hub. With `refit`
    (see `recipe`) the replicates are fine-tuned first, which takes as long as a trial and continues from checkpoints in
    the sweep's `refit/`; `data` is needed if the sweep's data has moved.

    Raises:
        InputError: the encoders cannot be loaded or are not those that were fine-tuned, or the data is missing.
    """
    fields, card = recipe(store, config, refit=refit)
    card["encoders"] = {
        modality: {"encoder": name, **store.manifest.finetuned[f"{name} {modality}"]}
        for modality, name in config.encoders.items()
    }
    folder = store.folder / "refit" if refit else store.folder
    checkpoints = Checkpoints(folder, config)
    files = list(map(checkpoints.last if refit else checkpoints.best, fields["replicates"]))
    network = open_finetuned(config, card, files, weights, NETWORK if refit else "")
    if refit:
        dataset, text = sweep_data(store, data), text_normalisation(card)
        device, epochs = "cuda" if torch.cuda.is_available() else "cpu", card["training"]["epochs"]
        task = FinetuneTask.on(dataset, text, folder, weights, device=device, **fields)
        for file, trained in zip(files, task.build(config, fields["replicates"]).epochs, strict=True):
            if trained > epochs:  # the median was higher when the trial had fewer replicates
                file.unlink()
        trainer = task.build(config, fields["replicates"])
        while trainer.advance(epochs) is None:
            pass
    return network
