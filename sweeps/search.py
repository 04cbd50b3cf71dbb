"""Search a space with Optuna's TPE and ASHA, then train the finalists again on fresh seeds.

    python sweeps/search.py --trials 60                              the space below, on the reference's pairs
    python sweeps/search.py --demo --trials 12                       on the built-in demo set: a minute on 2 cores
    python sweeps/search.py --pairs mobilenet_v2+minilm --minutes 20 --lr 1e-5..1e-3 --D 64 128 256 --finalists 5

A dimension's flag takes a range, LOW..HIGH, or the values to choose from; one value fixes it. The score that wins a search is
biased upwards, being the best of many; so the finalists are trained again, to the end and on seeds that the search
has not seen, and the tables show both numbers.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mvsa_tune.cli import report_errors
from mvsa_tune.config import AXES, CONFIG_FLAGS, CONFIG_HELP, SEARCH_SPACE, Config, Parser, add_flags, flag, join_pair
from mvsa_tune.dimensions import Choice
from mvsa_tune.errors import InputError
from mvsa_tune.tune import space
from mvsa_tune.tune.describe import costs, show
from mvsa_tune.tune.plan import Plan
from mvsa_tune.tune.prepare import (
    add_sweep_flags,
    check_seeds,
    fixed_fields,
    make_plan,
    parse_sweep,
    replicates,
    split_of,
)
from mvsa_tune.tune.space import PAIR, Budget, Search, Space

if TYPE_CHECKING:
    from mvsa_tune.tune.mirror import Mirror

# Pairs, and every field of `Config` that declares a dimension. Each is a flag: --D 64 128, --lr 1e-5..1e-3.
PAIRS = ("clip-vit-b-32+clip-vit-b-32", "clip-vit-l-14+clip-vit-l-14", "resnet50+roberta-base")
SPACE: Space = {PAIR: Choice(PAIRS), **SEARCH_SPACE}
FIXED = [name for name in CONFIG_FLAGS if name not in AXES]  # the same for every trial


def search_of(options: Namespace) -> Search:
    """What the flags ask for: where to look, and for how long."""
    given = {name: options.pairs if name == PAIR else getattr(options, name) for name in SPACE}
    words = {name: [str(word) for word in texts or ()] for name, texts in given.items()}  # a protocol's are no texts
    asked = {name: space.parse(name, words[name], SPACE[name]) if words[name] else SPACE[name] for name in SPACE}
    unlimited = options.trials is options.total_epochs is options.minutes is None
    budget = Budget(50 if unlimited else options.trials, options.total_epochs, options.minutes)
    return Search(asked, fixed_fields(options, FIXED), budget, options.search_seed)


def prepare(options: Namespace) -> Plan:
    """Check everything, and leave out the pairs whose caches are missing."""
    if not (1 <= options.finalists <= 100 and 1 <= options.confirm_seeds <= 1000):
        raise InputError("--finalists: from 1 to 100; --confirm-seeds: from 1 to 1,000")
    search = search_of(options)
    plan = make_plan(options, space.corners(search.space, search.fixed), search)
    pairs = tuple(dict.fromkeys(map(join_pair, plan.runnable)))
    here: Space = {**search.space, PAIR: Choice(pairs)} if pairs else search.space
    return replace(plan, search=replace(search, space=here))


def confirm(plan: Plan, folder: Path, options: Namespace, mirror: "Mirror | None" = None) -> int:
    """Train the finalists again, to the end, on seeds that the search has not seen; return the exit code."""
    from mvsa_tune.report.leaderboard import confirmed_folder, finalists
    from mvsa_tune.results.store import Store
    from mvsa_tune.tune.runner import run_sweep

    place = confirmed_folder(folder)
    earlier = Store(place).manifest.configs if (place / "sweep.json").exists() else ()
    chosen = tuple(dict.fromkeys([*earlier, *finalists(Store(folder), options.finalists)]))
    if not chosen:
        print("No trial was trained to its end: there is nothing to confirm.")
        return 1
    if not options.quiet:
        print(f"\nTraining the {len(chosen)} finalists again, on {options.confirm_seeds} fresh seeds.")
    first = max(one.seed for one in plan.replicates) + 1
    seeds = check_seeds(range(first, first + options.confirm_seeds))
    split = split_of(options.split, plan.dataset, seeds, plan.skipped)
    final = replace(plan, configs=chosen, split=split, replicates=replicates(seeds, split), asha=None, search=None)
    return run_sweep(final, place, demo=options.demo, quiet=options.quiet, show=False, mirror=mirror)


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Parse the flags."""
    parser = Parser(prog="search.py", description=__doc__.partition("\n")[0])
    add_sweep_flags(parser, name="search", seeds=3)
    for name, dimension in SPACE.items():
        if name != PAIR:
            told = f"{CONFIG_HELP[name]} (default {dimension})"
            parser.add_argument(flag(name), dest=name, nargs="+", metavar="LOW..HIGH or VALUE", help=told)
    add_flags(parser, Config, FIXED)
    parser.add_argument(
        "--trials", type=int, metavar="N", help="end after N trials (default 50, unless another limit is given)"
    )
    parser.add_argument("--total-epochs", type=int, metavar="N", help="end when N epochs have been trained")
    parser.add_argument("--minutes", type=float, metavar="N", help="end after N minutes; running trials are trained on")
    parser.add_argument("--search-seed", type=int, default=0, metavar="N", help="seed of the sampler (default 0)")
    parser.add_argument(
        "--finalists", type=int, default=3, metavar="K", help="the best so many are confirmed (default 3)"
    )
    parser.add_argument("--confirm-seeds", type=int, default=10, metavar="N", help="fresh seeds for each (default 10)")
    return parse_sweep(parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Search, confirm; return the exit code."""

    def command() -> int:
        options = parse(arguments)
        plan, folder = prepare(options), options.results / options.name
        if options.dry_run:
            show(costs(plan))
            return 0
        from mvsa_tune.results.store import Store
        from mvsa_tune.tune.mirror import Mirror
        from mvsa_tune.tune.runner import INTERRUPTED, run_sweep

        with Mirror(folder, options.storage) if options.storage else nullcontext() as mirror:
            searched = run_sweep(plan, folder, demo=options.demo, quiet=options.quiet, show=False, mirror=mirror)
            if searched == INTERRUPTED:
                return searched
            confirmed = confirm(plan, folder, options, mirror)
            if confirmed != INTERRUPTED:
                from mvsa_tune.report.write import report, write_results

                print(write_results(Store(folder))[1])
                if options.report:
                    report(folder, quiet=options.quiet)
            return max(searched, confirmed)

    return report_errors(command, "search.py")


if __name__ == "__main__":
    sys.exit(main())
