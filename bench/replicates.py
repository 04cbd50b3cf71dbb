"""Time R replicates as one stack against R stacks of one, alternating, in one process.

    python bench/replicates.py [--replicates 1 5 10] [--batch-size 512] [--epochs 3] [--threads 1]

Random vectors of the real set's shape (4,000 samples; 1,280 and 384 wide), D 256. Prints the median of the ratios.
"""

import argparse
import statistics
import time

import torch

from mvsa_tune.config import Config, Replicate
from mvsa_tune.training.trainer import Samples, StackTrainer


def seconds(config: Config, replicates: list[Replicate], samples: Samples) -> float:
    """Train once; return the seconds that the epochs took."""
    rows = torch.arange(4000).expand(len(replicates), -1)
    return StackTrainer(config, replicates, samples, rows[:, :3600], rows[:, 3600:]).fit().seconds


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
    vectors = {"image": torch.randn(4000, 1280), "text": torch.randn(4000, 384)}
    samples = Samples(vectors, torch.arange(4000) % 3, 3)
    for count in options.replicates:
        replicates = [Replicate(seed) for seed in range(count)]
        stacked, apart = [], []
        for _ in range(options.rounds):
            stacked.append(seconds(config, replicates, samples))
            started = time.perf_counter()
            for one in replicates:
                seconds(config, [one], samples)
            apart.append(time.perf_counter() - started)
        ratio = statistics.median(b / a for a, b in zip(stacked, apart, strict=True))
        print(
            f"R {count:>3}: stack {statistics.median(stacked):7.2f} s, apart {statistics.median(apart):7.2f} s, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
