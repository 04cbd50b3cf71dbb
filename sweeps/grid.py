"""Sweep a grid: the reference experiment's, or any that flags give.

    python sweeps/grid.py                                  every frozen row of the reference's tables 1 to 4
    python sweeps/grid.py --pairs resnet50+roberta-base    the same grid on other encoders
    python sweeps/grid.py --demo                           and on the built-in demo set: under a minute on 2 cores
    python sweeps/grid.py --pairs mobilenet_v2+minilm --D 128 256 --lr 2e-5 1e-4 --ablation 0 1 2

Any of --D, --lr, --batch-size, --ablation, --head, --dropout and so on makes the grid the product of the flags given,
with the reference's default for the others. --dry-run shows what would run, and for how long.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from mvsa_tune.cli import report_errors
from mvsa_tune.config import CONFIG_FLAGS, Config, add_flags, union
from mvsa_tune.tune.flags import parse_sweep, requested_grids, sweep_parser
from mvsa_tune.tune.sweep import carry_out

B32, L14, RESNET = "clip-vit-b-32+clip-vit-b-32", "clip-vit-l-14+clip-vit-l-14", "resnet50+roberta-base"
D, LR = [128, 256], [2e-5, 1e-4]
REFERENCE = [
    {"pair": [B32, RESNET], "D": D, "lr": LR},  # table 1
    {"pair": [L14], "D": D, "lr": LR},  # table 2
    {"pair": [B32, L14], "D": D, "lr": LR, "batch_size": [32]},  # table 3
    {"pair": [B32, RESNET], "ablation": [2, 1]},  # table 4
]


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Parse the flags."""
    parser = sweep_parser("grid.py", __doc__, seeds=5)
    add_flags(parser, Config, CONFIG_FLAGS)
    return parse_sweep(parser, arguments)


def configurations(options: Namespace) -> list[Config]:
    """Return the configurations that the flags ask for."""
    return union(requested_grids(options, REFERENCE, {"pair": [B32]}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan and run; return the exit code."""
    return report_errors(lambda: carry_out(parse(arguments), configurations), "grid.py")


if __name__ == "__main__":
    sys.exit(main())
