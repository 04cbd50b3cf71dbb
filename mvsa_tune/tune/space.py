"""What a search is: the values that each dimension of a configuration may take, as its flag writes them, and a budget."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mvsa_tune.config import Config, flag, join_pair, split_pair
from mvsa_tune.dimensions import Choice, Dimension, Range
from mvsa_tune.errors import InputError
from mvsa_tune.formats import short
from mvsa_tune.models.heads import HEADS

PAIR = "pair"


Space = Mapping[str, Dimension]


def parse(name: str, texts: Sequence[str], default: Dimension) -> Dimension:
    """Read a dimension from its flag's words: `LOW..HIGH`, or the values to choose from.

    Args:
        name: the field of `Config`, or `pair`.
        texts: the flag's words.
        default: the dimension that it replaces; a range keeps its scale.

    Raises:
        InputError: a word is not of the field's kind, or a range does not rise.
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
    """The configuration at a point of a space; `fixed` are the fields that are no dimension of it.

    Drawn numbers keep three significant digits: a name that can be read, and typed as flags.
    """
    drawn = {name: float(f"{value:.3g}") if isinstance(value, float) else value for name, value in point.items()}
    fields = {**fixed, **{name: value for name, value in drawn.items() if name != PAIR}}
    image, text = split_pair(str(point[PAIR]))
    return Config(image_encoder=image, text_encoder=text, **fields)


def point_of(config: Config, space: Space) -> dict[str, Any]:
    """The point of a space at which a configuration lies."""
    values = {**dataclasses.asdict(config), PAIR: join_pair(config)}
    return {name: dimension.nearest(values[name]) for name, dimension in space.items()}


def corners(space: Space, fixed: Mapping[str, Any]) -> list[Config]:
    """For each pair the configurations of the least and the greatest cost: what checks and estimates look at.

    Every value of every dimension is checked on the way.

    Raises:
        InputError: a value breaks its field's check.
    """
    pairs = space[PAIR].ends
    first = {name: dimension.ends[0] for name, dimension in space.items()}
    for name, dimension in space.items():
        for value in dimension.ends:
            make_config({**first, name: value}, fixed)
    _check_widths(space)
    numbers = {
        name: (min(dimension.ends), max(dimension.ends))
        for name, dimension in space.items()
        if not isinstance(dimension.ends[0], str)
    }
    cheap = {name: high if name == "batch_size" else low for name, (low, high) in numbers.items()}
    dear = {name: low if name == "batch_size" else high for name, (low, high) in numbers.items()}
    return [make_config({**first, **ends, PAIR: pair}, fixed) for pair in pairs for ends in (cheap, dear)]


def _check_widths(space: Space) -> None:
    """Check that every D suits every head; a range draws any D.

    Raises:
        InputError: a D is not a multiple of what a head needs.
    """
    widths = space.get("D", Choice((Config.D,)))
    for head in space["head"].ends if "head" in space else ():
        multiple = HEADS[head].D_multiple_of
        if multiple > 1 and (isinstance(widths, Range) or any(D % multiple for D in widths.values)):
            raise InputError(
                f"--D {widths}: --head {head} needs multiples of {multiple}; list them, as in --D 64 128 256"
            )


@dataclass(frozen=True)
class Budget:
    """What a search may spend; the first limit reached ends it. Trials that run then are trained on.

    Attributes:
        trials: configurations, those recorded by earlier commands included.
        total_epochs: epochs trained, those of recorded trials included.
        minutes: minutes of this command.
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
        """Whether no further trial may begin."""
        return (
            (self.trials is not None and trials >= self.trials)
            or (self.total_epochs is not None and epochs >= self.total_epochs)
            or (self.minutes is not None and time.monotonic() - self.started >= 60 * self.minutes)
        )


@dataclass(frozen=True)
class Search:
    """What a search is: where it looks, what stays as it is, what it may spend, and the seed of its sampler."""

    space: Space
    fixed: Mapping[str, Any]
    budget: Budget
    seed: int
