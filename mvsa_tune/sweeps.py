"""The three sweeps: what each sweeps by default, its flags, and how it is run."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mvsa_tune.config import SEARCH_SPACE, Config, Parser, union
from mvsa_tune.data.demo import PAIRS as DEMO_PAIRS
from mvsa_tune.data.demo import TRAINABLE_PAIRS
from mvsa_tune.dimensions import Choice
from mvsa_tune.errors import InputError
from mvsa_tune.machine import report_errors
from mvsa_tune.tune.flags import (
    Grid,
    add_finetuning_flags,
    add_grid_flags,
    add_search_flags,
    parse_sweep,
    requested_grids,
    sweep_parser,
)
from mvsa_tune.tune.space import PAIR, Search, Space, make_search
from mvsa_tune.tune.sweep import carry_out

B32, L14, RESNET = "clip-vit-b-32+clip-vit-b-32", "clip-vit-l-14+clip-vit-l-14", "resnet50+roberta-base"
D, LR = [128, 256], [2e-5, 1e-4]
GRID_REFERENCE: list[Grid] = [
    {"pair": [B32, RESNET], "D": D, "lr": LR},  # table 1
    {"pair": [L14], "D": D, "lr": LR},  # table 2
    {"pair": [B32, L14], "D": D, "lr": LR, "batch_size": [32]},  # table 3
    {"pair": [B32, RESNET], "ablation": [2, 1]},  # table 4
]
FINETUNE_DEFAULTS: Grid = {"pair": [RESNET], "batch_size": [64]}
FINETUNE_REFERENCE: list[Grid] = [
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
        examples: for `--help`, too: the flags of two.
        seeds: the default number of seeds.
        add_flags: adds the flags that the other kinds lack to a parser.
        requested: returns the configurations, or the search, that parsed flags ask for.
        demo_pairs: the pairs of `--demo`.
        finetuning: whether the encoders are fine-tuned.
    """

    name: str
    description: str
    examples: Sequence[str]
    seeds: int
    add_flags: Callable[[Parser], None]
    requested: Callable[[Namespace], list[Config] | Search]
    demo_pairs: Sequence[str] = DEMO_PAIRS
    finetuning: bool = False

    def parse(self, arguments: Sequence[str] | None = None, program: str | None = None) -> Namespace:
        """Return the flags in `arguments`, by default those of the process; InputError says what is wrong with them."""
        program = program or f"python sweeps/{self.name}.py"
        texts = program, self.name, self.description, self.examples
        parser = sweep_parser(*texts, seeds=self.seeds, finetuning=self.finetuning)
        self.add_flags(parser)
        return parse_sweep(parser, self.name, arguments, self.demo_pairs)

    def run(self, options: Namespace, *, show: bool = True) -> int:
        """Plan and run what parsed flags ask for; return the exit code. `show` says whether to print the tables."""
        return carry_out(options, self.requested, show=show)

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run the script on these arguments, by default those of the process; return the exit code."""
        return report_errors(lambda: self.run(self.parse(arguments)), f"{self.name}.py")


def _finetuned(options: Namespace) -> list[Config]:
    grids = requested_grids(options, FINETUNE_REFERENCE, FINETUNE_DEFAULTS)
    return union(part for grid in grids for part in _with_encoder_lr(grid))


def _with_encoder_lr(grid: Grid) -> list[Grid]:
    """Return the grid; without values of `encoder_lr`, a grid for each `lr`, which the encoders take, too."""
    if 0.0 in grid.get("encoder_lr", []):
        raise InputError("--encoder-lr 0: encoders that are not trained are for sweeps/grid.py")
    if "encoder_lr" in grid:
        return [grid]
    return [{**grid, "lr": [lr], "encoder_lr": [lr]} for lr in grid.get("lr", [Config.lr])]


GRID = Sweep(
    "grid",
    "Sweep a grid: the reference experiment's, or any that flags give.",
    examples=("--demo", "--pairs mobilenet_v2+minilm --D 128 256 --lr 2e-5 1e-4"),
    seeds=5,
    add_flags=add_grid_flags,
    requested=lambda options: union(requested_grids(options, GRID_REFERENCE, {"pair": [B32]})),
)
SEARCH = Sweep(
    "search",
    "Search a space by Optuna's TPE and ASHA, and train the finalists again on fresh seeds.",
    examples=("--demo --trials 12", "--pairs mobilenet_v2+minilm --lr 1e-5..1e-3 --D 64 128 256 --minutes 20"),
    seeds=3,
    add_flags=lambda parser: add_search_flags(parser, SEARCHED),
    requested=lambda options: make_search(options, SEARCHED),
)
FINETUNE = Sweep(
    "finetune",
    "Fine-tune encoders end to end with the head: the reference's rows, or any pair.",
    examples=("--demo", "--pairs resnet50+roberta-base --encoder-lr 2e-5 5e-5 --epochs 4"),
    seeds=3,
    add_flags=add_finetuning_flags,
    requested=_finetuned,
    demo_pairs=TRAINABLE_PAIRS,
    finetuning=True,
)
SWEEPS = {sweep.name: sweep for sweep in (GRID, SEARCH, FINETUNE)}
