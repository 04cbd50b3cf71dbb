"""Tweet normalisation, before a text encoder.

The reference's texts come from ekphrasis (Baziotis et al. 2017), whose rules are written here without its word counts
of 330 million tweets: hashtags in lower case and elongated words are looked up in symspellpy's English dictionary.
"""

import html
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from itertools import product
from typing import Any

MONTH = (
    r"(?:[Jj]an(?:uary)?|[Ff]eb(?:ruary)?|[Mm]ar(?:ch)?|[Aa]pr(?:il)?|May|[Jj]une?|[Jj]uly?|[Aa]ug(?:ust)?"
    r"|[Ss]ept?(?:ember)?|[Oo]ct(?:ober)?|[Nn]ov(?:ember)?|[Dd]ec(?:ember)?)\b"
)
YEARS = r"(?:,? ?'?\d{1,4}(?:st|nd|rd|th)?\b(?:[,/]? ?'?\d{2,4}[a-zA-Z]*)?)"
# What is taken out of a tweet, in this order: links, addresses, percentages, money, phone numbers, users, times, dates.
TAKEN_OUT = [
    re.compile(pattern)
    for pattern in (
        r"https?://(?:www\.|(?!www))[^\s.]+\.\S{2,}|www\.\S+\.\S{2,}",
        r"(?<![\w@.)])[\w+.-]*[\w+-]@[\w-]+(?:\.[a-z]{2,}){1,3}\b",
        r"\b\d+(?:[.,']\d+)?%",
        r"[$€£¢]\d+(?:[.,']\d+)?(?:[MmKkBb](?:n|il(?:lion)?)?)?|\d+(?:[.,']\d+)?[$€£¢]",
        r"(?<!\d)(?:\+\d{1,2}\s)?\(?\d{3}\)?[\s.-]?\d{3}[\s.-]?\d{4}(?!\d)",
        r"@\w+",
        r"\d*\.?\d+(?:[AP]M|[ap]m|[ap]\.m\.)|[0-2]?\d:[0-5]\d(?::[0-5]\d)?(?: ?(?:[AP]M|[ap]m|[ap]\.m\.))?",
        rf"(?<!:)\b'?\d{{1,4}},? ?{MONTH}{YEARS}?|\b{MONTH}{YEARS}"
        r"|(?<!\d\.)\b(?:[0-3]?\d[./-])?[0-3]?\d[./-](?:[12]\d{3}\b|[0-3]?\d[./-]\d{2,4}\b)(?!\.\d)",
        r"\b\d+(?:[.,']\d+)?\b",
    )
]
HASHTAG = re.compile(r"#\b([\w-]+)\b")
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])|(?<![0-9])(?=[0-9])|(?<=[0-9_-])(?=[A-Za-z])")
ELONGATED = re.compile(r"\b[A-Za-z]*([A-Za-z])\1\1[A-Za-z]*\b")
REPEATED = re.compile(r"[!?.]{2,}")
CONTRACTIONS = [
    (re.compile(pattern), expanded)
    for pattern, expanded in (
        (r"\b([Aa]re|[CcWw]ould|[Ss]hould|[Dd]id|[Dd]oes|[Dd]o|[Hh]a[ds]|[Hh]ave|[Ii]s|[Mm]ight|[Mm]ust|[Ww]ere)n't",
         r"\1 not"),
        (r"\b([Hh]e|[Ii]|[Ss]he|[Tt]hey|[Ww]e|[Ww]hat|[Ww]ho|[Yy]ou)'ll", r"\1 will"),
        (r"\b([Tt]hey|[Ww]e|[Ww]hat|[Ww]ho|[Yy]ou)'re", r"\1 are"),
        (r"\b([Ii]|[Ss]hould|[Tt]hey|[Ww]e|[Ww]hat|[Ww]ho|[Ww]ould|[Yy]ou)'ve", r"\1 have"),
        (r"\b([Cc]a)n't", r"\1n not"),
        (r"\b([Ii])'m", r"\1 am"),
        (r"\b([Ll]et)'s", r"\1 us"),
        (r"\b([Ww])on't", r"\1ill not"),
        (r"\b([Ss])han't", r"\1hall not"),
        (r"\b([Yy])(?:'all|a'll)", r"\1ou all"),
    )
]  # fmt: skip
EMOTICON = re.compile(r"[:;=]['o^-]?[DPOSJLXpbc3](?![a-zA-Z])|(?<!\w)[xX][DP](?![a-zA-Z])|<3")
# Stocks, abbreviations in capitals, censored words, numbers, the digits before a word one by one, words; signs apart.
TOKEN = re.compile(r"\$[A-Z]+\b|\b(?:[A-Z]\.){2,}(?:[A-Z]\b)?|\b\w+\*+\w+\b|\b\d+(?:[.,']\d+)?\b|[0-9]|\w+|\S")
KEPT = re.compile(r"[a-z0-9.,]+")
LEFT_OVER = {"rt", "http", "https", "htt"}  # of retweets, and of links that the release's 140 characters cut off


def normalise(text: str) -> str:
    """Return a tweet normalised as in the reference: its tokens with spaces between them; it may be empty.

    Links, e-mail addresses, users, phone numbers, times, dates and numbers are removed, hashtags split into words,
    contractions expanded. Then tokens, in lower case, that have any other character than `a-z0-9.,` are dropped whole
    (`música`, `foo_bar`), and so are `rt` and what is left of cut-off links.
    """
    for pattern in TAKEN_OUT:
        text = pattern.sub(" ", text)
    text = HASHTAG.sub(lambda match: f" {_split_hashtag(match[1])} ", text)
    text = ELONGATED.sub(lambda match: _shortened(match[0]), text)
    text = REPEATED.sub(lambda match: " . " if "." in match[0] else " ", text)
    text = re.sub(r"\*\b(\w+)\b\*", r" \1 ", text)
    for pattern, expanded in CONTRACTIONS:
        text = pattern.sub(expanded, text)
    text = EMOTICON.sub(" ", html.unescape(text))
    tokens = (token.lower() for token in TOKEN.findall(text))
    return " ".join(token for token in tokens if KEPT.fullmatch(token) and token not in LEFT_OVER)


NORMALISERS: dict[str, Callable[[str], str]] = {"reference": normalise, "raw": str}
# What manifests and cards call them. `text reference` stood for other rules, whose vectors are others.
TREATMENTS = {"reference": "text reference 2", "raw": "text raw"}


def _split_hashtag(tag: str) -> str:
    """Split a hashtag's text into words: at its capitals and digits, or by word frequencies if it has no capital."""
    if not tag.islower():
        return re.sub("[_-]", "", " ".join(CAMEL.split(tag)))
    if not tag.isascii():
        return tag
    segmented = _dictionary().word_segmentation(tag, max_edit_distance=0).segmented_string
    return re.sub("[_-]", " ", str(segmented))


def _shortened(word: str) -> str:
    """Return an elongated word with each of its runs of letters as one or two, whichever word is the most frequent."""
    runs = [match[0][:2] for match in re.finditer(r"([A-Za-z])\1*", word)]
    choices = product(*({run, run[0]} for run in runs))
    counts: dict[str, int] = _dictionary().words
    best = max(sorted("".join(choice) for choice in choices), key=lambda choice: counts.get(choice.lower(), 0))
    return best if best.lower() in counts else "".join(runs)


@cache
def _dictionary() -> Any:
    from symspellpy import SymSpell

    dictionary = SymSpell(max_dictionary_edit_distance=0)
    words = resources.files("symspellpy").joinpath("frequency_dictionary_en_82_765.txt")
    with resources.as_file(words) as path:
        dictionary.load_dictionary(path, term_index=0, count_index=1)
    return dictionary
