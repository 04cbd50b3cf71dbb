"""Measure which library multiplies float32 matrices fastest on this machine's CPU.

    python bench/matmul.py                     half a minute; prints the line of `FASTER` in mvsa_tune/models/matmul.py
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python bench/matmul.py     as on a CPU without AVX-512

Each shape is a product of our training at a D and a batch size, for five replicates, on one thread; the libraries take
turns, and medians are compared. MKL on AMD's CPUs takes its AVX2 path whatever the CPU has.
"""

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mvsa_tune.formats import markdown
from mvsa_tune.machine import keep_freed_memory
from mvsa_tune.models.matmul import BLAS, HAS_ONEDNN, multiply_each

REPLICATES, SECONDS, ROUNDS = 5, 0.05, 7
WIDTHS = {"MiniLM": 384, "MobileNetV2": 1280}


def by_blas(left: Tensor, right: Tensor) -> Tensor:
    """Multiply by torch's own choice."""
    return torch.bmm(left, right.mT)


def by_onednn(left: Tensor, right: Tensor) -> Tensor:
    """Multiply by oneDNN's linear layer."""
    return torch.stack(multiply_each(left.unbind(), right.unbind()))


def gigaflops(multiply: Callable[[Tensor, Tensor], Tensor], left: Tensor, right: Tensor) -> float:
    """Return how many billion operations a second a product takes."""
    count, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < SECONDS:
        multiply(left, right)
        count += 1
    return 2e-9 * left.numel() * right.shape[1] * count / seconds


def main() -> None:
    """Print a table of shapes, and the library that wins over all of them."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as a trial does
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {BLAS: by_blas}
    if HAS_ONEDNN:
        ways["oneDNN"] = by_onednn
    body, logs = [], []
    for D in (128, 256):
        for B in (32, 512):
            for name, width in WIDTHS.items():
                for product, (M, N, K) in {"forward": (D, B, width), "gradient": (D, width, B)}.items():
                    left, right = torch.randn(REPLICATES, M, K), torch.randn(REPLICATES, N, K)
                    rounds = [[gigaflops(way, left, right) for way in ways.values()] for _ in range(ROUNDS)]
                    medians = [statistics.median(values) for values in zip(*rounds, strict=True)]
                    logs.append([math.log(value) for value in medians])
                    body.append([f"{product}, {name}", str(D), str(B), *(f"{value:.0f}" for value in medians)])
    print(markdown(["product", "D", "batch size", *(f"{name}, GFLOP/s" for name in ways)], body))
    columns = zip(ways, zip(*logs, strict=True), strict=True)
    means = {name: math.exp(statistics.mean(values)) for name, values in columns}
    capability = torch.backends.cpu.get_cpu_capability()
    print(", ".join(f"{name} {value:.0f}" for name, value in means.items()), "(geometric means)")
    print(f'"{capability}": "{max(means, key=lambda name: means[name])}",')


if __name__ == "__main__":
    main()
