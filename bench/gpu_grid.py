"""The reference's frozen grid in one process on a GPU, against a careful torch loop, one training after another.

    python bench/gpu_grid.py [--device cuda] [--epochs 100] [--seeds 10] [--rival-epochs 5]

Random vectors of CLIP's and ResNet-50's and RoBERTa's widths, 4,000 samples, 24 configurations; time of training
alone, and the most memory that was taken. The loop trains one seed of each configuration for --rival-epochs, and is
counted for all.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from rivals import Fusion

from mvsa_tune.config import Config, Replicate, union
from mvsa_tune.encoders.registry import ENCODERS
from mvsa_tune.training.trainer import Samples, StackTrainer

sys.path.insert(0, str(Path(__file__).parents[1] / "sweeps"))
from grid import REFERENCE


def samples_of(config: Config, device: torch.device, made: dict[tuple[str, str], torch.Tensor]) -> Samples:
    """Random vectors of a configuration's widths, each encoder's once."""
    for modality, name in config.encoders.items():
        if (name, modality) not in made:
            made[name, modality] = torch.randn(4000, ENCODERS[name].widths[modality], device=device)
    vectors = {modality: made[name, modality] for modality, name in config.encoders.items()}
    return Samples(vectors, torch.arange(4000, device=device) % 3, 3)


def wait(device: torch.device) -> float:
    """The time, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def one_by_one(config: Config, samples: Samples, epochs: int) -> None:
    """`rivals.train_one`'s loop."""
    device = samples.labels.device
    vectors = list(samples.vectors.values())
    model = Fusion([one.shape[1] for one in vectors], config.D).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(3600, device=device).split(config.batch_size):
            loss = torch.nn.functional.cross_entropy(model(*(one[rows] for one in vectors)), samples.labels[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
        model.eval()
        with torch.no_grad():
            (model(*(one[3600:] for one in vectors)).argmax(dim=1) == samples.labels[3600:]).float().mean().item()


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
    made: dict[tuple[str, str], torch.Tensor] = {}
    rows = torch.arange(4000).expand(options.seeds, -1)
    replicates = [Replicate(42 + seed) for seed in range(options.seeds)]
    ours = theirs = 0.0
    configs = [replace(one, epochs=options.epochs, precision=options.precision) for one in union(REFERENCE)]
    one_by_one(configs[0], samples_of(configs[0], device, made), 1)  # warms the device
    for config in configs:
        samples = samples_of(config, device, made)
        started = wait(device)
        StackTrainer(config, replicates, samples, rows[:, :3600], rows[:, 3600:]).fit()
        between = wait(device)
        one_by_one(config, samples, options.rival_epochs)
        ours += between - started
        theirs += (wait(device) - between) * options.seeds * options.epochs / options.rival_epochs
    memory = f", at most {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB" if device.type == "cuda" else ""
    print(f"{len(configs)} configurations × {options.seeds} seeds × {options.epochs} epochs: ours {ours:.1f} s{memory}")
    print(
        f"one training after another {theirs:.0f} s (a part of it, counted for all): {theirs / ours:.1f} times as long"
    )


if __name__ == "__main__":
    main()
