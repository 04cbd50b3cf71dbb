"""Time the reference's frozen grid in one process on a GPU, and a careful torch loop that trains one after another.

    python bench/gpu_grid.py [--device cuda] [--epochs 100] [--seeds 10] [--rival-epochs 5]

The vectors are random, of the widths of CLIP, ResNet-50 and RoBERTa: 4,000 samples, 24 configurations. It prints the
time of training alone and the peak of memory. The loop trains one seed of each configuration for --rival-epochs, which
is counted for all.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mvsa_tune.config import Config, union
from mvsa_tune.encoders.registry import ENCODERS
from mvsa_tune.sweeps import GRID_REFERENCE
from rivals import Fusion, accuracy, train_epoch
from stacks import make_stack, seconds

SAMPLES, TRAIN = 4000, 3600


def train_alone(config: Config, vectors: Sequence[Tensor], epochs: int) -> None:
    """Train one seed in a torch loop, as a trial of `rivals.py` does."""
    device = vectors[0].device
    labels = torch.arange(SAMPLES, device=device) % 3
    model = Fusion([tensor.shape[1] for tensor in vectors], config.D).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    for _ in range(epochs):
        train_epoch(model, adam, vectors, labels, torch.randperm(TRAIN, device=device).split(config.batch_size))
        accuracy(model, [tensor[TRAIN:] for tensor in vectors], labels[TRAIN:])


def measure(config: Config, vectors: dict[str, Tensor], seeds: int, rival_epochs: int) -> tuple[float, float]:
    """Return the seconds of a stack of `seeds` replicates, and those that the torch loop would take for them."""
    device = next(iter(vectors.values())).device
    stacked = seconds(lambda: make_stack(vectors, seeds, config).fit(), device)
    alone = seconds(lambda: train_alone(config, list(vectors.values()), rival_epochs), device)
    return stacked, alone * seeds * config.epochs / rival_epochs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rival-epochs", type=int, default=5)
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    options = parser.parse_args()
    device = torch.device(options.device)
    grid = union(GRID_REFERENCE)
    configs = [replace(config, epochs=options.epochs, precision=options.precision) for config in grid]
    widths = {(name, m): ENCODERS[name].widths[m] for config in configs for m, name in config.encoders.items()}
    vectors = {key: torch.randn(SAMPLES, width, device=device) for key, width in widths.items()}
    inputs = [{m: vectors[name, m] for m, name in config.encoders.items()} for config in configs]
    train_alone(configs[0], list(inputs[0].values()), 1)  # warms the device up
    times = [measure(*pair, options.seeds, options.rival_epochs) for pair in zip(configs, inputs, strict=True)]
    ours, rival = (sum(column) for column in zip(*times, strict=True))
    memory = f", at most {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB" if device.type == "cuda" else ""
    print(f"{len(configs)} configurations × {options.seeds} seeds × {options.epochs} epochs: ours {ours:.1f} s{memory}")
    print(f"one training after another {rival:.0f} s (a part of it, counted for all): {rival / ours:.1f} times as long")


if __name__ == "__main__":
    main()
