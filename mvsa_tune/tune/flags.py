"""The flags of the sweeps, how they are read with a protocol's defaults, and the grid that they ask for."""

from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mvsa_tune.cluster.session import add_cluster_flags
from mvsa_tune.config import AXES, CONFIG_FLAGS, CONFIG_HELP, FINETUNING, Asha, Config, Parser, add_flags, flag
from mvsa_tune.data.dataset import DEFAULT_DATA, add_data_flags
from mvsa_tune.data.demo import PAIRS as DEMO_PAIRS
from mvsa_tune.data.splits import split_usage
from mvsa_tune.data.text import NORMALISERS
from mvsa_tune.protocols import PROTOCOLS
from mvsa_tune.tune.space import FIXED, PAIR, Space

Grid = Mapping[str, Sequence[Any]]


def arguments_of(values: Mapping[str, Any]) -> list[str]:
    """Return the command line that a mapping stands for, as `["--D", "128", "256", "--demo"]`.

    Args:
        values: by a flag's name, with `_` or `-`: a value, several in a list, `NAME=VALUE` pairs in a mapping, True for
            a flag without a value; False and None leave the flag out.
    """
    arguments = []
    for name, value in values.items():
        if value is None or value is False:
            continue
        arguments.append(flag(name))
        if isinstance(value, Mapping):
            arguments += [f"{key}={item}" for key, item in value.items()]
        elif isinstance(value, Iterable) and not isinstance(value, str):
            arguments += map(str, value)
        elif value is not True:
            arguments.append(str(value))
    return arguments


def sweep_parser(program: str, name: str, description: str, *, seeds: int, finetuning: bool = False) -> Parser:
    """Return a parser with the flags that every sweep has.

    Args:
        program: what the user calls.
        name: the sweep's default name.
        description: one line.
        seeds: the default number of seeds.
        finetuning: whether the encoders are fine-tuned, so that there are no embedding caches.
    """
    parser = Parser(prog=program, description=description)
    add = parser.add_argument
    add_data_flags(parser, caches=not finetuning)
    add("--demo", action="store_true", help="use the built-in demo set, which is written to data/demo")
    add("--pairs", nargs="+", metavar="IMAGE+TEXT", help="pairs of encoders (default: the reference experiment's)")
    add("--seeds", type=int, default=seeds, metavar="N", help=f"train N seeds: 42, 43, … (default {seeds})")
    add("--seed-list", type=int, nargs="+", metavar="SEED", help="train these seeds instead")
    default = "on the reference's data reference-finetune, else the protocol's" if finetuning else "the protocol's"
    add("--split", metavar="SPLIT", help=f"{split_usage()} (default: {default})")
    add("--protocol", choices=list(PROTOCOLS), default="reference", help="whose defaults to take (default reference)")
    add("--scheduler", choices=["asha", "none"], default="asha", help="what stops trials early (default asha)")
    add_flags(parser, Asha)
    add("--max-failures", type=int, default=1, metavar="N", help="try a failed trial again N times (default 1)")
    add("--name", default=name, help=f"name of the sweep and of its results folder (default {name}; demo with --demo)")
    add("--results", type=Path, default=Path("results"), metavar="DIR", help="where results go (default results)")
    add("--storage", metavar="URI", help="copy results to a path or URI after each trial, and continue from there")
    add("--cpus-per-trial", type=int, metavar="N", help="CPU threads of each trial (default: all, shared evenly)")
    add("--gpus-per-trial", type=float, metavar="N", help="GPUs of each trial, 0.25 for a quarter of one")
    add("--memory-per-trial", type=float, metavar="GIB", help="memory to reserve on a cluster (default: an estimate)")
    add_cluster_flags(parser)
    if not finetuning:
        add("--embed", action="store_true", help="make missing embedding caches first")
    lacking = "whose encoders cannot be loaded" if finetuning else "without an embedding cache"
    add("--skip-missing", action="store_true", help=f"leave out configurations {lacking}")
    add("--dry-run", action="store_true", help="print the plan with estimates of memory and time, and run nothing")
    add("--like", type=Path, metavar="SWEEP", help="with --dry-run: an earlier sweep, to say what this one can see")
    add("--no-report", dest="report", action="store_false", help="write no report.html")
    add("--quiet", action="store_true", help="print nothing but the tables")
    return parser


def add_search_flags(parser: Parser, space: Space) -> None:
    """Add a flag for each dimension of a search space, and those of its budget and its finalists."""
    add = parser.add_argument
    for name, dimension in space.items():
        if name != PAIR:
            text = f"{CONFIG_HELP[name]} (default {dimension})"
            add(flag(name), dest=name, nargs="+", metavar="LOW..HIGH|VALUE", help=text)
    add_flags(parser, Config, FIXED)
    add("--trials", type=int, metavar="N", help="end after N trials (default 50, unless another limit is given)")
    add("--total-epochs", type=int, metavar="N", help="end when N epochs have been trained")
    add("--minutes", type=float, metavar="N", help="start no trial after N minutes")
    add("--search-seed", type=int, default=0, metavar="N", help="seed of the sampler (default 0)")
    add("--finalists", type=int, default=3, metavar="K", help="train the best K again (default 3)")
    add("--confirm-seeds", type=int, default=10, metavar="N", help="on N fresh seeds each (default 10)")


def add_finetuning_flags(parser: Parser) -> None:
    """Add the flags that say how encoders are fine-tuned."""
    add = parser.add_argument
    add("--weights", nargs="+", default=[], metavar="ENCODER=PATH", help="weights of encoders (default: the hub's)")
    add("--text", choices=list(NORMALISERS), default="reference", help="normalisation of tweets (default reference)")
    add("--skip-bad", action="store_true", help="leave out samples that cannot be read")
    add("--gradient-checkpointing", action="store_true", help="less memory for more time, the same numbers")
    add("--checkpoint-seconds", type=float, default=60, metavar="N", help="seconds between checkpoints (default 60)")


def parse_sweep(parser: Parser, arguments: Sequence[str] | None, demo_pairs: Sequence[str] = DEMO_PAIRS) -> Namespace:
    """Parse, with the protocol's defaults; `--demo` sets the data, and the pairs unless they are given."""
    protocol = PROTOCOLS[parser.parse_args(arguments).protocol]
    parser.set_defaults(**{name: [value] if name in AXES else value for name, value in protocol.fields.items()})
    if protocol.seeds:
        parser.set_defaults(seeds=protocol.seeds)
    options = parser.parse_args(arguments)
    if options.demo:
        if options.data != DEFAULT_DATA:
            parser.error("--demo has data of its own: leave --data out")
        options.data = Path("data/demo")
        options.pairs = options.pairs or list(demo_pairs)
        if options.name == (default := parser.get_default("name")):
            options.name = "demo" if default == "grid" else f"demo-{default}"
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
