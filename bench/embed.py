"""Samples per second of the embedding pipeline, against the same encoder's forward alone on ready batches, side by side.

    python bench/embed.py --data DIR --encoder mobilenet_v2 --weights FILE [--samples 512] [--rounds 3] [--batch-size 32]

Alternates three ways in one process, on the first samples of the set, and prints medians and ratios: the pipeline (read, decode,
prepare, encode, write blocks), the forward alone on batches prepared beforehand, and one sample at a time as the older scripts did.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from mvsa_tune.dataset import Dataset, read_dataset
from mvsa_tune.embed import Settings, embed
from mvsa_tune.encoders import find_encoder
from mvsa_tune.pictures import open_picture
from mvsa_tune.text import documents


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    whole = read_dataset(options.data)
    dataset = replace(whole, samples=whole.samples[: options.samples])
    encoder = find_encoder(options.encoder)
    assert encoder is not None, options.encoder
    modality = next(iter(encoder.widths))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tower = encoder.load(modality, options.weights, device)

    def items(dataset: Dataset) -> list[object]:
        if modality == "text":
            return [tower.prepare(documents(sample.text)) for sample in dataset.samples]
        return [tower.prepare(open_picture(sample.picture)) for sample in dataset.samples]

    ready = sorted(items(dataset), key=tower.length)
    batches = [ready[start : start + options.batch_size] for start in range(0, len(ready), options.batch_size)]
    settings = Settings(weights=options.weights, batch_size=options.batch_size, quiet=True)

    def pipeline() -> None:
        with tempfile.TemporaryDirectory() as folder:
            embed(dataset, Path(folder), options.encoder, settings)

    def forward() -> None:
        for batch in batches:
            tower.encode(batch)

    few = replace(dataset, samples=dataset.samples[: max(1, options.samples // 8)])

    def one_by_one() -> None:
        for sample in few.samples:
            tower.encode(items(replace(few, samples=(sample,))))

    load = timed(lambda: encoder.load(modality, options.weights, device))
    rates: dict[str, list[float]] = {"pipeline": [], "forward": [], "one": []}
    for _ in range(options.rounds):
        rates["forward"].append(len(ready) / timed(forward))
        rates["pipeline"].append(len(ready) / (timed(pipeline) - load))
        rates["one"].append(len(few.samples) / timed(one_by_one))
    median = {name: statistics.median(values) for name, values in rates.items()}
    print(
        f"{options.encoder} {modality} on {device}, {len(ready)} samples, batch size {options.batch_size}, {options.rounds} rounds"
    )
    for name, rate in median.items():
        print(f"  {name:<10} {rate:8.1f} samples/s")
    shares = [a / b for a, b in zip(rates["pipeline"], rates["forward"], strict=True)]
    print(
        f"  pipeline / forward {statistics.median(shares):.2f}   pipeline / one {median['pipeline'] / median['one']:.2f}"
    )


if __name__ == "__main__":
    main()
