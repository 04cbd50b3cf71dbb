import time
from collections.abc import Mapping

import pytest

from mvsa_tune.dimensions import Choice, Range
from mvsa_tune.errors import InputError
from mvsa_tune.tune.space import PAIR, Budget, Search, corners, make_config, parse, point_of

SPACE = {
    PAIR: Choice(("eye+ear", "eye+nose")),
    "D": Range(8, 64, log=True),
    "lr": Range(1e-5, 1e-2, log=True),
    "dropout": Range(0.0, 0.5),
    "batch_size": Choice((32, 512)),
}


def search(dimensions: Mapping[str, Choice | Range] | None = None, **fixed: object) -> Search:
    return Search({**SPACE, **(dimensions or {})}, fixed, Budget(), 0)


def test_a_dimension_is_read_as_it_is_written() -> None:
    for name, dimension in SPACE.items():
        assert parse(name, str(dimension).split(), dimension) == dimension
    assert parse("lr", ["1e-4..1e-3"], SPACE["lr"]) == Range(1e-4, 1e-3, log=True)
    assert parse("D", ["16..32"], SPACE["D"]) == Range(16, 32, log=True)
    assert parse("lr", ["1e-4"], SPACE["lr"]) == Choice((1e-4,))


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("lr", ["1e-3..1e-5"], r"--lr 1e-3\.\.1e-5: write LOW\.\.HIGH, low below high and above 0"),
        ("lr", ["0..1e-5"], "above 0"),
        ("lr", ["fast"], "--lr fast: write"),
        ("D", ["1.5..8"], r"--D 1\.5\.\.8"),
        ("D", ["1..2..3"], r"--D 1\.\.2\.\.3"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused(name: str, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(name, words, SPACE[name])


def test_corners_check_every_value_of_every_dimension() -> None:
    configs = corners(search(epochs=7))
    assert {config.D for config in configs} == {8, 64}
    assert {config.text_encoder for config in configs} == {"ear", "nose"}
    assert all(config.epochs == 7 for config in configs)
    for name, wrong in (
        ("dropout", Range(0.0, 1.0)),
        ("batch_size", Choice((512, 1))),
        ("head", Choice(("concat", "x"))),
    ):
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')}"):
            corners(search({name: wrong}))
    with pytest.raises(InputError, match="--pairs"):
        corners(search({PAIR: Choice(("eye",))}))


@pytest.mark.parametrize("widths", [Range(32, 1024, log=True), Choice((64, 12))])
def test_a_head_that_attends_is_searched_over_listed_multiples_of_eight(widths: Range | Choice) -> None:
    heads = Choice(("concat", "co-attention"))
    with pytest.raises(InputError, match=r"--D .*: --head co-attention needs multiples of 8; list them"):
        corners(search({"head": heads, "D": widths}))
    assert corners(search({"head": heads, "D": Choice((64, 8))}))
    assert corners(search({"head": Choice(("concat", "gated")), "D": widths}))


def test_a_configuration_lies_at_its_point_of_the_space() -> None:
    point = {PAIR: "eye+nose", "D": 11, "lr": 1.23456e-4, "dropout": 0.123456, "batch_size": 32}
    config = make_config(point, {})
    assert (config.lr, config.dropout, config.text_encoder) == (1.23e-4, 0.123, "nose")
    assert make_config(point_of(config, SPACE), {}) == config
    past = make_config({**point, "lr": 0.0123456}, {})
    assert point_of(past, {**SPACE, "lr": Range(1e-5, 0.01234, log=True)})["lr"] <= 0.01234


def test_a_budget_ends_at_its_first_limit() -> None:
    assert not Budget().spent(10**9, 10**9)
    assert Budget(trials=5).spent(5, 0) and not Budget(trials=5).spent(4, 10**9)
    assert Budget(trials=5, total_epochs=100).spent(1, 100)
    assert Budget(minutes=1, started=time.monotonic() - 61).spent(0, 0)
    assert not Budget(minutes=1).spent(0, 0)
    with pytest.raises(InputError, match="--total-epochs 0"):
        Budget(total_epochs=0)
