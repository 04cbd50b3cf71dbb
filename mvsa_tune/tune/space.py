"""What a search is: a space of configurations and a budget."""

import dataclasses
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mvsa_tune.config import AXES, CONFIG_FLAGS, Config, flag, join_pair, split_pair
from mvsa_tune.dimensions import Choice, Dimension, Range
from mvsa_tune.errors import InputError
from mvsa_tune.formats import short
from mvsa_tune.models.heads import HEADS

Space = Mapping[str, Dimension]  # by field of `Config`, and the pair of encoders
PAIR = "pair"
FIXED = tuple(name for name in CONFIG_FLAGS if name not in AXES)  # the same for every trial


@dataclass(frozen=True)
class Budget:
    """The limits of a search; no trial starts once one of them is reached.

    Attributes:
        trials: number of configurations, those recorded by earlier commands included.
        total_epochs: number of epochs trained, those of recorded trials included.
        minutes: duration of this command.
    """

    trials: int | None = None
    total_epochs: int | None = None
    minutes: float | None = None
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        for name in ("trials", "total_epochs", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{flag(name)} {value}: must be greater than 0")

    def __str__(self) -> str:
        limits = {"trials": self.trials, "epochs in all": self.total_epochs, "minutes": self.minutes}
        return "at most " + ", ".join(f"{short(limit)} {name}" for name, limit in limits.items() if limit is not None)

    def spent(self, trials: int, epochs: int) -> bool:
        """Return whether a limit is reached."""
        return (
            (self.trials is not None and trials >= self.trials)
            or (self.total_epochs is not None and epochs >= self.total_epochs)
            or (self.minutes is not None and time.monotonic() - self.started >= 60 * self.minutes)
        )


@dataclass(frozen=True)
class Search:
    """A search: its space, the values of the other fields of `Config`, its budget, and the seed of its sampler."""

    space: Space
    fixed: Mapping[str, Any]
    budget: Budget
    seed: int


def make_search(options: Namespace, space: Space) -> Search:
    """Return the search that the flags ask for.

    Args:
        options: the flags of `flags.add_search_flags`.
        space: the default dimensions.

    Raises:
        InputError: a dimension or a limit is wrong.
    """
    if not (1 <= options.finalists <= 100 and 1 <= options.confirm_seeds <= 1000):
        raise InputError("--finalists: from 1 to 100; --confirm-seeds: from 1 to 1,000")
    requested = dict(space)
    for name, default in space.items():
        values = options.pairs if name == PAIR else getattr(options, name)
        if values:  # texts, or a protocol's value
            requested[name] = parse(name, list(map(str, values)), default)
    fixed = {name: value for name in FIXED if (value := getattr(options, name)) is not None}
    unlimited = options.trials is options.total_epochs is options.minutes is None
    budget = Budget(50 if unlimited else options.trials, options.total_epochs, options.minutes)
    return Search(requested, fixed, budget, options.search_seed)


def parse(name: str, texts: Sequence[str], default: Dimension) -> Dimension:
    """Read a dimension from the words of its flag: `LOW..HIGH`, or the values to choose from.

    Args:
        name: a field of `Config`, or `pair`.
        texts: the words.
        default: the dimension to replace; a new range keeps its scale.

    Raises:
        InputError: a word is not of the field's type, or low is not below high.
    """
    kind: Callable[[str], Any] = str if name == PAIR else type(getattr(Config, name))
    try:
        if len(texts) == 1 and ".." in texts[0] and kind is not str:
            low, high = (kind(text) for text in texts[0].split(".."))
            return Range(low, high, isinstance(default, Range) and default.log)
        return Choice(tuple(dict.fromkeys(kind(text) for text in texts)))
    except InputError as error:
        raise InputError(f"{flag(name)} {error}") from None
    except ValueError:
        raise InputError(f"{flag(name)} {' '.join(texts)}: write LOW..HIGH, or the values to choose from") from None


def make_config(point: Mapping[str, Any], fixed: Mapping[str, Any]) -> Config:
    """Return the configuration at a point of a space; `fixed` has the fields that are no dimension of it.

    Numbers are rounded to three significant digits, so that the name is readable and can be typed as flags.
    """
    rounded: dict[str, Any] = {
        name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in point.items()
    }
    image, text = split_pair(str(rounded.pop(PAIR)))
    return Config(image_encoder=image, text_encoder=text, **fixed, **rounded)


def point_of(config: Config, space: Space) -> dict[str, Any]:
    """Return the point of a space at which a configuration lies."""
    values = {**dataclasses.asdict(config), PAIR: join_pair(config)}
    return {name: dimension.nearest(values[name]) for name, dimension in space.items()}


def corners(search: Search) -> list[Config]:
    """Return the fastest and the slowest configuration of each pair, for checks and estimates.

    Raises:
        InputError: any value of a dimension fails its field's check.
    """
    space = search.space
    first = {name: dimension.ends[0] for name, dimension in space.items()}
    for name, dimension in space.items():
        for value in dimension.ends:
            make_config({**first, name: value}, search.fixed)
    _check_widths(space)
    fast, slow = dict(first), dict(first)
    for name, dimension in space.items():
        if not isinstance(dimension.ends[0], str):
            ends = sorted(dimension.ends, reverse=name == "batch_size")
            fast[name], slow[name] = ends[0], ends[-1]
    return [make_config({**corner, PAIR: pair}, search.fixed) for pair in space[PAIR].ends for corner in (fast, slow)]


def _check_widths(space: Space) -> None:
    """Check that each D suits each head: some need multiples of a number, and a range contains any D."""
    widths = space.get("D", Choice((Config.D,)))
    for head in space["head"].ends if "head" in space else ():
        multiple = HEADS[head].D_multiple_of
        if multiple > 1 and (isinstance(widths, Range) or any(D % multiple for D in widths.values)):
            raise InputError(
                f"--D {widths}: --head {head} needs multiples of {multiple}; list them, as in --D 64 128 256"
            )
