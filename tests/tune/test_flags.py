"""Flags, and what else is turned into flags."""

from pathlib import Path

import pytest

from mvsa_tune.errors import InputError
from mvsa_tune.sweeps import GRID, SEARCH
from mvsa_tune.tune.flags import arguments_of


def test_a_mapping_is_the_command_line_that_a_person_would_type() -> None:
    values = {
        "pairs": ["a+b", "c+d"],
        "D": (128, 256),
        "lr": 1e-5,
        "batch-size": 32,
        "weights": {"a": Path("models/a"), "b": "b.pt"},
        "embed": True,
        "quiet": False,
        "address": None,
    }
    typed = "--pairs a+b c+d --D 128 256 --lr 1e-05 --batch-size 32 --weights a=models/a b=b.pt --embed"
    assert arguments_of(values) == typed.split()


def test_what_a_mapping_says_is_what_is_parsed() -> None:
    options = GRID.parse(arguments_of({"lr": [2e-5, 1e-4], "ablation": 0, "no_report": True, "seed_list": range(3)}))
    assert options.lr == [2e-5, 1e-4] and options.ablation == [0] and not options.report
    assert options.seed_list == [0, 1, 2]
    search = SEARCH.requested(SEARCH.parse(arguments_of({"lr": "1e-5..1e-3", "D": [64, 128]})))
    assert str(search.space["lr"]) == "1e-5..0.001" and str(search.space["D"]) == "64 128"


def test_flags_that_are_wrong_raise_and_do_not_end_python() -> None:
    with pytest.raises(InputError, match="expected at least one argument"):
        GRID.parse(arguments_of({"pairs": []}))
