"""Sweep a grid: the reference experiment's, or any that flags give.

    python sweeps/grid.py                                  every frozen row of the reference's tables 1 to 4
    python sweeps/grid.py --pairs resnet50+roberta-base    the same grid on other encoders
    python sweeps/grid.py --demo                           and on the built-in demo set: under a minute on 2 cores
    python sweeps/grid.py --pairs mobilenet_v2+minilm --D 128 256 --lr 2e-5 1e-4 --ablation 0 1 2

Any of --D, --lr, --batch-size, --ablation, --head, --dropout and so on makes the grid the product of the flags given,
with the reference's default for the others. --dry-run shows what would run, and for how long.
"""

import sys

from mvsa_tune.sweeps import GRID

if __name__ == "__main__":
    sys.exit(GRID.main())
