"""Tweet normalisation, before a text encoder."""

import logging
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Any

# A time of day and a date as tweets write them; clean-text has neither.
TIME = re.compile(r"\b\d{1,2}:\d{2}(?::\d{2})?\s?(?:[ap]\.?m\b\.?)?|\b\d{1,2}\s?[ap]\.?m\b\.?", re.IGNORECASE)
MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)[a-z]*\.?"
DATE = re.compile(
    r"\b(?:\d{1,4}[-/]\d{1,2}[-/]\d{1,4}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{MONTH}(?:,?\s+\d{{4}})?"
    rf"|{MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s+\d{{4}})?)\b",
    re.IGNORECASE,
)
USER = re.compile(r"(?<!\w)[@＠]\w+")
# The release cuts tweets at 140 characters: a link that lost its end, `http://t.c…`, `ht…`, and no other word.
CUT_LINK = re.compile(r"\bhttps?(?::\S*|…|\.\.\.|$)|\bht{1,2}p?s?(?:…|\.\.\.|\s*$)", re.IGNORECASE)
HASHTAG = re.compile(r"[#＃](\w+)")
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")
NUMBER = re.compile(r"(?<![\w.,])[+-]?[$£€]?\d+(?:[.,]\d+)*%?(?![\w])")
RETWEET = re.compile(r"\brt\b")
NOT_KEPT = re.compile(r"[^a-z0-9.,]+")
APOSTROPHES = str.maketrans("’‘`´", "''''")


def normalise(text: str) -> str:
    """Return a tweet normalised as in the reference; it may be empty.

    Lower case; URL, e-mail, user, phone, time, date and number tokens removed; hashtags split into words; contractions
    expanded; only `a-z0-9.,` kept; `rt` and cut-off links dropped.
    """
    import contractions

    patterns = _clean_text()
    text = CUT_LINK.sub(" ", patterns.URL_REGEX.sub(" ", text))
    text = USER.sub(" ", patterns.EMAIL_REGEX.sub(" ", text))
    text = HASHTAG.sub(lambda match: f" {_split_hashtag(match[1])} ", text)
    text = TIME.sub(" ", DATE.sub(" ", text))
    text = patterns.PHONE_REGEX.sub(" ", text)
    text = contractions.fix(text.translate(APOSTROPHES)).lower()
    text = RETWEET.sub(" ", NUMBER.sub(" ", text))
    return NOT_KEPT.sub(" ", text).strip()


NORMALISERS: dict[str, Callable[[str], str]] = {"reference": normalise, "raw": str}


def _split_hashtag(tag: str) -> str:
    """Split a hashtag's text into words: at its capitals and digits where it has some, else by word frequencies."""
    parts = [part for piece in tag.split("_") for part in CAMEL.split(piece) if part]
    if len(parts) > 1:
        return " ".join(parts)
    if not tag.isascii():
        return tag
    return str(_segmenter().word_segmentation(tag.lower(), max_edit_distance=0).segmented_string)


@cache
def _segmenter() -> Any:
    from symspellpy import SymSpell

    segmenter = SymSpell(max_dictionary_edit_distance=0)
    words = resources.files("symspellpy").joinpath("frequency_dictionary_en_82_765.txt")
    with resources.as_file(words) as path:
        segmenter.load_dictionary(path, term_index=0, count_index=1)
    return segmenter


@cache
def _clean_text() -> Any:
    # When imported, clean-text warns of a library that only its transliteration needs.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    from cleantext import constants

    logging.disable(disabled)
    return constants
