"""What every sweep script shares: its flags, and the plan that they ask for, checked before anything starts."""

import sys
from argparse import Namespace
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from mvsa_tune.cluster.resources import Placement, place
from mvsa_tune.cluster.session import add_cluster_flags, address_of, nodes_of, this_machine
from mvsa_tune.config import AXES, CONFIG_FLAGS, Asha, Config, Parser, Replicate, add_flags, from_flags
from mvsa_tune.data.dataset import DEFAULT_DATA, Dataset, add_data_flags, read_data
from mvsa_tune.data.demo import PAIRS as DEMO_PAIRS
from mvsa_tune.data.demo import make_demo_set
from mvsa_tune.data.splits import Split, make_split, split_usage
from mvsa_tune.embeddings.cache import default_folder, find_caches
from mvsa_tune.embeddings.embed import embed
from mvsa_tune.embeddings.pipeline import Settings
from mvsa_tune.errors import InputError
from mvsa_tune.files import is_file_name
from mvsa_tune.protocols import PROTOCOLS
from mvsa_tune.tune.describe import costs, outline, show
from mvsa_tune.tune.plan import Plan
from mvsa_tune.tune.space import Search


def add_sweep_flags(parser: Parser, *, name: str, seeds: int, caches: bool = True) -> None:
    """Add the flags that every sweep has.

    Args:
        parser: to which.
        name: this sweep's default name.
        seeds: its default number of seeds.
        caches: whether it trains on embedding caches.
    """
    add_data_flags(parser, caches=caches)
    parser.add_argument("--demo", action="store_true", help="use the built-in demo set, made in data/demo")
    parser.add_argument("--pairs", nargs="+", metavar="IMAGE+TEXT", help="encoder pairs (default: the reference's)")
    parser.add_argument(
        "--seeds",
        type=int,
        default=seeds,
        metavar="N",
        help=f"replicates: seeds 42, 43, … (default {seeds}), each on every fold of the split",
    )
    parser.add_argument("--seed-list", type=int, nargs="+", metavar="SEED", help="the replicates' seeds, one by one")
    parser.add_argument("--split", metavar="HOW", help=f"{split_usage()} (default: the protocol's)")
    parser.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default="reference",
        help="defaults of every flag that is not given, and what is reported (default reference)",
    )
    parser.add_argument(
        "--scheduler", choices=["asha", "none"], default="asha", help="stop what cannot win (default asha), or nothing"
    )
    add_flags(parser, Asha)
    parser.add_argument(
        "--max-failures", type=int, default=1, metavar="N", help="how often a failed trial is tried again (default 1)"
    )
    parser.add_argument(
        "--name",
        default=name,
        help=f"the sweep's name, and its folder below --results (default {name}; demo with --demo)",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default results")
    parser.add_argument(
        "--storage",
        metavar="URI",
        help="copy the results below a shared path or a URI (s3://…) after each trial, and begin with the copy",
    )
    parser.add_argument("--cpus-per-trial", type=int, metavar="N", help="CPU threads of a trial (default: its share)")
    parser.add_argument("--gpus-per-trial", type=float, metavar="N", help="GPUs of a trial, 0.25 for a quarter")
    parser.add_argument("--memory-per-trial", type=float, metavar="GIB", help="on a cluster (default: the estimate)")
    add_cluster_flags(parser)
    if caches:
        parser.add_argument("--embed", action="store_true", help="make the caches that are missing first")
    lacking = "whose cache is missing" if caches else "whose encoders cannot be loaded"
    parser.add_argument("--skip-missing", action="store_true", help=f"go on without the pairs {lacking}")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, start nothing")
    parser.add_argument(
        "--no-report",
        dest="report",
        action="store_false",
        help="no report.html at the end (`report` makes it any time)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the tables")


def parse_sweep(parser: Parser, arguments: Sequence[str] | None, demo_pairs: Sequence[str] = DEMO_PAIRS) -> Namespace:
    """Parse, with the protocol's defaults; with `--demo` the data is the demo set, on pairs of the built-in encoders."""
    protocol = PROTOCOLS[parser.parse_args(arguments).protocol]
    parser.set_defaults(**{name: [value] if name in AXES else value for name, value in protocol.fields.items()})
    if protocol.seeds:
        parser.set_defaults(seeds=protocol.seeds)
    options = parser.parse_args(arguments)
    if options.demo:
        if options.data != DEFAULT_DATA:
            parser.error("--demo brings its own data: leave --data out")
        options.data = Path("data/demo")
        options.pairs = options.pairs or list(demo_pairs)
        default = parser.get_default("name")
        options.name = {"grid": "demo"}.get(default, f"demo-{default}") if options.name == default else options.name
    options.split = options.split or protocol.split_for(options.data)
    return options


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """Return the seeds; InputError if there are none or too many, one is there twice, or one that no generator takes."""
    if len(seeds) > 1000 or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**31 for seed in seeds or [-1]):
        raise InputError("--seeds, --seed-list: from 1 to 1,000 seeds, none twice, each at least 0 and below 2^31")
    return list(seeds)


def replicates(seeds: Sequence[int], split: Split) -> tuple[Replicate, ...]:
    """Every seed on every fold; on its own draw alone, where each seed has one.

    Raises:
        InputError: they are too many.
    """
    found = tuple(Replicate(seed, fold) for seed in seeds for fold in split.folds_of(seed))
    if len(found) > 1000:
        raise InputError(
            f"--split {split.name}: {len(found):,} replicates of each trial are too many; 1,000 are the most"
        )
    return found


def split_of(text: str, dataset: Dataset, seeds: Sequence[int], skipped: Collection[str]) -> Split:
    """The split that a flag asks for, without the samples that an encoder could not read."""
    return make_split(text, dataset, seeds).without(rows_of(dataset, skipped))


def rows_of(dataset: Dataset, guids: Collection[str]) -> set[int]:
    """The row numbers of samples."""
    return {row for row, guid in enumerate(dataset.guids) if guid in guids}


def fixed_fields(options: Namespace, names: Sequence[str] = CONFIG_FLAGS) -> dict[str, object]:
    """The fields of a configuration that single-valued flags set."""
    return {name: value for name in names if (value := getattr(options, name, None)) is not None}


def bare_plan(options: Namespace, configs: Sequence[Config], search: Search | None = None) -> Plan:
    """Check what every kind of sweep asks for: name, data, seeds, stopping, resources.

    Args:
        options: the flags of `add_sweep_flags`.
        configs: what to run; in a search, the corners of its space.
        search: the search.

    Returns:
        A plan without any vectors.

    Raises:
        InputError: anything is wrong.
    """
    if not is_file_name(options.name):
        raise InputError(f"--name {options.name}: it becomes a folder's name; put the folder's place in --results")
    if not 0 <= options.max_failures <= 100:
        raise InputError(f"--max-failures {options.max_failures}: must be from 0 to 100")
    asha = from_flags(Asha, options) if options.scheduler == "asha" else None
    if asha:
        asha.milestones(max(config.epochs for config in configs))  # checks the brackets
    seeds = check_seeds(options.seed_list or range(42, 42 + options.seeds))
    trials = (search.budget.trials or 1000) if search else len(configs)
    placement = _place(trials, options)
    if options.demo:
        make_demo_set(options.data)
    dataset = read_data(options)
    if dataset.dropped and not (options.quiet or options.dry_run):
        print("\n".join(dataset.description()))
    split = make_split(options.split, dataset, seeds)
    return Plan(
        dataset=dataset,
        split=split,
        replicates=replicates(seeds, split),
        configs=tuple(configs),
        caches={},
        not_run={},
        skipped={},
        placement=placement,
        asha=asha,
        max_failures=options.max_failures,
        search=search,
        protocol=options.protocol,
    )


def _place(trials: int, options: Namespace) -> Placement:
    """What a trial gets, of this machine or of the cluster that the flags name; InputError if no trial could ever start."""
    gib = options.memory_per_trial
    if gib is not None and not 0 < gib < float("inf"):
        raise InputError(f"--memory-per-trial {gib:g}: must be greater than 0")
    memory = None if gib is None else int(gib * 2**30)
    address = address_of(options)
    nodes = nodes_of(address, options.nodes) if address else [this_machine()]
    return place(trials, options.cpus_per_trial, options.gpus_per_trial, nodes, address, memory)


def make_plan(options: Namespace, configs: Sequence[Config], search: Search | None = None) -> Plan:
    """Check everything that the flags of a sweep over frozen encoders ask for, and with `--dry-run` outline it; arguments as `bare_plan`'s.

    Raises:
        InputError: anything is wrong, or caches are missing and the sweep may not go on without them.
    """
    bare = bare_plan(options, configs, search)
    dataset = bare.dataset
    folder = options.cache or default_folder(dataset.folder)
    caches, missing = find_caches(dataset, folder, configs)
    if missing and ((options.embed and not options.dry_run) or options.demo):
        for encoder in dict.fromkeys(encoder for encoder, _ in missing):
            embed(dataset, folder, encoder, Settings(quiet=options.quiet, address=bare.placement.address))
        caches, missing = find_caches(dataset, folder, configs)
    not_run = _lacking(configs, missing)
    if missing:
        _report_missing(missing, len(not_run), len(configs), options)
    skipped = {guid: why for cache in caches.values() for guid, why in cache.manifest.skipped.items()}
    plan = replace(
        bare, caches=caches, not_run=not_run, skipped=skipped, split=bare.split.without(rows_of(dataset, skipped))
    )
    if plan.placement.nodes:  # of this machine Ray gives no memory out; the estimate waits for torch
        plan.placement.check_memory(plan.trial_memory)
    if options.dry_run:
        show(outline(plan))
    return plan


def carry_out(plan: Plan, options: Namespace) -> int:
    """Run a plan in the folder that the flags name, or with `--dry-run` say what it will cost; return the exit code."""
    if options.dry_run:
        show(costs(plan))
        return 0
    from mvsa_tune.tune.mirror import Mirror
    from mvsa_tune.tune.runner import INTERRUPTED, run_sweep  # Ray takes a while to import

    folder = options.results / options.name
    with Mirror(folder, options.storage) if options.storage else nullcontext() as mirror:
        code = run_sweep(plan, folder, demo=options.demo, quiet=options.quiet, mirror=mirror)
        if options.report and code != INTERRUPTED:
            from mvsa_tune.report.write import report  # SciPy does, too

            report(folder, quiet=options.quiet)
        return code


def _lacking(configs: Sequence[Config], missing: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """Why configurations cannot run, by id."""
    lacks = {
        config.id: [
            f"{modality} cache of {name}" for modality, name in config.encoders.items() if (name, modality) in missing
        ]
        for config in configs
    }
    return {config_id: f"no {' and no '.join(caches)}" for config_id, caches in lacks.items() if caches}


def _report_missing(missing: Mapping[tuple[str, str], str], count: int, total: int, options: Namespace) -> None:
    """Say which caches are missing and what makes them; InputError if the sweep may not go on without them."""
    commands = "".join(f"\n  {encoder}, {modality}: {how}" for (encoder, modality), how in missing.items())
    told = f"{count} of {total} configurations have no embedding cache:{commands}\n"
    if not options.dry_run and not (options.skip_missing and count < total):
        raise InputError(
            f"{told}Make them first (--embed does what `embed` can)"
            + (", or run the others with --skip-missing" if count < total else "")
        )
    print(told, file=sys.stderr)
