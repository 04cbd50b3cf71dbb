"""What a trial gets of a machine or of a cluster's nodes."""

import pytest

from mvsa_tune.cluster.resources import Placement, place
from mvsa_tune.cluster.session import Node
from mvsa_tune.errors import InputError


@pytest.mark.parametrize(
    ("cpus", "gpus", "trials", "asked", "placed"),
    [
        (2, 0, 20, (None, None), Placement(1, 0, 2)),
        (8, 0, 2, (None, None), Placement(4, 0, 2)),  # fewer trials than CPUs: more threads each
        (8, 0, 20, (4, None), Placement(4, 0, 2)),
        (1, 0, 20, (None, None), Placement(1, 0, 1)),
        (16, 1, 24, (None, None), Placement(4, 0.25, 4)),  # four share a GPU
        (16, 8, 24, (None, None), Placement(1, 0.5, 16)),
        (4, 4, 24, (None, None), Placement(1, 1.0, 4)),
        (16, 1, 24, (None, 0.5), Placement(8, 0.5, 2)),
        (16, 8, 24, (None, 2), Placement(4, 2, 4)),
        (16, 2, 24, (None, 0), Placement(1, 0, 16)),  # CPUs alone, though there are GPUs
    ],
)
def test_a_trial_gets_its_share_of_the_machine(
    cpus: int,
    gpus: int,
    trials: int,
    asked: tuple[int | None, float | None],
    placed: Placement,
) -> None:
    assert place(trials, *asked, [Node("this machine", cpus, gpus, 2**33)]) == placed
    assert placed.concurrent * placed.cpus <= cpus and placed.concurrent * placed.gpus <= gpus


def test_more_than_the_machine_has_is_refused() -> None:
    machine = [Node("this machine", 4, 1, 2**33)]
    with pytest.raises(InputError, match="this machine has 1 GPUs; no trial could ever start"):
        place(1, None, 2, machine)
    with pytest.raises(InputError, match="this machine has 4 CPUs; no trial could ever start"):
        place(1, 5, None, machine)


CLUSTER = [Node("a", 8, 0, 2**34), Node("b", 4, 2, 2**33), Node("c", 2, 0, 2**32)]


@pytest.mark.parametrize(
    ("trials", "asked", "share", "gpus", "at_once"),
    [
        (100, (None, 0), 1, 0, 14),  # every CPU of every node
        (3, (None, 0), 4, 0, 3),  # two on a, one on b: no node is asked for more than it has
        (100, (4, 0), 4, 0, 3),  # c is too small for any
        (100, (None, None), 1, 0.5, 4),  # b alone has GPUs, two CPUs for each
        (100, (None, 0.25), 1, 0.25, 4),  # of its eight quarters as many as it has CPUs
        (100, (2, 1), 2, 1, 2),
    ],
)
def test_a_trial_lies_on_one_node(
    trials: int, asked: tuple[int | None, float | None], share: int, gpus: float, at_once: int
) -> None:
    placed = place(trials, *asked, CLUSTER, "auto")
    assert (placed.cpus, placed.gpus, placed.concurrent) == (share, gpus, at_once)


def test_what_no_node_can_hold_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        InputError, match=r"9 CPUs and 0 GPUs, which no node .* \(a 8 CPUs, 0 GPUs, b 4 CPUs, 2 GPUs, c"
    ):
        place(1, 9, 0, CLUSTER, "auto")
    with pytest.raises(InputError, match="5 CPUs and 1 GPUs, which no node"):  # a has the CPUs, b the GPU
        place(1, 5, 1, CLUSTER, "auto")
    with pytest.raises(InputError, match="1 CPUs and 4 GPUs"):
        place(1, None, 4, CLUSTER, "auto")
    placed = place(1, 4, 0, CLUSTER, "auto")
    placed.check_memory(2**34)
    with pytest.raises(InputError, match=r"needs about 16.00 GiB .* \(16.0, 8.0 GiB\)"):
        placed.check_memory(2**34 + 1)
