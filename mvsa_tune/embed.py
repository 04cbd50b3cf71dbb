"""Samples × encoder → cache."""

from pathlib import Path

from mvsa_tune.cache import Cache, write_cache
from mvsa_tune.dataset import Dataset
from mvsa_tune.encoders import ENCODERS


def embed(dataset: Dataset, folder: Path, name: str) -> list[Cache]:
    """Embed a data set with an encoder of the registry that needs no weights, every modality it has, into `folder`."""
    encoder = ENCODERS[name]
    made = []
    for modality, encode, inputs in (
        ("image", encoder.pictures, [sample.picture for sample in dataset.samples]),
        ("text", encoder.texts, [sample.text for sample in dataset.samples]),
    ):
        if encode is not None:
            made.append(
                write_cache(
                    dataset, folder, name, modality, encode(inputs),  # type: ignore[operator]
                    preprocessing=encoder.preprocessing, source=f"embedded by {name}",
                )
            )
    return made
