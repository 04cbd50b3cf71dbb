"""The flags of the sweeps, how they are read with a protocol's defaults, and the grid that they ask for."""

import argparse
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvsa_tune.cluster.session import add_cluster_flags
from mvsa_tune.config import AXES, CONFIG_FLAGS, CONFIG_HELP, FINETUNING, Asha, Config, Parser, add_flags, flag
from mvsa_tune.data.dataset import DEFAULT_DATA, add_data_flags
from mvsa_tune.data.demo import PAIRS as DEMO_PAIRS
from mvsa_tune.data.splits import split_usage
from mvsa_tune.data.text import NORMALISERS
from mvsa_tune.protocols import PROTOCOLS
from mvsa_tune.tune.seeds import SeedCounts
from mvsa_tune.tune.space import FIXED, PAIR, Space
from mvsa_tune.tune.sweep_file import arguments_of as arguments_of
from mvsa_tune.tune.sweep_file import read_sweep_file, sweep_file

Grid = Mapping[str, Sequence[Any]]
DEMO_DATA = Path("data/demo")
SWEPT, BUDGET = "what is swept", "budget and finalists"


def sweep_parser(
    program: str, name: str, description: str, examples: Sequence[str], *, seeds: int, finetuning: bool = False
) -> Parser:
    """Return a parser with the flags that every sweep has, in groups.

    Args:
        program: what the user calls.
        name: the sweep's default name.
        description: one line.
        examples: the flags of each.
        seeds: the default number of seeds.
        finetuning: whether the encoders are fine-tuned, so that there are no embedding caches.
    """
    parser = Parser(
        prog=program,
        usage="%(prog)s [--config FILE] [FLAGS]",
        description="\n".join([description, *(f"    {program} {flags}" for flags in examples)]),
        formatter_class=CommonFlags,
        add_help=False,
        allow_abbrev=False,
    )
    _add_data(parser, finetuning=finetuning)
    parser.group(SWEPT)
    _add_training(parser, seeds=seeds)
    add = parser.group("early stopping").add_argument
    add("--scheduler", choices=["asha", "none"], default="asha", help="what stops trials early (default asha)")
    add_flags(parser.group("early stopping"), Asha)
    parser.group(BUDGET)
    add = parser.group("resources").add_argument
    add("--cpus-per-trial", type=int, metavar="N", help="CPU threads of each trial (default: all, shared evenly)")
    add("--gpus-per-trial", type=float, metavar="N", help="GPUs of each trial, 0.25 for a quarter of one")
    add("--memory-per-trial", type=float, metavar="GIB", help="memory to reserve on a cluster (default: an estimate)")
    add_cluster_flags(parser.group("resources"))
    _add_output(parser, name)
    return parser


def _add_data(parser: Parser, *, finetuning: bool) -> None:
    group = parser.group("data")
    add = group.add_argument
    add_data_flags(group, caches=not finetuning)
    add("--demo", action="store_true", help="use the built-in demo set, which is written to data/demo")
    add("--pairs", nargs="+", metavar="IMAGE+TEXT", help="pairs of encoders (default: the reference experiment's)")
    default = "on the reference's data reference-finetune, else the protocol's" if finetuning else "the protocol's"
    add("--split", metavar="SPLIT", help=f"{split_usage()} (default: {default})")
    if not finetuning:
        add("--embed", action="store_true", help="make missing embedding caches first")
    lacking = "whose encoders cannot be loaded" if finetuning else "without an embedding cache"
    add("--skip-missing", action="store_true", help=f"leave out configurations {lacking}")


def _add_training(parser: Parser, *, seeds: int) -> None:
    add = parser.group("training").add_argument
    seeds_help = f"train N seeds: 42, 43, …; FIRST..LAST: more where they decide (default {seeds})"
    default = SeedCounts(seeds, seeds)
    add("--seeds", type=SeedCounts.parse, default=default, metavar="N", action=_Count, help=seeds_help)
    add("--seed-list", type=int, nargs="+", metavar="SEED", help="train these seeds instead")
    protocol_help = f"whose defaults to take: {', '.join(PROTOCOLS)} (default reference)"
    add("--protocol", choices=list(PROTOCOLS), default="reference", help=protocol_help, metavar="NAME")
    add("--max-failures", type=int, default=1, metavar="N", help="try a failed trial again N times (default 1)")


class _Count(argparse.Action):
    """Stores a number of seeds, which takes the place of an earlier list of them: that of a file, say."""

    def __call__(self, parser: Any, options: Any, values: Any, flag: Any = None) -> None:
        options.seeds, options.seed_list = values, None


def _add_output(parser: Parser, name: str) -> None:
    add = parser.group("output").add_argument
    add("--name", default=name, help=f"its folder in --results (default {name}; demo with --demo)")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="where results go (default results)")
    add("--storage", metavar="URI", help="copy results to a path or URI after each trial, and continue from there")
    add("--no-report", dest="report", action="store_false", help="write no report.html")
    add("--log", choices=["mlflow", "wandb"], help="log each trial to MLflow or Weights & Biases as well")
    add("--quiet", action="store_true", help="print only the path of the results folder")
    add("--dry-run", action="store_true", help="print the plan with estimates of memory and time, and run nothing")
    add("--like", type=Path, metavar="SWEEP", help="with --dry-run: an earlier sweep, to say what this one can see")
    add("--config", type=Path, metavar="FILE", help="YAML with a key for each flag, as results/NAME/sweep.yaml is")
    add("--print-config", action="store_true", help="print that YAML for these flags, and run nothing")
    add("-h", "--help", action="help", help="show this; --help-all shows all flags")
    add("--help-all", action=_HelpAll, nargs=0, default=argparse.SUPPRESS, help="show all flags")


class AllFlags(argparse.RawDescriptionHelpFormatter):
    """Help with a line for most flags."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        return f"{action.metavar} …" if action.nargs == "+" else super()._format_args(action, default_metavar)


class CommonFlags(AllFlags):
    """Help without the flags that few need."""

    RARE = (
        *("layout", "labels", "merge", "encoding", "cache", "plugin", "skip_missing", "text", "skip_bad"),
        *("seed_list", "protocol", "max_failures", "select", "precision", "accumulation"),
        *("total_epochs", "search_seed", "confirm_seeds", "brackets"),
        *("memory_per_trial", "nodes", "gradient_checkpointing", "checkpoint_seconds"),
        *("storage", "report", "like", "help_all"),
    )

    def add_argument(self, action: argparse.Action) -> None:
        """Add a flag to the help."""
        if action.dest not in self.RARE:
            super().add_argument(action)


class _HelpAll(argparse.Action):
    """Prints the help with all flags."""

    def __call__(self, parser: Any, options: Any, values: Any, flag: Any = None) -> None:
        parser.formatter_class = AllFlags
        parser.print_help()
        parser.exit()


def add_search_flags(parser: Parser, space: Space) -> None:
    """Add a flag for each dimension of a search space, and those of its budget and its finalists."""
    swept = parser.group(SWEPT)
    for name, dimension in space.items():
        if name != PAIR:
            text = f"{CONFIG_HELP[name]} (default {dimension})"
            swept.add_argument(flag(name), dest=name, nargs="+", metavar="VALUE", help=text)
    swept.title = f"{SWEPT} (a range LOW..HIGH, or values to choose from)"
    add_flags(parser.group("training"), Config, FIXED)
    add = parser.group(BUDGET).add_argument
    add("--trials", type=int, metavar="N", help="end after N trials (default 50, unless another limit is given)")
    add("--total-epochs", type=int, metavar="N", help="end when N epochs have been trained")
    add("--minutes", type=float, metavar="N", help="start no trial after N minutes")
    add("--search-seed", type=int, default=0, metavar="N", help="seed of the sampler (default 0)")
    add("--finalists", type=int, default=3, metavar="K", help="train the best K again (default 3)")
    add("--confirm-seeds", type=int, default=10, metavar="N", help="on N fresh seeds each (default 10)")


def add_grid_flags(parser: Parser, names: Sequence[str] = CONFIG_FLAGS, **defaults: str) -> None:
    """Add a flag for each of these fields; `defaults` are what the help says where it is not the field's own."""
    for title, wanted in ((SWEPT, set(AXES)), ("training", set(names) - set(AXES))):
        add_flags(parser.group(title), Config, wanted & set(names), defaults)
    parser.group(SWEPT).title = f"{SWEPT} (several values each)"


def add_finetuning_flags(parser: Parser) -> None:
    """Add the flags that say how encoders are fine-tuned."""
    add_grid_flags(parser, (*CONFIG_FLAGS, *FINETUNING), batch_size="64", encoder_lr="the head's")
    add = parser.group("data").add_argument
    add("--weights", nargs="+", default=[], metavar="ENCODER=PATH", help="weights of encoders (default: the hub's)")
    add("--text", choices=list(NORMALISERS), default="reference", help="normalisation of tweets (default reference)")
    add("--skip-bad", action="store_true", help="leave out samples that cannot be read")
    add = parser.group("resources").add_argument
    add("--gradient-checkpointing", action="store_true", help="less memory for more time, the same numbers")
    add("--checkpoint-seconds", type=float, default=60, metavar="N", help="seconds between checkpoints (default 60)")


def parse_sweep(
    parser: Parser, command: str, arguments: Sequence[str] | None, demo_pairs: Sequence[str] = DEMO_PAIRS
) -> Namespace:
    """Parse, with the flags of `--config` before the given ones, and the protocol's defaults.

    `--demo` sets the data, and the pairs unless they are given. `yaml` of the result is the file for the same sweep.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if (options := parser.parse_args(arguments)).config:
        arguments = [*read_sweep_file(options.config, parser, command), *arguments]
    protocol = PROTOCOLS[parser.parse_args(arguments).protocol]
    parser.set_defaults(**{name: [value] if name in AXES else value for name, value in protocol.fields.items()})
    if protocol.seeds:
        parser.set_defaults(seeds=SeedCounts(protocol.seeds, protocol.seeds))
    options = parser.parse_args(arguments)
    if options.demo:
        if options.data not in (DEFAULT_DATA, DEMO_DATA):
            parser.error("--demo has data of its own: leave --data out")
        options.data = DEMO_DATA
        options.pairs = options.pairs or list(demo_pairs)
        if options.name == (default := parser.get_default("name")):
            options.name = "demo" if default == "grid" else f"demo-{default}"
    options.yaml = sweep_file(options, parser, command)
    if options.print_config:
        print(options.yaml, end="")
        parser.exit()
    return options


def requested_grids(options: Namespace, reference: Sequence[Grid], defaults: Grid) -> list[dict[str, Sequence[Any]]]:
    """Return the grids that the flags ask for, for `config.union`.

    Args:
        options: the flags. Once a flag of an axis is given there is one grid, of all axes given.
        reference: the grids if none is given; other flags apply to each of them.
        defaults: values of the axes that neither has, beginning with the pairs.
    """
    given: dict[str, Sequence[Any]] = {PAIR: options.pairs} if options.pairs else {}
    for name in (*CONFIG_FLAGS, *FINETUNING):
        if (value := getattr(options, name, None)) is not None:
            given[name] = value if isinstance(value, list) else [value]
    grids: Sequence[Grid] = [{}] if given.keys() & set(AXES) else reference
    return [{**defaults, **grid, **given} for grid in grids]
