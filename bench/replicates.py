"""Time R replicates as one stack against R stacks of one replicate, alternating, in one process.

    python bench/replicates.py [--replicates 1 5 10] [--batch-size 512] [--epochs 3] [--threads 1]

Random vectors of the real set's shape (4,000 samples; 1,280 and 384 wide), D 256. Prints the median of the ratios.
"""

import argparse
import statistics

import torch

from mvsa_tune.config import Config
from stacks import make_stack, random_vectors


def main() -> None:
    """Measure and print a line for each number of replicates."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replicates", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = Config(batch_size=options.batch_size, epochs=options.epochs)
    vectors = random_vectors(4000)
    for count in options.replicates:
        stacked, apart = [], []
        for _ in range(options.rounds):
            stacked.append(make_stack(vectors, count, config).fit().seconds)
            apart.append(sum(make_stack(vectors, 1, config).fit().seconds for _ in range(count)))
        ratio = statistics.median(b / a for a, b in zip(stacked, apart, strict=True))
        print(
            f"R {count:>3}: stack {statistics.median(stacked):7.2f} s, apart {statistics.median(apart):7.2f} s, "
            f"ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
