r"""Fine-tune encoders end to end with the head: the reference's fine-tuned rows, or any pair.

    python sweeps/finetune.py                                     the reference's rows: ResNet-50 and RoBERTa-base, four configurations
    python sweeps/finetune.py --demo                              two small built-in encoders on the demo set: a minute on 2 cores
    python sweeps/finetune.py --pairs mobilenet_v2+minilm --weights mobilenet_v2=FILE minilm=FOLDER --epochs 4 \
        --lr 1e-3 --encoder-lr 2e-5 5e-5 --frozen 0.75 --warmup 0.1 --schedule cosine

A trial is killed and started again at no loss: it goes on from its last checkpoint. --dry-run shows what would run, and for how long.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from mvsa_tune.cli import report_errors
from mvsa_tune.config import AXES, CONFIG_FLAGS, FINETUNING, Config, Parser, add_flags, union
from mvsa_tune.data.demo import TRAINABLE_PAIRS
from mvsa_tune.data.text import NORMALISERS
from mvsa_tune.errors import InputError
from mvsa_tune.machine import gpu_count
from mvsa_tune.tune.describe import outline, show
from mvsa_tune.tune.plan import Plan
from mvsa_tune.tune.prepare import add_sweep_flags, bare_plan, carry_out, parse_sweep

PAIR, BATCH_SIZE = "resnet50+roberta-base", 64


def reference_grid(pairs: Sequence[str]) -> list[dict[str, list[Any]]]:
    """The reference's fine-tuned rows: of table 1 (9 and 10), and of table 4 (5 and 6)."""
    return [{"pair": pairs, "lr": [2e-5, 1e-4]}, {"pair": pairs, "ablation": [2, 1]}]


def configurations(options: Namespace) -> list[Config]:
    """The configurations that the flags ask for: the reference's rows, or the product of the axes given."""
    given = {name: getattr(options, name) for name in (*CONFIG_FLAGS, *FINETUNING)}
    given = {name: value if isinstance(value, list) else [value] for name, value in given.items() if value is not None}
    pairs = {"pair": options.pairs or [PAIR]}
    grids = (
        [{**pairs, **given}]
        if given.keys() & set(AXES)
        else [{**grid, **given} for grid in reference_grid(pairs["pair"])]
    )
    return union(one for grid in grids for one in _with_encoder_lr({"batch_size": [BATCH_SIZE], **grid}))


def _with_encoder_lr(grid: dict[str, list[Any]]) -> list[dict[str, list[Any]]]:
    """The grid, cut into one for each learning rate, which is the encoders' too; as it is where theirs is given."""
    if 0.0 in grid.get("encoder_lr", []):
        raise InputError("--encoder-lr 0: frozen encoders are for sweeps/grid.py")
    if "encoder_lr" in grid:
        return [grid]
    return [{**grid, "lr": [rate], "encoder_lr": [rate]} for rate in grid.get("lr", [Config.lr])]


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Parse the flags."""
    parser = Parser(prog="finetune.py", description=__doc__.partition("\n")[0])
    add_sweep_flags(parser, name="finetune", seeds=3, caches=False)
    own = {"batch_size": str(BATCH_SIZE), "encoder_lr": "the head's"}
    add_flags(parser, Config, (*CONFIG_FLAGS, *FINETUNING), own)
    parser.add_argument(
        "--weights", nargs="+", default=[], metavar="ENCODER=PATH", help="encoders' weights (default: the hub's)"
    )
    parser.add_argument("--text", choices=list(NORMALISERS), default="reference", help="normalisation of tweets")
    parser.add_argument("--skip-bad", action="store_true", help="go on without the pictures that cannot be read")
    parser.add_argument(
        "--gradient-checkpointing", action="store_true", help="less memory for more time, the same numbers"
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=60,
        metavar="N",
        help="keep the state after an epoch, so often (default 60)",
    )
    return parse_sweep(parser, arguments, TRAINABLE_PAIRS)


def prepare(options: Namespace) -> Plan:
    """Check what can be checked without the encoders, and with `--dry-run` outline it; a trial gets a GPU of its own where there is one."""
    if not options.checkpoint_seconds >= 0:
        raise InputError(f"--checkpoint-seconds {options.checkpoint_seconds:g}: must be 0 or more")
    configs = configurations(options)
    if options.gradient_checkpointing and any(config.batchnorm == "updated" for config in configs):
        raise InputError(
            "--gradient-checkpointing with --batchnorm updated: what runs twice would move the statistics twice; leave one out"
        )
    if options.gpus_per_trial is None and gpu_count():
        options.gpus_per_trial = 1.0
    plan = bare_plan(options, configs)
    if options.dry_run:
        show(outline(plan))
    return plan


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, then run; return the exit code."""

    def command() -> int:
        options = parse(arguments)
        bare = prepare(options)
        from mvsa_tune.tune.finetune_plan import make_finetune_plan  # torch takes a while to import

        return carry_out(make_finetune_plan(options, bare), options)

    return report_errors(command, "finetune.py")


if __name__ == "__main__":
    sys.exit(main())
