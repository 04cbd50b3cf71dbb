"""Labels for the unlabelled samples of a sweep's data set, or for new pairs, by a configuration of the sweep.

predictions = predict(store, choose(store, "best"), data=Path("new_pairs"))
predictions.write(Path("predicted.txt"), probabilities=True)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Dataset, Sample, read_dataset
from mvsa_tune.data.text import TREATMENTS
from mvsa_tune.embeddings.cache import Cache, default_folder
from mvsa_tune.embeddings.embed import BATCH, embed
from mvsa_tune.embeddings.pipeline import Settings, Task, embed_blocks
from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import write_text_whole
from mvsa_tune.inference.select import chosen_head, chosen_network, sweep_caches
from mvsa_tune.inference.trained import FineTuned, Head, text_normalisation
from mvsa_tune.results.store import Store, sweep_data


@dataclass(frozen=True)
class Predictions:
    """Labels and probabilities of N samples, in the order of their list."""

    guids: list[str]
    labels: list[str]  # names of the classes, in order
    votes: NDArray[np.float32]  # (R, N, C): each replicate's probabilities
    unread: list[str]  # guids of the samples whose picture could not be read: its vector is zero
    training: Mapping[str, Any]  # how the replicates were trained

    @property
    def tags(self) -> list[str]:
        """Class of the highest mean probability of each sample, shape `(N,)`."""
        return [self.labels[index] for index in self.votes.mean(axis=0).argmax(axis=1)]

    def table(self) -> pd.DataFrame:
        """Return each sample's `guid`, `tag`, mean probabilities and, as `CLASS_std`, std (n − 1) over replicates."""
        mean = self.votes.mean(axis=0)
        std = self.votes.std(axis=0, ddof=1) if len(self.votes) > 1 else np.full(mean.shape, np.nan)
        columns = [*self.labels, *(f"{label}_std" for label in self.labels)]
        table = pd.DataFrame(np.hstack([mean, std]), columns=columns)
        for name, values in (("tag", self.tags), ("guid", self.guids)):
            table.insert(0, name, values, allow_duplicates=True)
        return table

    def write(self, path: Path, *, probabilities: bool) -> list[Path]:
        """Write a list of `guid,tag` lines and, if wanted, the table as `NAME.probabilities.csv`; return the files."""
        tables = {path: self.table().iloc[:, :2]}
        if probabilities:
            tables[path.with_name(f"{path.stem}.probabilities.csv")] = self.table()
        try:
            for file, table in tables.items():
                write_text_whole(file, table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
        except OSError as error:
            raise InputError(f"cannot write {file}: {error.strerror}; choose --out") from None
        return list(tables)

    @property
    def warning(self) -> str:
        """Message about samples that were labelled without their picture; empty if there are none."""
        without = "samples were labelled without their picture, which cannot be read"
        return f"{len(self.unread):,} {without}: {some(self.unread)}" if self.unread else ""


@dataclass(frozen=True)
class TrainedHead:
    """A trained configuration that labels pairs of picture and text, by the mean of its replicates.

    head = mvsa_tune.load_head("results/NAME")
    head.predict(["picture.jpg"], ["a text"])["tag"]
    """

    model: Head | FineTuned

    def __repr__(self) -> str:
        return f"TrainedHead({self.config.name}; labels {', '.join(self.labels)})"

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.model.config

    @property
    def labels(self) -> list[str]:
        """The classes, in order."""
        return list(self.model.about["labels"])

    def predict(
        self,
        pictures: Sequence[Path | str] | None = None,
        texts: Sequence[str] | None = None,
        weights: Mapping[str, Path] | None = None,
    ) -> pd.DataFrame:
        """Label N pairs; return a row for each, as `Predictions.table`; `guid` is the picture's file.

        Args:
            pictures: files; None for a head that sees texts alone.
            texts: raw texts; None for a head that sees pictures alone.
            weights: of the encoders of a head on embeddings, by name; None for the published ones.

        Raises:
            InputError: a modality is missing, a picture cannot be read, or the encoders are not those of the sweep.
        """
        pairs = {"image": pictures, "text": texts}
        counts = {modality: len(values) for modality, values in pairs.items() if values is not None}
        if not counts.keys() >= set(self.config.modalities) or len(set(counts.values())) > 1:
            needed = " and ".join(f"{modality}s" for modality in self.config.modalities)
            raise InputError(f"{self.config.name} needs {needed}, one of each for every pair, not {counts}")
        blank = [""] * max(counts.values())
        files, raw = [Path(file) for file in pictures or blank], list(texts or blank)
        inputs = (vectors_of(self.model, files, raw, weights),) if isinstance(self.model, Head) else (files, raw)
        return self._table([str(file) for file in files], self.model.votes(*inputs))  # type: ignore[arg-type]

    def predict_vectors(self, **vectors: NDArray[Any]) -> pd.DataFrame:
        """Label N samples by raw vectors, `image=` and `text=`, `(N, width)` each; return a table as `predict`.

        Raises:
            InputError: a modality is missing, its vectors have another width, or the encoders were fine-tuned.
        """
        if not isinstance(self.model, Head):
            raise InputError(f"{self.config.name} has fine-tuned encoders, which take pictures and texts: use predict")
        votes = self.model.votes(vectors)
        return self._table([str(row) for row in range(votes.shape[1])], votes)

    def _table(self, guids: list[str], votes: NDArray[np.float32]) -> pd.DataFrame:
        return Predictions(guids, self.labels, votes, [], self.model.about["training"]).table()


def predict(
    store: Store,
    config: Config,
    data: Path | None = None,
    cache: Path | None = None,
    weights: Mapping[str, Path] | None = None,
    *,
    layout: str | None = None,
    encoding: str = "",
    refit: bool = False,
) -> Predictions:
    """Label the unlabelled samples of a data set by a configuration of a sweep.

    Args:
        store: the sweep.
        config: the configuration.
        data: new pairs, which are embedded first, or the sweep's data if it has moved; None for the sweep's.
        cache: folder of that data's embedding caches; None for the sweep's, or the default one of new pairs.
        weights: files or folders of encoders' weights, by name, for new pairs and fine-tuned encoders.
        layout: of `data` on disk; None to recognise it.
        encoding: of the texts of `data` that are not UTF-8; empty for the sweep's, or else to choose it for each.
        refit: label with replicates that are trained on all labelled samples.

    Raises:
        InputError: no sample is unlabelled, the sweep's data or vectors are missing, or embedding new pairs failed.
    """
    manifest, weights = store.manifest, weights or {}
    if data:
        encoding = encoding or manifest.reading.get("encoding", "")
        dataset = read_dataset(data, layout=layout, labels=manifest.classes, encoding=encoding, needs_labels=False)
    else:
        dataset = sweep_data(store)
    first = len(dataset.labels)
    samples = dataset.samples[first:]
    if not samples:
        raise InputError(
            f"{dataset.folder} has no unlabelled samples: the reference's layout lists them in test_without_label.txt, "
            "a table leaves their label empty"
        )
    new = dataset.fingerprint != manifest.data_fingerprint
    moved, unread = None if new else data, set[str]()
    if config.finetuned:
        network = chosen_network(store, config, moved, weights, refit=refit)
        about, votes = network.about, network.votes([s.picture for s in samples], [s.text for s in samples])
    else:
        if new:
            head = _head_for_new_pairs(store, config, refit=refit)
            caches = embed_new(head, dataset, cache or default_folder(dataset.folder), weights)
        else:
            opened = sweep_caches(store, config, dataset, cache)
            caches = {modality: opened[encoder, modality] for modality, encoder in config.encoders.items()}
            head = chosen_head(store, config, moved, cache, refit=refit)
        about, votes = head.about, head.votes({name: vectors.vectors()[first:] for name, vectors in caches.items()})
        unread = {guid for vectors in caches.values() for guid in vectors.manifest.skipped}
    guids = [sample.guid for sample in samples]
    return Predictions(guids, about["labels"], votes, [guid for guid in guids if guid in unread], about["training"])


def _head_for_new_pairs(store: Store, config: Config, *, refit: bool) -> Head:
    try:  # `--data` and `--cache` are those of the new pairs: the sweep's are where they were, or the head is kept
        return chosen_head(store, config, refit=refit)
    except InputError as error:
        how = f"mvsa-tune predict {store.folder} --config {config.id}{' --refit' if refit else ''}"
        first = f"First train the head on the sweep's data with `{how}`, which keeps it; then label the new pairs"
        raise InputError(f"{error}. {first}") from None


def embed_new(head: Head, dataset: Dataset, folder: Path, weights: Mapping[str, Path]) -> dict[str, Cache]:
    """Embed new pairs like the vectors that a head was trained on; return the caches by modality.

    Raises:
        InputError: those vectors were imported, or the encoder's weights or preprocessing are different now.
    """
    caches = {}
    for modality, name in head.config.encoders.items():
        then, text = _made_by(head, modality), text_normalisation(head.about)
        encoder = then["encoder"]
        called = name if name != encoder else ""
        settings = Settings(weights=weights.get(encoder), dtype=then["dtype"], text=text, name=called)
        made = {cache.manifest.modality: cache for cache in embed(dataset, folder, encoder, settings)}[modality]
        manifest = made.manifest
        _check_made_by(then, modality, manifest.weights, manifest.preprocessing, f", and delete {made.path.parent}")
        caches[modality] = made
    return caches


def vectors_of(
    head: Head, pictures: Sequence[Path], texts: Sequence[str], weights: Mapping[str, Path] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Embed pairs like the vectors that a head was trained on; return raw vectors `(N, width)` by modality.

    Args:
        head: the head.
        pictures: N files; not opened by a head that sees texts alone.
        texts: N raw texts; not read by a head that sees pictures alone.
        weights: files or folders of encoders' weights, by name; None for the published ones.

    Raises:
        InputError: as `embed_new`, or a picture cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    samples = [Sample("", None, picture, text, "utf-8") for picture, text in zip(pictures, texts, strict=True)]
    vectors = {}
    for modality in head.config.modalities:
        then, text = _made_by(head, modality), text_normalisation(head.about)
        tower = find_encoder(then["encoder"]).load(modality, (weights or {}).get(then["encoder"]), device)
        treatment = f"{TREATMENTS[text]}; " if modality == "text" else ""
        _check_made_by(then, modality, tower.weights, f"{treatment}{tower.preprocessing}")
        task = Task(modality, Settings(dtype=then["dtype"], text=text), BATCH["cpu"], torch.get_num_threads())
        vectors[modality] = next(embed_blocks(tower, task, {0: samples})).vectors
    return vectors


def _made_by(head: Head, modality: str) -> Mapping[str, str]:
    """Return what made the vectors that a head was trained on; InputError if they were imported."""
    then: Mapping[str, str] = head.about["encoders"][modality]
    if not then["source"].startswith("embedded by "):
        name = head.config.encoders[modality]
        raise InputError(
            f"the {modality} vectors of {name} were {then['source']}: new pairs cannot be embedded in the same way"
        )
    return then


def _check_made_by(then: Mapping[str, str], modality: str, weights: str, preprocessing: str, remedy: str = "") -> None:
    """Raise InputError if an encoder's weights or preprocessing are other ones now; `remedy` ends the message."""
    now, encoder = {"weights": weights, "preprocessing": preprocessing}, then["encoder"]
    if different := [f"{key} {then[key]} then, {value} now" for key, value in now.items() if then[key] != value]:
        raise InputError(
            f"{encoder} is not the encoder of the sweep's {modality} vectors ({'; '.join(different)}): "
            f"give the one from then with --weights {encoder}=PATH{remedy}"
        )
