"""Sweep a grid: the documents' own, or any that flags give.

    python sweeps/grid.py                                  every frozen row of the documents' tables 1 to 4
    python sweeps/grid.py --pairs resnet50+roberta-base    the same grid on other encoders
    python sweeps/grid.py --demo                           the same on the built-in demo set: under a minute on 2 cores
    python sweeps/grid.py --pairs mobilenet_v2+minilm --D 128 256 --lr 2e-5 1e-4 --ablation 0 1 2

Any of --D, --lr, --batch-size, --ablation, --head or --dropout makes the grid the product of the flags given, with the
documents' default for each flag that is not. --dry-run shows what would run, and for how long.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mvsa_tune.cache import default_folder
from mvsa_tune.cli import DEFAULT_DATA, add_data_flags, report_errors
from mvsa_tune.config import AXES, Config, Parser, Replicate, add_config_flags, product, union
from mvsa_tune.dataset import is_file_name, read_dataset
from mvsa_tune.demo import PAIRS as DEMO_PAIRS
from mvsa_tune.demo import make_demo_set
from mvsa_tune.embed import Settings, embed
from mvsa_tune.errors import InputError
from mvsa_tune.plan import Plan, describe, find_caches, place
from mvsa_tune.splits import documents_split

B32, L14, RESNET = "clip-vit-b-32+clip-vit-b-32", "clip-vit-l-14+clip-vit-l-14", "resnet50+roberta-base"
WIDTHS, RATES = [128, 256], [2e-5, 1e-4]


def documents_grid(pairs: Sequence[str] = ()) -> list[Config]:
    """The documents' tables 1 to 4, frozen encoders; with `pairs`, the same grid on those."""
    return union(
        [
            {"pair": pairs or [B32, RESNET], "D": WIDTHS, "lr": RATES},  # table 1
            {"pair": pairs or [L14], "D": WIDTHS, "lr": RATES},  # table 2
            {"pair": pairs or [B32, L14], "D": WIDTHS, "lr": RATES, "batch_size": [32]},  # table 3
            {"pair": pairs or [B32, RESNET], "ablation": [2, 1]},  # table 4
        ]
    )


def configurations(options: Namespace) -> list[Config]:
    """The configurations that the flags ask for."""
    axes = {name: getattr(options, name) for name in AXES if getattr(options, name) is not None}
    pairs = {"pair": options.pairs} if options.pairs else {}
    configs = product({**pairs, **axes}) if axes else documents_grid(options.pairs or ())
    fixed = {name: value for name in ("epochs", "precision") if (value := getattr(options, name)) is not None}
    return [replace(config, **fixed) for config in configs]


def replicates(options: Namespace) -> tuple[Replicate, ...]:
    """The seeds that the flags ask for; the documents' own, 42, is the first by default."""
    seeds = options.seed_list or range(42, 42 + options.seeds)
    if len(seeds) > 1000 or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**31 for seed in seeds or [-1]):
        raise InputError("--seeds, --seed-list: from 1 to 1,000 seeds, none twice, each at least 0 and below 2^31")
    return tuple(Replicate(seed) for seed in seeds)


def make_plan(options: Namespace) -> Plan:
    """Check everything that the flags ask for, before anything starts."""
    configs, seeds = configurations(options), replicates(options)
    if not is_file_name(options.name):
        raise InputError(f"--name {options.name}: it becomes a folder's name; put the folder's place in --results")
    placement = place(len(configs), options.cpus_per_trial, options.gpus_per_trial)
    if options.demo:
        make_demo_set(options.data)
    dataset = read_dataset(options.data)
    folder = options.cache or default_folder(options.data)
    caches, missing = find_caches(dataset, folder, configs)
    if missing and ((options.embed and not options.dry_run) or options.demo):
        for encoder in dict.fromkeys(encoder for encoder, _ in missing):
            embed(dataset, folder, encoder, Settings(quiet=options.quiet))
        caches, missing = find_caches(dataset, folder, configs)
    lacks = {
        config.id: [
            f"{modality} cache of {name}" for modality, name in config.encoders.items() if (name, modality) in missing
        ]
        for config in configs
    }
    not_run = {config_id: f"no {' and no '.join(caches)}" for config_id, caches in lacks.items() if caches}
    if missing:
        report_missing(missing, len(not_run), len(configs), options)
    skipped = {guid: why for cache in caches.values() for guid, why in cache.manifest.skipped.items()}
    split = documents_split(dataset.labels).without({row for row, guid in enumerate(dataset.guids) if guid in skipped})
    return Plan(dataset, split, seeds, tuple(configs), caches, not_run, skipped, placement)


def report_missing(missing: dict[tuple[str, str], str], count: int, total: int, options: Namespace) -> None:
    """Say which caches are missing and what makes them; InputError if the sweep may not go on without them."""
    commands = "".join(f"\n  {encoder}, {modality}: {how}" for (encoder, modality), how in missing.items())
    told = f"{count} of {total} configurations have no embedding cache:{commands}\n"
    if not options.dry_run and not (options.skip_missing and count < total):
        raise InputError(
            f"{told}Make them first (--embed does what `embed` can)"
            + (", or run the others with --skip-missing" if count < total else "")
        )
    print(told, file=sys.stderr)


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Parse the flags."""
    parser = Parser(prog="grid.py", description=__doc__.partition("\n")[0])
    add_data_flags(parser)
    parser.add_argument("--demo", action="store_true", help="use the built-in demo set, made in data/demo")
    parser.add_argument("--pairs", nargs="+", metavar="IMAGE+TEXT", help="encoder pairs (default: the documents')")
    add_config_flags(parser)
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="replicates: seeds 42, 43, … (default 5)")
    parser.add_argument("--seed-list", type=int, nargs="+", metavar="SEED", help="the replicates' seeds, one by one")
    parser.add_argument("--name", help="the sweep's name, and its folder below --results (default grid, or demo)")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="default results")
    parser.add_argument("--cpus-per-trial", type=int, metavar="N", help="CPU threads of a trial (default: its share)")
    parser.add_argument("--gpus-per-trial", type=float, metavar="N", help="GPUs of a trial, 0.25 for a quarter")
    parser.add_argument("--embed", action="store_true", help="make the caches that are missing first")
    parser.add_argument("--skip-missing", action="store_true", help="go on without the pairs whose cache is missing")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, start nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the tables")
    options = parser.parse_args(arguments)
    if options.demo:
        if options.data != DEFAULT_DATA:
            parser.error("--demo brings its own data: leave --data out")
        options.data = Path("data/demo")
        options.pairs = options.pairs or list(DEMO_PAIRS)
    options.name = options.name or ("demo" if options.demo else "grid")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, then run; return the exit code."""

    def command() -> int:
        options = parse(arguments)
        plan = make_plan(options)
        if options.dry_run:
            print(describe(plan))
            return 0
        from mvsa_tune.sweep import run_sweep

        return run_sweep(plan, options.results / options.name, demo=options.demo, quiet=options.quiet)

    return report_errors(command, "grid.py")


if __name__ == "__main__":
    sys.exit(main())
