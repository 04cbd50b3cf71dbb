"""The three sweeps: what each sweeps by default, its flags, and how it is run."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvsa_tune.config import CONFIG_FLAGS, FINETUNING, SEARCH_SPACE, Config, Parser, add_flags, union
from mvsa_tune.data.demo import PAIRS as DEMO_PAIRS
from mvsa_tune.data.demo import TRAINABLE_PAIRS
from mvsa_tune.dimensions import Choice
from mvsa_tune.errors import InputError
from mvsa_tune.machine import report_errors
from mvsa_tune.tune.flags import add_finetuning_flags, add_search_flags, parse_sweep, requested_grids, sweep_parser
from mvsa_tune.tune.space import PAIR, Search, Space, make_search
from mvsa_tune.tune.sweep import carry_out

B32, L14, RESNET = "clip-vit-b-32+clip-vit-b-32", "clip-vit-l-14+clip-vit-l-14", "resnet50+roberta-base"
D, LR = [128, 256], [2e-5, 1e-4]
GRID_REFERENCE = [
    {"pair": [B32, RESNET], "D": D, "lr": LR},  # table 1
    {"pair": [L14], "D": D, "lr": LR},  # table 2
    {"pair": [B32, L14], "D": D, "lr": LR, "batch_size": [32]},  # table 3
    {"pair": [B32, RESNET], "ablation": [2, 1]},  # table 4
]
FINETUNE_DEFAULTS = {"pair": [RESNET], "batch_size": [64]}
FINETUNE_REFERENCE = [
    # table 1, rows 9 and 10; and what they are with a BatchNorm for each modality
    {"lr": LR, "head": ["concat-shared-norm", "concat"], "batchnorm": ["updated"]},
    {"ablation": [2, 1], "batchnorm": ["updated"]},  # table 4, rows 5 and 6
]
# The pairs, and every field of `Config` that declares a dimension.
SEARCHED: Space = {PAIR: Choice((B32, L14, RESNET)), **SEARCH_SPACE}


@dataclass(frozen=True)
class Sweep:
    """A kind of sweep, which is a command and a script of the same name.

    Attributes:
        name: of the command, and of its results folder by default.
        description: one line for `--help`.
        seeds: the default number of seeds.
        add_flags: adds the flags that the other kinds lack to a parser.
        requested: returns the configurations, or the search, that parsed flags ask for.
        demo_pairs: the pairs of `--demo`.
        finetuning: whether the encoders are fine-tuned.
    """

    name: str
    description: str
    seeds: int
    add_flags: Callable[[Parser], None]
    requested: Callable[[Namespace], list[Config] | Search]
    demo_pairs: Sequence[str] = DEMO_PAIRS
    finetuning: bool = False

    def parse(self, arguments: Sequence[str] | None = None, program: str | None = None) -> Namespace:
        """Return the flags in `arguments`, by default those of the process; InputError says what is wrong with them."""
        program = program or f"{self.name}.py"
        parser = sweep_parser(program, self.name, self.description, seeds=self.seeds, finetuning=self.finetuning)
        self.add_flags(parser)
        return parse_sweep(parser, arguments, self.demo_pairs)

    def run(self, options: Namespace) -> int:
        """Plan and run what parsed flags ask for; return the exit code."""
        return carry_out(options, self.requested)

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the script on these arguments, by default those of the process; return the exit code."""
        return report_errors(lambda: self.run(self.parse(arguments)), f"{self.name}.py")


def _finetuned(options: Namespace) -> list[Config]:
    grids = requested_grids(options, FINETUNE_REFERENCE, FINETUNE_DEFAULTS)
    return union(part for grid in grids for part in _with_encoder_lr(grid))


def _with_encoder_lr(grid: Mapping[str, Sequence[Any]]) -> list[Mapping[str, Sequence[Any]]]:
    """Return the grid; without values of `encoder_lr`, a grid for each `lr`, which the encoders take, too."""
    if 0.0 in grid.get("encoder_lr", []):
        raise InputError("--encoder-lr 0: encoders that are not trained are for sweeps/grid.py")
    if "encoder_lr" in grid:
        return [grid]
    return [{**grid, "lr": [lr], "encoder_lr": [lr]} for lr in grid.get("lr", [Config.lr])]


def _add_finetuning_flags(parser: Parser) -> None:
    add_flags(parser, Config, (*CONFIG_FLAGS, *FINETUNING), {"batch_size": "64", "encoder_lr": "the head's"})
    add_finetuning_flags(parser)


GRID = Sweep(
    "grid",
    "Sweep a grid: the reference experiment's, or any that flags give.",
    seeds=5,
    add_flags=lambda parser: add_flags(parser, Config, CONFIG_FLAGS),
    requested=lambda options: union(requested_grids(options, GRID_REFERENCE, {"pair": [B32]})),
)
SEARCH = Sweep(
    "search",
    "Search a space with Optuna's TPE and ASHA, then train the finalists again on fresh seeds.",
    seeds=3,
    add_flags=lambda parser: add_search_flags(parser, SEARCHED),
    requested=lambda options: make_search(options, SEARCHED),
)
FINETUNE = Sweep(
    "finetune",
    "Fine-tune encoders end to end with the head: the reference experiment's fine-tuned rows, or any pair.",
    seeds=3,
    add_flags=_add_finetuning_flags,
    requested=_finetuned,
    demo_pairs=TRAINABLE_PAIRS,
    finetuning=True,
)
SWEEPS = {sweep.name: sweep for sweep in (GRID, SEARCH, FINETUNE)}
