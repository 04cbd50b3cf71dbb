"""Small stacks to train, and the reference's head in plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvsa_tune.config import Config, Replicate
from mvsa_tune.training.trainer import Samples, StackTrainer

CONFIG = Config(image_encoder="eye", text_encoder="ear", D=8, lr=1e-2, batch_size=16, epochs=3)


WIDTHS = {"image": 10, "text": 6}


def samples(count: int = 90, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Samples:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (count,), generator=generator)
    vectors = {name: torch.randn(count, width, generator=generator) for name, width in WIDTHS.items()}
    for values in vectors.values():
        values[:, 0] += labels
    return Samples({name: values.to(device, dtype) for name, values in vectors.items()}, labels.to(device), 3)


def trainer(config: Config, replicates: Sequence[Replicate], data: Samples, train: int = 70) -> StackTrainer:
    """Replicates of fold f train on the samples from f on, and validate on the last twenty."""
    train_rows = [torch.arange(train) + replicate.fold for replicate in replicates]
    val_rows = [torch.arange(len(data.labels) - 20, len(data.labels))] * len(replicates)
    return StackTrainer(config, replicates, data, train_rows, val_rows)


# How many samples each fold trains on, in minibatches of 16: five steps, five, four with 17 in the last, four, four
COUNTS = (70, 66, 65, 64, 59)


def uneven(config: Config, replicates: Sequence[Replicate], data: Samples, times: int = 1) -> StackTrainer:
    """Build replicates: fold f trains on the first COUNTS[f] samples, validates on 9 + f and is tested on 8 - f."""
    rows, parts = torch.arange(len(data.labels)), []
    for fold in (replicate.fold for replicate in replicates):
        train = times * COUNTS[fold]
        parts.append(rows[: train + 17].split([train, 9 + fold, 8 - fold]))
    train, validation, test = zip(*parts, strict=True)
    return StackTrainer(config, replicates, data, train, validation, test)


def rates(stack: StackTrainer) -> list[float]:
    """Each replicate's learning rate, as its plateaus have left it."""
    return [scheduler.get_last_lr()[0] for scheduler in stack.plateaus]


class Reference(nn.Module):
    """The reference's head in plain torch.nn; its dropout takes masks from outside. Fine-tuning shares a BatchNorm."""

    def __init__(self, modalities: Sequence[str], D: int, shared_norm: bool = False) -> None:
        super().__init__()
        self.linear = nn.ModuleDict({m: nn.Linear(WIDTHS[m], D) for m in modalities})
        shared = nn.BatchNorm1d(D)
        self.norm = nn.ModuleDict({m: shared if shared_norm else nn.BatchNorm1d(D) for m in modalities})
        self.classifier = nn.Linear(D * len(modalities), 3)

    def forward(self, inputs: dict[str, Tensor], masks: dict[str, Tensor] | None, rate: float) -> Tensor:
        hidden = []
        for modality in self.linear:
            h = torch.relu(self.norm[modality](self.linear[modality](inputs[modality])))
            hidden.append(h if masks is None else h * masks[modality] / (1 - rate))
        return self.classifier(torch.cat(hidden, dim=1))


def copy_weights(reference: Reference, head: nn.Module, r: int) -> None:
    for modality, tower in head.towers.items():  # type: ignore[union-attr, operator]
        reference.linear[modality].weight.data.copy_(tower.linear.weight[r])
        reference.linear[modality].bias.data.copy_(tower.linear.bias[r, :, 0])
    reference.classifier.weight.data.copy_(head.classifier.weight[r])  # type: ignore[union-attr, index]
    reference.classifier.bias.data.copy_(head.classifier.bias[r, :, 0])  # type: ignore[union-attr, index]
