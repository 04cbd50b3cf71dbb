"""The built-in demo set: made-up pairs with some signal and some noise, in the reference's layout."""

import io
import random
from pathlib import Path

import numpy as np
from numpy.random import Generator

from mvsa_tune.data.readers import LABELS, TRAIN_LIST, UNLABELLED_LIST
from mvsa_tune.errors import InputError
from mvsa_tune.files import write_text_whole, write_whole

PAIRS = ("demo-pixels+demo-words",)
TRAINABLE_PAIRS = ("demo-convolutions+demo-tokens",)  # to fine-tune
LABELLED, UNLABELLED = 600, 60
SHARES = (0.3, 0.12, 0.58)  # of the labels, about the real set's
HONEST = 0.7  # how often a modality shows the pair's label instead of a random one
_WORDS = {
    "negative": "sad angry awful broken crash fear hate lost pain storm tired worst",
    "neutral": "report notice weekday update schedule office city number meeting item list road",
    "positive": "love happy great sunny win smile friends best sweet party beautiful thanks",
}
WORDS = {label: words.split() for label, words in _WORDS.items()}
_FILLERS = "the a to and of in it is my on this at rt #today http://t.co/demo @someone so just"
# Mean colour of a sentiment's pictures; the noise is so strong that they differ only on average.
COLOURS = {"negative": (100, 100, 120), "neutral": (128, 126, 118), "positive": (152, 142, 112)}


def make_demo_set(folder: Path) -> None:
    """Write the demo set into `folder`, the same files every time; do nothing where it is complete.

    600 labelled pairs and 60 unlabelled ones. A modality alone gives the label away for about eight pairs in ten.
    """
    if (folder / TRAIN_LIST).exists():
        return
    try:
        _write(folder)
    except OSError as error:
        message = f"cannot write the demo set to {folder}: {error.strerror}; run from a folder you can write"
        raise InputError(message) from None


def _write(folder: Path) -> None:
    generator = np.random.default_rng(20260101)
    guids = [f"{number:04d}" for number in range(1, LABELLED + UNLABELLED + 1)]
    random.Random(7).shuffle(guids)
    lines: list[str] = []
    for guid in guids:
        label = LABELS[generator.choice(len(LABELS), p=SHARES)]
        lines.append(f"{guid},{label if len(lines) < LABELLED else 'null'}\n")
        write_text_whole(folder / "data" / f"{guid}.txt", _tweet(generator, _shown(generator, label)) + "\n")
        picture = _picture(generator, _shown(generator, label))
        write_whole(folder / "data" / f"{guid}.jpg", lambda file, picture=picture: file.write(picture))  # type: ignore[misc]
    write_text_whole(folder / UNLABELLED_LIST, "guid,tag\n" + "".join(lines[LABELLED:]))
    # Last, so that a set whose writing was interrupted is written again.
    write_text_whole(folder / TRAIN_LIST, "guid,tag\n" + "".join(lines[:LABELLED]))


def _shown(generator: Generator, label: str) -> str:
    """Draw the sentiment that a modality of a pair shows: the pair's label, or any."""
    return label if generator.random() < HONEST else str(generator.choice(LABELS))


def _tweet(generator: Generator, sentiment: str) -> str:
    words = [*generator.choice(WORDS[sentiment], 3), *generator.choice(_FILLERS.split(), 5)]
    words += list(generator.choice(WORDS[str(generator.choice(LABELS))], 1))
    generator.shuffle(words)
    return " ".join(map(str, words))


def _picture(generator: Generator, sentiment: str) -> bytes:
    from PIL import Image

    tint = np.array(COLOURS[sentiment]) + generator.normal(0, 14, 3)
    patches = tint + generator.normal(0, 45, (6, 6, 3))
    small = Image.fromarray(patches.clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    small.resize((96, 96), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
