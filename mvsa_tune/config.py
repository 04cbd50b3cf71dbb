"""Configurations, replicates and ASHA's settings: a field is a flag, a search dimension and a CSV column at once."""

import argparse
import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn, TypeVar

from mvsa_tune.dimensions import Choice, Dimension, Range
from mvsa_tune.errors import InputError, did_you_mean
from mvsa_tune.formats import short
from mvsa_tune.models.heads import HEADS

MODALITIES = ("image", "text")
# The reference's ablation codes → the modalities the head sees.
ABLATIONS: dict[int, tuple[str, ...]] = {0: ("image", "text"), 1: ("text",), 2: ("image",)}
SCHEDULES = ("constant", "linear", "cosine", "plateau")  # `training.optimizer` says what each does
NORMS = ("kept", "updated")

Kind = TypeVar("Kind")
Check = Callable[[Any], str | None]


def above(low: float) -> Check:
    """Return a check that a value is greater than `low`."""
    return lambda value: None if low < value < float("inf") else f"must be greater than {low:g}"


def at_least(low: float) -> Check:
    """Return a check that a value is `low` or more."""
    return lambda value: None if low <= value < float("inf") else f"must be {low:g} or more"


def within(low: float, high: float) -> Check:
    """Return a check that `low <= value < high`."""
    return lambda value: None if low <= value < high else f"must be at least {low:g} and below {high:g}"


def one_of(choices: Collection[Any]) -> Check:
    """Return a check that a value is among `choices`, as they are when it is checked: a registry may have grown."""
    return lambda value: None if value in choices else f"must be one of {', '.join(map(str, choices))}"


def setting(
    default: Any,
    doc: str,
    check: Check | None = None,
    *,
    search: Dimension | None = None,
    axis: bool = True,
    finetuning: bool = False,
) -> Any:
    """Declare a dataclass field with its documentation and check.

    A field with a `search` dimension is searched over it by default. An `axis` field's flag takes several values; a
    `finetuning` one keeps its default where the encoders are frozen.
    """
    metadata = {"doc": doc, "check": check, "search": search, "axis": axis, "finetuning": finetuning}
    return field(default=default, metadata=metadata)


def check_fields(values: Any) -> None:
    """Run the checks of a dataclass instance; InputError names the flag, the value and the rule it breaks."""
    for item in dataclasses.fields(values):
        check = item.metadata.get("check")
        value = getattr(values, item.name)
        problem = check(value) if check is not None and value is not None else None
        if problem:
            raise InputError(f"{flag(item.name)} {value}: {problem}")


def flag(name: str) -> str:
    """Return the command-line flag of a field."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Config:
    """One point of the search space: what one trial trains. The defaults are the reference's.

    With one modality the other's encoder is None, so that equal trainings have equal configurations.
    """

    image_encoder: str | None = field(default="clip-vit-b-32")
    text_encoder: str | None = field(default="clip-vit-b-32")
    head: str = setting(
        "concat",
        f"fusion head: {', '.join(HEADS)}",
        one_of(HEADS),
        search=Choice(("concat", "gated", "bilinear", "linear", "late")),  # those that attend need a D from a list
    )
    D: int = setting(256, "width of each modality's hidden layer", within(1, 2**16), search=Range(32, 1024, log=True))
    lr: float = setting(1e-4, "learning rate of Adam", above(0), search=Range(1e-5, 1e-2, log=True))
    batch_size: int = setting(
        512, "samples in a minibatch, at least 2", within(2, 2**24), search=Choice((32, 64, 128, 256, 512))
    )
    ablation: int = setting(0, "0 both modalities, 1 text only, 2 image only", one_of(ABLATIONS))
    epochs: int = setting(100, "passes over the training samples", at_least(1), axis=False)
    dropout: float = setting(0.3, "share of hidden units dropped in training", within(0, 1), search=Range(0.0, 0.7))
    weight_decay: float = setting(
        0.0, "decoupled weight decay (AdamW's); 0 is Adam", within(0, 1), search=Range(1e-6, 1e-1, log=True)
    )
    label_smoothing: float = setting(
        0.0, "share of a label spread over all classes in training", within(0, 1), search=Range(0.0, 0.2)
    )
    schedule: str = setting(
        "constant",
        "learning rate: constant; linear or cosine, to 0; plateau: a tenth when validation loss stalls for 6 epochs",
        one_of(SCHEDULES),
        search=Choice(("constant",)),
    )
    warmup: float = setting(
        0.0, "share of the steps in which the rate rises from 0", within(0, 1), search=Choice((0.0,))
    )
    normalise: str = setting(
        "none", "none, or l2: each vector scaled to length 1", one_of(["none", "l2"]), search=Choice(("none", "l2"))
    )
    select: str = setting(
        "accuracy",
        "a replicate's best epoch: that of the best validation accuracy, or of the least validation loss",
        one_of(["accuracy", "loss"]),
        axis=False,
    )
    precision: str = setting("float32", "float32, or bf16 mixed precision", one_of(["float32", "bf16"]), axis=False)
    encoder_lr: float = setting(0.0, "learning rate of the encoders", at_least(0), finetuning=True)
    frozen: float = setting(0.0, "share of an encoder's first layers that stay frozen", within(0, 1), finetuning=True)
    batchnorm: str = setting(
        "kept", "an encoder's BatchNorm statistics: kept, or updated by each minibatch", one_of(NORMS), finetuning=True
    )
    accumulation: int = setting(
        1, "parts of a minibatch, one after another, for less memory", at_least(1), axis=False, finetuning=True
    )

    def __post_init__(self) -> None:
        check_fields(self)
        for name in FINETUNING:
            if not self.finetuned and getattr(self, name) != getattr(Config, name):
                raise InputError(f"{flag(name)} {getattr(self, name)}: of no use with frozen encoders (encoder_lr 0)")
        if self.D % (multiple := HEADS[self.head].D_multiple_of):
            raise InputError(f"--D {self.D}: --head {self.head} needs a multiple of {multiple}")
        for modality in MODALITIES:
            if modality not in self.modalities:
                object.__setattr__(self, f"{modality}_encoder", None)
            elif getattr(self, f"{modality}_encoder") is None:
                raise InputError(f"--ablation {self.ablation} needs an encoder for the {modality}")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the head sees, in the order in which it concatenates them."""
        return ABLATIONS[self.ablation]

    @property
    def finetuned(self) -> bool:
        """Whether the encoders are trained with the head."""
        return self.encoder_lr > 0

    @property
    def encoders(self) -> dict[str, str]:
        """Encoder by modality, for the modalities in use."""
        return {modality: getattr(self, f"{modality}_encoder") for modality in self.modalities}

    @cached_property
    def id(self) -> str:
        """Ten hexadecimal digits: a hash of the fields that differ from their defaults.

        So a new field leaves all ids as they are. A default, once released, never changes.
        """
        fields = [(item.name, getattr(self, item.name), item.default) for item in dataclasses.fields(self)]
        changed = {name: value for name, value, default in fields if value != default}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def name(self) -> str:
        """A short name for people: encoders, D, lr, batch size, then whatever is not the reference's default."""
        encoders = "+".join(self.encoders.values())
        words = [encoders + {0: "", 1: " (text)", 2: " (image)"}[self.ablation]]
        words += [f"D={self.D}", f"lr={short(self.lr)}", f"bs={self.batch_size}", self.other_changes]
        return " ".join(filter(None, words))

    @property
    def other_changes(self) -> str:
        """What differs from the reference besides encoders, D, lr, batch size and ablation: `epochs=20 dropout=0.5`."""
        named = {"image_encoder", "text_encoder", "ablation", "D", "lr", "batch_size"}
        return " ".join(
            f"{item.name}={short(getattr(self, item.name))}"
            for item in dataclasses.fields(self)
            if item.name not in named and getattr(self, item.name) != item.default
        )


def config_from_texts(texts: Mapping[str, str]) -> Config:
    """Return the configuration whose fields are texts, as in a CSV; a missing one has its default.

    Raises:
        ValueError: a text is not of its field's type, or a value is out of range.
    """
    values: dict[str, Any] = {}
    for item in dataclasses.fields(Config):
        if item.name in texts:
            text = texts[item.name]
            kind: Callable[[str], Any] = type(getattr(Config, item.name))
            values[item.name] = kind(text) if item.metadata else text or None  # an encoder may be none
    return Config(**values)


CONFIG_FIELDS = tuple(item.name for item in dataclasses.fields(Config))
CONFIG_HELP = {item.name: item.metadata["doc"] for item in dataclasses.fields(Config) if item.metadata}
# The fields that take several values in a grid; those that are flags of fine-tuning alone, and of every sweep.
AXES = tuple(item.name for item in dataclasses.fields(Config) if item.metadata.get("axis"))
FINETUNING = tuple(item.name for item in dataclasses.fields(Config) if item.metadata.get("finetuning"))
CONFIG_FLAGS = tuple(name for name in CONFIG_HELP if name not in FINETUNING)
# The dimensions of a search, by field.
SEARCH_SPACE: dict[str, Dimension] = {
    item.name: item.metadata["search"] for item in dataclasses.fields(Config) if item.metadata.get("search")
}


def product(grid: Mapping[str, Sequence[Any]]) -> list[Config]:
    """Return every combination of a grid's values, once. `pair` holds `IMAGE+TEXT`; an absent axis is its default.

    Raises:
        InputError: a value breaks its field's check, or a pair is not `IMAGE+TEXT`.
    """
    axes = {"pair": [f"{Config.image_encoder}+{Config.text_encoder}"], **grid}
    configs = []
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        image, text = split_pair(point.pop("pair"))
        configs.append(Config(image_encoder=image, text_encoder=text, **point))
    return list(dict.fromkeys(configs))


def union(grids: Iterable[Mapping[str, Sequence[Any]]]) -> list[Config]:
    """Return the configurations of several grids, each once, in order."""
    return list(dict.fromkeys(config for grid in grids for config in product(grid)))


def split_pair(pair: str) -> tuple[str, str]:
    """Split `IMAGE+TEXT` into the two encoders' names."""
    image, plus, text = pair.partition("+")
    if not (image and plus and text) or "+" in text:
        raise InputError(
            f"--pairs {pair}: write a pair as IMAGE_ENCODER+TEXT_ENCODER, with one +; an encoder whose name holds a + "
            "can have a cache of another name: `mvsa-tune embed --encoder … --as NAME`"
        )
    return image, text


def join_pair(config: Config) -> str:
    """Return the `IMAGE+TEXT` of a configuration that sees both."""
    return f"{config.image_encoder}+{config.text_encoder}"


@dataclass(frozen=True)
class Replicate:
    """One seed on one fold: with a configuration, all that its numbers depend on."""

    seed: int
    fold: int = 0


@dataclass(frozen=True)
class Asha:
    """Settings of asynchronous successive halving (Li et al. 2020, arXiv:1810.05934).

    At each rung (grace period × reduction factor^k epochs) a trial goes on if it is among the best 1 / reduction factor
    of those that have come that far; the others are stopped.
    """

    grace_period: int = setting(5, "ASHA: epochs before a trial may be stopped", at_least(1), axis=False)
    reduction_factor: float = setting(3.0, "ASHA: one in so many goes on at a rung", above(1), axis=False)
    brackets: int = setting(1, "ASHA: brackets, each with a later first rung", at_least(1), axis=False)

    def __post_init__(self) -> None:
        check_fields(self)

    def milestones(self, epochs: int) -> tuple[int, ...]:
        """Return the epochs of the rungs of trials of `epochs` epochs.

        Raises:
            InputError: there are more brackets than rungs for them to begin at.
        """
        rungs = (self.grace_period * self.reduction_factor**k for k in itertools.count())
        ends = tuple(math.ceil(rung) for rung in itertools.takewhile(lambda rung: rung < epochs, rungs))
        if self.brackets > max(1, len(ends)):
            raise InputError(
                f"--brackets {self.brackets}: with {epochs} epochs there are {len(ends)} rungs to begin at"
            )
        return ends


class Parser(argparse.ArgumentParser):
    """An argument parser that raises InputError, and has groups."""

    def group(self, title: str) -> argparse._ArgumentGroup:
        """Return the group of flags with this title, which stand together in the help; a new one comes last."""
        groups = {group.title: group for group in self._action_groups}
        return groups.get(title) or self.add_argument_group(title)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Return the flags; a flag that there is not raises with the one that was probably meant."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{did_you_mean(unknown[0], self.flags())}")
        return options

    def flags(self) -> dict[str, argparse.Action]:
        """Return what the parser knows, by long flag, in order."""
        return {name: action for action in self._actions for name in action.option_strings if name.startswith("--")}

    def error(self, message: str) -> NoReturn:
        """Raise an InputError that says what was wrong."""
        raise InputError(f"{message} (--help lists the flags)")


def add_flags(
    parser: argparse._ActionsContainer,
    kind: type,
    names: Collection[str] | None = None,
    defaults: Mapping[str, str] | None = None,
) -> None:
    """Add a flag for each `setting` of a dataclass, or for those in `names`; a flag that is not used leaves None.

    `parser` is a parser or a group of one. `defaults` says in the help what an unused flag means, where that is not the
    field's own default.
    """
    for item in dataclasses.fields(kind):
        if not item.metadata or (names is not None and item.name not in names):
            continue
        parser.add_argument(
            flag(item.name),
            dest=item.name,
            type=type(item.default),
            nargs="+" if item.metadata["axis"] else None,
            metavar={int: "N", float: "X"}.get(type(item.default), "NAME"),
            help=f"{item.metadata['doc']} (default {(defaults or {}).get(item.name, short(item.default))})",
        )


def from_flags(kind: type[Kind], options: argparse.Namespace) -> Kind:
    """Return a dataclass of the flags that `add_flags` added, with its own defaults for unused ones."""
    values = {item.name: getattr(options, item.name) for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if value is not None})
