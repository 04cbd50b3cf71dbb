import pytest
import torch

from mvsa_tune.cluster.session import Node
from mvsa_tune.embeddings import workers
from mvsa_tune.embeddings.workers import workers_for


@pytest.mark.parametrize(
    ("requested", "device", "blocks", "cpus", "expected"),
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
    monkeypatch: pytest.MonkeyPatch, requested: int | None, device: str, blocks: int, cpus: int, expected: int
) -> None:
    monkeypatch.setattr(workers, "cpu_count", lambda: cpus)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert workers_for(requested, torch.device(device), blocks)[0] == expected


NODES = [Node("head", 4, 0, 0), Node("small", 8, 1, 0), Node("large", 64, 4, 0)]


@pytest.mark.parametrize(
    ("requested", "device", "blocks", "expected"),
    [
        (None, "cpu", 1000, (1 + 1 + 8, 4)),
        (None, "cpu", 3, (3, 4)),  # eight blocks each are not asked of a cluster
        (None, "cuda", 1000, (1 + 4, 8)),  # the node without a GPU has no part in it
        (2, "cuda", 1000, (2, 8)),
    ],
)
def test_a_worker_a_gpu_or_for_eight_cpus_of_each_node(
    requested: int | None, device: str, blocks: int, expected: tuple[int, int]
) -> None:
    assert workers_for(requested, torch.device(device), blocks, NODES) == expected
