from pathlib import Path

import pytest

from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.text import NORMALISERS, normalise

CASES = [
    # hashtags: in camel case, joined, with digits, underscored, an abbreviation, cut off
    ("so #WeDemandJustice now", "so we demand justice now"),
    ("#thisisawesome", "this is awesome"),
    ("#iPhone6 and #2014goals", "i phone and goals"),
    ("#no_filter_needed", "no filter needed"),
    ("#TBT #NYC", "tbt nyc"),
    ("finished the bust! #la…", "finished the bust la"),
    # links: whole, several, cut off at the end of the tweet
    ("look http://t.co/o5xiKyJgT7", "look"),
    ("a https://t.co/abc b www.example.com/x?y=1 c", "a b c"),
    ("look at this http://t.c…", "look at this"),
    ("look at this http…", "look at this"),
    ("look at this htt…", "look at this"),
    ("html is nice", "html is nice"),
    # retweets and users
    ("RT @AmitSwami77: The end is nigh", "the end is nigh"),
    ("@NYSE is down, @a_b too", "is down, too"),
    ("sport is art", "sport is art"),
    # emoticons, emoji, elongated words
    ("Sooooo happyyyy :) <3 😀", "sooooo happyyyy"),
    # contractions, with either apostrophe
    ("I can't believe it's you, we’re lost", "i cannot believe it is you, we are lost"),
    # mail, phone, times, dates, numbers
    ("write to me@mail.com today", "write to today"),
    ("call 555-123-4567 now", "call now"),
    ("at 10:30pm or 5 am sharp", "at or sharp"),
    ("on 12/03/2014 and March 3rd, 2014 we met", "on and we met"),
    ("1,000 fans, 50% off, $5 each", "fans, off, each"),
    # punctuation: commas and stops stay
    ("wait... what?! yes, no.", "wait... what yes, no."),
    # other languages and nothing left
    ("天气很好", ""),
    ("@someone http://t.co/abc 😀 123", ""),
    ("", ""),
]


@pytest.mark.parametrize(("tweet", "normal"), CASES)
def test_tweets_are_normalised_as_in_the_reference(tweet: str, normal: str) -> None:
    assert normalise(tweet) == normal


def test_raw_leaves_a_tweet_as_it_is() -> None:
    tweet = "RT @A: #Hi http://t.co/x 😀"
    assert NORMALISERS["raw"](tweet) == tweet


def test_the_real_set_has_132_texts_of_nothing_but_links_and_handles(real: Path) -> None:
    texts = [normalise(sample.text) for sample in read_dataset(real).samples]
    assert sum(not text for text in texts) == 132
    assert all(set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789., ") for text in texts)
