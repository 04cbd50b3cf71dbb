"""Sweep a grid: the reference's own, or any that flags give.

    python sweeps/grid.py                                  every frozen row of the reference's tables 1 to 4
    python sweeps/grid.py --pairs resnet50+roberta-base    the same grid on other encoders
    python sweeps/grid.py --demo                           the same on the built-in demo set: under a minute on 2 cores
    python sweeps/grid.py --pairs mobilenet_v2+minilm --D 128 256 --lr 2e-5 1e-4 --ablation 0 1 2

Any of --D, --lr, --batch-size, --ablation, --head, --dropout and their like makes the grid the product of the flags given, with the
reference's default for each flag that is not. --dry-run shows what would run, and for how long.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace

from mvsa_tune.cli import report_errors
from mvsa_tune.config import AXES, CONFIG_FLAGS, Config, Parser, add_flags, product, union
from mvsa_tune.tune.prepare import add_sweep_flags, carry_out, fixed_fields, make_plan, parse_sweep

B32, L14, RESNET = "clip-vit-b-32+clip-vit-b-32", "clip-vit-l-14+clip-vit-l-14", "resnet50+roberta-base"
WIDTHS, RATES = [128, 256], [2e-5, 1e-4]


def reference_grid(pairs: Sequence[str] = ()) -> list[Config]:
    """The reference's tables 1 to 4, frozen encoders; with `pairs`, the same grid on those."""
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
    axes = {
        name: getattr(options, name) for name in CONFIG_FLAGS if name in AXES and getattr(options, name) is not None
    }
    pairs = {"pair": options.pairs} if options.pairs else {}
    configs = product({**pairs, **axes}) if axes else reference_grid(options.pairs or ())
    fixed = fixed_fields(options, [name for name in CONFIG_FLAGS if name not in AXES])
    return [replace(config, **fixed) for config in configs]


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Parse the flags."""
    parser = Parser(prog="grid.py", description=__doc__.partition("\n")[0])
    add_sweep_flags(parser, name="grid", seeds=5)
    add_flags(parser, Config, CONFIG_FLAGS)
    return parse_sweep(parser, arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, then run; return the exit code."""

    def command() -> int:
        options = parse(arguments)
        return carry_out(make_plan(options, configurations(options)), options)

    return report_errors(command, "grid.py")


if __name__ == "__main__":
    sys.exit(main())
