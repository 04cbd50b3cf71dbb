"""Samples × encoder → cache."""

from pathlib import Path

from mvsa_tune.cache import Cache, write_cache
from mvsa_tune.dataset import Dataset
from mvsa_tune.encoders import ENCODERS, Vectors


def embed(dataset: Dataset, folder: Path, name: str) -> list[Cache]:
    """Embed a data set with an encoder of the registry that needs no weights, every modality it has, into `folder`."""
    encoder = ENCODERS[name]
    vectors: dict[str, Vectors] = {}
    if encoder.pictures:
        vectors["image"] = encoder.pictures([sample.picture for sample in dataset.samples])
    if encoder.texts:
        vectors["text"] = encoder.texts([sample.text for sample in dataset.samples])
    source = f"embedded by {name}"
    return [
        write_cache(dataset, folder, name, modality, values, preprocessing=encoder.preprocessing, source=source)
        for modality, values in vectors.items()
    ]
