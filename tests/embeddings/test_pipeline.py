import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from mvsa_tune.data.dataset import Dataset
from mvsa_tune.embeddings.pipeline import Settings, Task, embed_blocks
from mvsa_tune.encoders.towers import Tower

TASK = Task("image", Settings(), batch_size=8, threads=2)


class Watched(Tower):
    """Counts what is prepared and encoded, and the threads that torch would take."""

    width = 1
    preprocessing = weights = "none"

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.prepared = self.encoded = self.most = 0
        self.threads: set[tuple[str, int]] = set()
        self.batches: list[int] = []

    def prepare(self, item: Any) -> Any:
        with self.lock:
            self.prepared += 1
            self.most = max(self.most, self.prepared - self.encoded)
            self.threads.add(("preparing", torch.get_num_threads()))
        return 1

    def encode(self, prepared: Sequence[Any]) -> torch.Tensor:
        self.batches.append(len(prepared))
        self.threads.add(("encoding", torch.get_num_threads()))
        with self.lock:
            self.encoded += len(prepared)
        return torch.ones(len(prepared), 1)


def test_few_pictures_are_prepared_ahead_however_many_a_block_holds(demo: Dataset) -> None:
    tower = Watched()
    blocks = {0: demo.samples[:300], 300: demo.samples[300:500]}
    assert [block.row for block in embed_blocks(tower, TASK, blocks)] == [0, 300]
    assert tower.encoded == 500
    assert tower.most <= 5 * TASK.batch_size  # four batches ahead, and the one that is being encoded


def test_torchs_threads_are_the_encoders(demo: Dataset) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        tower = Watched()
        list(embed_blocks(tower, TASK, {0: demo.samples[:64]}))
        assert tower.threads == {("preparing", 1), ("encoding", 3)}
        later_threads: list[int] = []
        later = threading.Thread(target=lambda: later_threads.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert later_threads == [3]  # and threads begun afterwards are as they would have been
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("skipped", [(), (0, 1, 9)])
def test_batches_are_full_whatever_is_skipped(demo: Dataset, skipped: tuple[int, ...]) -> None:
    tower = Watched()
    task = Task("image", Settings(), 8, 2, frozenset(demo.guids[row] for row in skipped))
    (block,) = embed_blocks(tower, task, {0: demo.samples[:40]})
    assert set(tower.batches[:-1]) <= {8} and sum(tower.batches) == 40 - len(skipped)
    assert [row for row in range(40) if not block.vectors[row]] == list(skipped)
