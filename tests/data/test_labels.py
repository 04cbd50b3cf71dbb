"""Where the classes and their order come from."""

import itertools

import pytest

from mvsa_tune.data.dataset import typo_notes
from mvsa_tune.data.readers import LABELS, SCALE, is_label, order_labels
from mvsa_tune.errors import InputError

ORDERS = {
    "three sentiments": (["positive", "negative", "neutral"], ["negative", "neutral", "positive"], "usual"),
    "two": (["positive", "negative"], ["negative", "positive"], "usual"),
    "five": ([*SCALE[::-1]], [*SCALE], "usual"),
    "in capitals and with bars below": (["Very_Positive", "Negative"], ["Negative", "Very_Positive"], "usual"),
    "numbers": (["10", "9", "-1", "0.5"], ["-1", "0.5", "9", "10"], "numerical"),
    "words": (["sarcasm", "irony", "10"], ["10", "irony", "sarcasm"], "alphabet"),
}


@pytest.mark.parametrize("case", ORDERS)
def test_labels_have_one_order_whatever_order_they_come_in(case: str) -> None:
    labels, expected, order = ORDERS[case]
    for mixed in itertools.permutations(labels):
        classes, name = order_labels((), (), mixed)
        assert list(classes) == expected and order in name


def test_a_rare_label_that_is_nearly_a_frequent_one_may_be_a_typo() -> None:
    frequent = {"negative": 25, "neutral": 1025, "class 1": 25}
    said = "label 'negatve' (1 sample) is nearly 'negative' (25): a typo?"
    assert typo_notes({**frequent, "negatve": 1}) == [said]
    assert typo_notes({**frequent, "nuetral": 2, "negatve": 1}) == [
        said, "label 'nuetral' (2 samples) is nearly 'neutral' (1,025): a typo?",
    ]  # fmt: skip
    # neither rare, nor near (one sign in five), nor different in more than a digit
    for other in ({"negatve": 25}, {"neuter": 1}, {"class 2": 1}, {"2": 1, "20": 1}):
        assert typo_notes({**frequent, **other}) == []
    assert typo_notes({}) == []


def test_requested_labels_precede_the_layouts_and_those_the_samples() -> None:
    assert order_labels(["b", "a"], LABELS, {"a"}) == (("b", "a"), "the order of --labels")
    assert order_labels((), LABELS, {"a"}) == (LABELS, "the layout's order")
    assert order_labels((), (), ())[0] == ()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a"], "from 2 to 256"),
        (["a", "a"], "one label twice"),
        (["Good", "good"], "differ in case alone"),
        (["a", ""], "must be printable"),
        (["a", "b,c"], "without a comma or a bar"),
        ([str(number) for number in range(257)], "257 labels"),
    ],
)
def test_labels_that_no_table_can_show_are_an_error(classes: list[str], message: str) -> None:
    for requested, labels in ((classes, ()), ((), classes)):
        if requested or len(set(classes)) == len(classes):
            with pytest.raises(InputError, match=message):
                order_labels(requested, (), labels)


def test_a_label_fits_into_a_cell() -> None:
    assert is_label("very negative") and is_label("-1") and is_label("开心")
    assert not any(map(is_label, ("", " a", "a|b", "a,b", "a\nb", "a\tb")))
