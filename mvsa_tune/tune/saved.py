"""The memory that a forward pass keeps for its backward pass, measured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def saved_bytes(model: nn.Module | None = None) -> Iterator[Callable[[], int]]:
    """Call what is given for the bytes that have been kept so far, each storage once; those of `model`'s weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()} if model else set()
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Held here, too, so that no other tensor comes to its place while this one is counted.
        return kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)

    def count() -> int:
        return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)

    # What the graph gets back must be the tensor itself, not the first of its storage: views differ.
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (keep(tensor), tensor)[1], lambda tensor: tensor):
        yield count
