"""Compare the rate of the embedding pipeline with that of the same encoder's forward alone on ready batches.

    python bench/embed.py --data DIR --encoder mobilenet_v2 --weights FILE [--samples 128] [--rounds 5] [--device cuda]

All ways use one process, one loaded encoder, the same threads and batches; loading is not counted. A round takes the
next samples of the set through forward, pipeline, forward. Its ratio is the pipeline's rate over that of the two
forwards around it, since other work on the machine slows both. Also measured: preparing alone (read, decode,
transform) on as many threads, which with the forward gives the bound for work that shares the same cores; and one
sample at a time, as the older scripts did, on an eighth of the samples.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mvsa_tune.data.dataset import Sample, read_dataset
from mvsa_tune.data.images import open_picture
from mvsa_tune.data.text import normalise
from mvsa_tune.embeddings.embed import BATCH
from mvsa_tune.embeddings.pipeline import Settings, Task, embed_blocks, preparing_threads
from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.encoders.towers import Tower
from stacks import seconds, spread


def read_flags() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--samples", type=int, default=128, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, help="default: the pipeline's for the device")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def measure(tower: Tower, task: Task, samples: Sequence[Sample]) -> dict[str, float]:
    """Return the seconds that each way takes for a sample."""

    def prepare(sample: Sample) -> Any:
        return tower.prepare(open_picture(sample.picture) if task.modality == "image" else normalise(sample.text))

    ready = sorted(map(prepare, samples), key=len)
    few = samples[: max(1, len(samples) // 8)]

    def forward() -> None:
        for start in range(0, len(ready), task.batch_size):
            tower.encode(ready[start : start + task.batch_size])

    def preparing() -> None:
        with preparing_threads(task.threads) as pool:
            for _ in pool.map(prepare, samples):
                pass

    def one_at_a_time() -> None:
        for sample in few:
            tower.encode([prepare(sample)])

    before = seconds(forward)
    piped = seconds(lambda: list(embed_blocks(tower, task, {0: samples})))
    return {
        "forward": (before + seconds(forward)) / 2 / len(samples),
        "pipeline": piped / len(samples),
        "preparing": seconds(preparing) / len(samples),
        "one at a time": seconds(one_at_a_time) / len(few),
    }


def main() -> None:
    """Measure and print."""
    options = read_flags()
    encoder = find_encoder(options.encoder)
    modality, device = next(iter(encoder.widths)), torch.device(options.device)
    tower = encoder.load(modality, options.weights, device)
    samples = read_dataset(options.data).samples
    batch_size = options.batch_size or BATCH[device.type]
    task = Task(modality, Settings(), batch_size, torch.get_num_threads())
    measure(tower, task, samples[:batch_size])
    rounds = []
    for number in range(options.rounds):
        start = number * options.samples % len(samples)
        rounds.append(measure(tower, task, samples[start : start + options.samples]))
        rates = "   ".join(f"{name} {1 / time:.1f}/s" for name, time in rounds[-1].items())
        print(f"round {number + 1}: {rates}   load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"{options.encoder} {modality}, {device}, {task.threads} threads, batch size {batch_size},", end=" ")
    print(f"{options.rounds} rounds of {options.samples} samples: median (least to most)")
    for name, ratios in {
        "pipeline / forward": [times["forward"] / times["pipeline"] for times in rounds],
        "bound on shared cores": [times["forward"] / (times["forward"] + times["preparing"]) for times in rounds],
        "pipeline / one at a time": [times["one at a time"] / times["pipeline"] for times in rounds],
    }.items():
        print(f"  {name:<25} {spread(ratios)}")


if __name__ == "__main__":
    main()
