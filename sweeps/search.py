"""Search a space with Optuna's TPE and ASHA, then train the finalists again on fresh seeds.

    python sweeps/search.py --trials 60               the space below, on the reference experiment's pairs
    python sweeps/search.py --demo --trials 12        the space on the built-in demo set: a minute on 2 cores
    python sweeps/search.py --pairs mobilenet_v2+minilm --minutes 20 --lr 1e-5..1e-3 --D 64 128 256 --finalists 5

Each dimension is a flag, which takes a range, LOW..HIGH, or the values to choose from; a single value fixes it. The
best score of a search is biased upwards, because it is the best of many. So the finalists are trained again, to the end
and on seeds that the search has not seen, and the tables show both numbers.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from mvsa_tune.cli import report_errors
from mvsa_tune.config import SEARCH_SPACE
from mvsa_tune.dimensions import Choice
from mvsa_tune.tune.flags import add_search_flags, parse_sweep, sweep_parser
from mvsa_tune.tune.space import PAIR, Search, Space, make_search
from mvsa_tune.tune.sweep import carry_out

# The pairs, and every field of `Config` that declares a dimension.
PAIRS = ("clip-vit-b-32+clip-vit-b-32", "clip-vit-l-14+clip-vit-l-14", "resnet50+roberta-base")
SPACE: Space = {PAIR: Choice(PAIRS), **SEARCH_SPACE}


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Parse the flags."""
    parser = sweep_parser("search.py", __doc__, seeds=3)
    add_search_flags(parser, SPACE)
    return parse_sweep(parser, arguments)


def search(options: Namespace) -> Search:
    """Return the search that the flags ask for."""
    return make_search(options, SPACE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, search and confirm; return the exit code."""
    return report_errors(lambda: carry_out(parse(arguments), search), "search.py")


if __name__ == "__main__":
    sys.exit(main())
