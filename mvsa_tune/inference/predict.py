"""The chosen head → labels for the unlabelled samples of its own data set, or for new pairs."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvsa_tune.config import Config
from mvsa_tune.data.dataset import Dataset, Sample, read_dataset
from mvsa_tune.embeddings.cache import Cache, default_folder
from mvsa_tune.embeddings.embed import Settings, embed
from mvsa_tune.errors import InputError, some
from mvsa_tune.files import write_text_whole
from mvsa_tune.inference.head import Head
from mvsa_tune.inference.select import chosen_head, chosen_network, open_data
from mvsa_tune.results.store import Store, sweep_data


@dataclass(frozen=True)
class Predictions:
    """What a head says of N samples.

    Attributes:
        guids: the samples, in the list's order.
        labels: the classes' names, in order.
        votes: `(R, N, C)` each replicate's probabilities.
        unread: guids of the samples, of these, that an encoder could not read: its vectors of them are zero.
        training: how the head was trained (`Head.about`).
    """

    guids: list[str]
    labels: list[str]
    votes: NDArray[np.float32]
    unread: list[str]
    training: Mapping[str, Any]

    @property
    def tags(self) -> list[str]:
        """`(N,)` the class of the highest mean probability."""
        return [self.labels[index] for index in self.votes.mean(axis=0).argmax(axis=1)]

    def list_text(self) -> str:
        """`guid,tag` lines, as the set's own lists have them."""
        return _csv_text([("guid", "tag"), *zip(self.guids, self.tags, strict=True)])

    def probabilities_text(self) -> str:
        """A CSV: guid, tag, each class's mean probability, then each one's standard deviation (n − 1) over the replicates."""
        mean = self.votes.mean(axis=0)
        spread = self.votes.std(axis=0, ddof=1) if len(self.votes) > 1 else np.full(mean.shape, np.nan)
        rows: list[Sequence[str]] = [["guid", "tag", *self.labels, *(f"{label}_std" for label in self.labels)]]
        for guid, tag, *numbers in zip(self.guids, self.tags, mean, spread, strict=True):
            cells = ["" if np.isnan(number) else f"{number:.6f}" for number in np.concatenate(numbers)]
            rows.append([guid, tag, *cells])
        return _csv_text(rows)


def _csv_text(rows: Iterable[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()


def predict(
    store: Store,
    config: Config,
    data: Path | None,
    cache: Path | None,
    weights: Mapping[str, Path],
    *,
    layout: str | None = None,
    refit: bool = False,
) -> Predictions:
    """Label the unlabelled samples of a folder.

    Args:
        store: the sweep.
        config: whose head.
        data: None for the sweep's own data; other pairs, in any layout, are embedded first.
        cache: where that data's caches are, or go.
        weights: of encoders, by name, for new pairs.
        layout: of `data` on disk; None to recognise it.
        refit: label with a head trained on all labelled samples.

    Raises:
        InputError: nothing is unlabelled, the data or vectors of the sweep are not at hand, or new pairs cannot be embedded as
            its own were.
    """
    classes = store.manifest.classes
    given = read_dataset(data, layout=layout, labels=classes, needs_labels=False) if data else None
    new = given if given and given.fingerprint != store.manifest.data_fingerprint else None
    if config.finetuned:
        return _by_network(store, config, given, new, weights, refit=refit)
    dataset, found = (new, {}) if new else open_data(store, config, data, cache)
    guids = [sample.guid for sample in unlabelled(dataset)]
    first = len(dataset.labels)
    if new:
        head = _own_head(store, config, refit=refit)
        caches = embed_new(head, new, cache or default_folder(new.folder), weights)
    else:
        caches = {modality: found[encoder, modality] for modality, encoder in config.encoders.items()}
        head = chosen_head(store, config, data, cache, refit=refit)
    vectors: dict[str, NDArray[Any]] = {modality: one.vectors()[first:] for modality, one in caches.items()}
    unread = {guid for one in caches.values() for guid in one.manifest.skipped}
    return Predictions(
        guids,
        head.about["labels"],
        head.votes(vectors),
        [guid for guid in guids if guid in unread],
        head.about["training"],
    )


def unlabelled(dataset: Dataset) -> Sequence[Sample]:
    """The samples to label; InputError if there is none."""
    samples = dataset.samples[len(dataset.labels) :]
    if not samples:
        raise InputError(
            f"{dataset.folder} has no unlabelled samples: the reference's layout lists them in test_without_label.txt, a table leaves "
            "their label empty"
        )
    return samples


def _by_network(
    store: Store,
    config: Config,
    given: Dataset | None,
    new: Dataset | None,
    weights: Mapping[str, Path],
    *,
    refit: bool,
) -> Predictions:
    """`predict` with fine-tuned encoders: the samples themselves go in, no vectors are kept."""
    own = given if given and not new else sweep_data(store, None)
    samples = unlabelled(new or own)
    network = chosen_network(store, config, own, weights, refit=refit)
    votes = network.votes([one.picture for one in samples], [one.text for one in samples])
    return Predictions([one.guid for one in samples], network.about["labels"], votes, [], network.about["training"])


def _own_head(store: Store, config: Config, *, refit: bool) -> Head:
    """The head for new pairs, where `--data` and `--cache` are of those: kept, or trained where the sweep's own are as they were."""
    try:
        return chosen_head(store, config, None, None, refit=refit)
    except InputError as error:
        how = f"python -m mvsa_tune predict {store.folder} --config {config.id}{' --refit' if refit else ''}"
        raise InputError(f"{error}. Do so with `{how}`, which keeps the head; then label the new pairs") from None


def embed_new(head: Head, dataset: Dataset, folder: Path, weights: Mapping[str, Path]) -> dict[str, Cache]:
    """Embed new pairs as the head's own were, and hold the vectors against what is known of those: a cache a modality.

    Raises:
        InputError: its own were made elsewhere, or by other weights than are found now.
    """
    caches = {}
    for modality, name in head.config.encoders.items():
        then = head.about["encoders"][modality]
        if not then["source"].startswith("embedded by "):
            raise InputError(
                f"the {modality} vectors of {name} were {then['source']}: only their maker can make some for new pairs"
            )
        text = then["preprocessing"].partition("; ")[0].removeprefix("text ") if modality == "text" else "reference"
        settings = Settings(
            weights=weights.get(then["encoder"]),
            dtype=then["dtype"],
            text=text,
            name=name if name != then["encoder"] else "",
        )
        made = {one.manifest.modality: one for one in embed(dataset, folder, then["encoder"], settings)}[modality]
        now = {"weights": made.manifest.weights, "preprocessing": made.manifest.preprocessing}
        different = [f"{key} {then[key]} then, {value} now" for key, value in now.items() if then[key] != value]
        if different:
            raise InputError(
                f"{then['encoder']} is not what the sweep's {modality} vectors were made with ({'; '.join(different)}): "
                f"give that with --weights {then['encoder']}=PATH, and delete {made.path.parent}"
            )
        caches[modality] = made
    return caches


def write_predictions(found: Predictions, path: Path, *, probabilities: bool) -> list[Path]:
    """Write the list, and beside it the probabilities if wanted; return what was written."""
    texts = {path: found.list_text()}
    if probabilities:
        texts[path.with_name(f"{path.stem}.probabilities.csv")] = found.probabilities_text()
    for place, text in texts.items():
        try:
            write_text_whole(place, text)
        except OSError as error:
            raise InputError(f"cannot write {place}: {error.strerror}; choose --out") from None
    return list(texts)


def warning(found: Predictions) -> str:
    """Say which samples were labelled without one of their modalities; empty if none was."""
    if not found.unread:
        return ""
    return (
        f"{len(found.unread):,} samples were labelled without their picture, which cannot be read: {some(found.unread)}"
    )
