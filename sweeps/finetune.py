r"""Fine-tune encoders end to end with the head: the reference experiment's fine-tuned rows, or any pair.

    python sweeps/finetune.py                      the reference's rows: ResNet-50 and RoBERTa-base, six configurations
    python sweeps/finetune.py --split reference    the same on the samples of its frozen rows
    python sweeps/finetune.py --demo               two small built-in encoders on the demo set: a minute on 2 cores
    python sweeps/finetune.py --pairs mobilenet_v2+minilm --weights mobilenet_v2=FILE minilm=FOLDER --epochs 4 \
        --lr 1e-3 --encoder-lr 2e-5 5e-5 --frozen 0.75 --warmup 0.1 --schedule cosine

The reference fine-tunes with one BatchNorm for both modalities, and on another split than that of its frozen rows
(docs/reference.md): so are its rows trained here, and beside them with a BatchNorm for each. The encoders are trained
at the head's learning rate unless --encoder-lr is given. A trial that is killed continues from its last checkpoint.
--dry-run shows what would run, and for how long.
"""

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from mvsa_tune.cli import report_errors
from mvsa_tune.config import CONFIG_FLAGS, FINETUNING, Config, add_flags, union
from mvsa_tune.data.demo import TRAINABLE_PAIRS
from mvsa_tune.errors import InputError
from mvsa_tune.tune.flags import add_finetuning_flags, parse_sweep, requested_grids, sweep_parser
from mvsa_tune.tune.sweep import carry_out

DEFAULTS = {"pair": ["resnet50+roberta-base"], "batch_size": [64]}
REFERENCE = [
    # table 1, rows 9 and 10; and what they are with a BatchNorm for each modality
    {"lr": [2e-5, 1e-4], "head": ["concat-shared-norm", "concat"], "batchnorm": ["updated"]},
    {"ablation": [2, 1], "batchnorm": ["updated"]},  # table 4, rows 5 and 6
]


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Parse the flags."""
    parser = sweep_parser("finetune.py", __doc__, seeds=3, finetuning=True)
    add_flags(parser, Config, (*CONFIG_FLAGS, *FINETUNING), {"batch_size": "64", "encoder_lr": "the head's"})
    add_finetuning_flags(parser)
    return parse_sweep(parser, arguments, TRAINABLE_PAIRS)


def configurations(options: Namespace) -> list[Config]:
    """Return the configurations that the flags ask for."""
    grids = requested_grids(options, REFERENCE, DEFAULTS)
    return union(part for grid in grids for part in with_encoder_lr(grid))


def with_encoder_lr(grid: Mapping[str, Sequence[Any]]) -> list[Mapping[str, Sequence[Any]]]:
    """Return the grid; without values of `encoder_lr`, a grid for each `lr`, which the encoders take, too."""
    if 0.0 in grid.get("encoder_lr", []):
        raise InputError("--encoder-lr 0: encoders that are not trained are for sweeps/grid.py")
    if "encoder_lr" in grid:
        return [grid]
    return [{**grid, "lr": [lr], "encoder_lr": [lr]} for lr in grid.get("lr", [Config.lr])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan and run; return the exit code."""
    return report_errors(lambda: carry_out(parse(arguments), configurations), "finetune.py")


if __name__ == "__main__":
    sys.exit(main())
