import pytest
import torch

from mvsa_tune.embeddings import workers
from mvsa_tune.embeddings.workers import worker_count


@pytest.mark.parametrize(
    ("asked", "device", "blocks", "cpus", "expected"),
    [
        (None, "cpu", 1000, 2, 1),
        (None, "cpu", 1000, 15, 1),
        (None, "cpu", 1000, 64, 8),
        (None, "cpu", 20, 64, 2),  # as many as have eight blocks each
        (None, "cpu", 0, 64, 1),
        (None, "cuda", 1000, 64, 4),
        (None, "cuda:1", 1000, 64, 1),
        (3, "cpu", 1000, 2, 3),
        (3, "cpu", 2, 64, 2),
        (3, "cuda", 0, 64, 1),
    ],
)
def test_one_worker_a_gpu_or_for_eight_cpus_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, device: str, blocks: int, cpus: int, expected: int
) -> None:
    monkeypatch.setattr(workers, "cpu_count", lambda: cpus)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert worker_count(asked, torch.device(device), blocks) == expected
