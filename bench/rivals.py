"""What `heads.py` compares with: the same trainings as Ray Tune's examples would write them, and as separate scripts.

    python bench/rivals.py tune FOLDER WORK        a Tune trial, and a process, for each seed
    python bench/rivals.py script FOLDER WORK      a single training, as the reference's scripts did it

FOLDER holds `image.npy`, `text.npy`, `labels.npy`, and `vectors.json` for the script; WORK is a `heads.Work` as JSON.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """The reference's head in plain torch.nn."""

    def __init__(self, widths: Sequence[int], D: int) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, D), nn.BatchNorm1d(D), nn.ReLU(), nn.Dropout(0.3)) for width in widths
        )
        self.classifier = nn.Linear(D * len(widths), 3)

    def forward(self, *vectors: Tensor) -> Tensor:
        """Vectors `(B, width)` of each modality → logits `(B, 3)`."""
        hidden = [tower(x) for tower, x in zip(self.towers, vectors, strict=True)]
        return self.classifier(torch.cat(hidden, dim=1))


def train_epoch(
    model: Fusion, adam: torch.optim.Adam, vectors: Sequence[Tensor], labels: Tensor, minibatches: Iterable[Tensor]
) -> Tensor:
    """Train on minibatches of row numbers; return the sum of the samples' losses."""
    model.train()
    total = torch.zeros((), device=labels.device)
    for rows in minibatches:
        loss = nn.functional.cross_entropy(model(*(array[rows] for array in vectors)), labels[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
        total += loss.detach() * len(rows)
    return total


def accuracy(model: Fusion, vectors: Sequence[Tensor], labels: Tensor) -> float:
    """Return the share of samples that are classified correctly."""
    model.eval()
    with torch.no_grad():
        return (model(*vectors).argmax(dim=1) == labels).float().mean().item()


def split(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers of the reference's training and validation samples."""
    from sklearn.model_selection import train_test_split

    train, validation = train_test_split(np.arange(count), test_size=0.1, random_state=42)
    return train, validation


def train_trial(config: dict[str, float], image: np.ndarray, text: np.ndarray, labels: np.ndarray) -> None:
    """Run a Tune trial: a careful torch loop, with tensors in memory, minibatches by index and fused Adam."""
    from ray import tune

    torch.manual_seed(int(config["seed"]))
    vectors = [torch.from_numpy(np.array(array)) for array in (image, text)]
    targets = torch.from_numpy(np.array(labels))
    train, validation = map(torch.from_numpy, split(len(labels)))
    model = Fusion([array.shape[1] for array in vectors], int(config["D"]))
    adam = torch.optim.Adam(model.parameters(), lr=config["lr"], fused=True)
    held_out = [array[validation] for array in vectors]
    for _ in range(int(config["epochs"])):
        minibatches = train[torch.randperm(len(train))].split(int(config["batch_size"]))
        loss = train_epoch(model, adam, vectors, targets, minibatches).item() / len(train)
        tune.report({"train_loss": loss, "val_acc": accuracy(model, held_out, targets[validation])})


def sweep_with_tune(folder: Path, work: dict[str, Any]) -> None:
    """Train each configuration and seed as a separate trial, in a separate process; write a table at the end."""
    from ray import tune

    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("image", "text", "labels")}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_trial, **arrays), {"cpu": 1}),
        param_space={
            "D": tune.grid_search(work["D"]),
            "lr": tune.grid_search(work["lr"]),
            "seed": tune.grid_search(work["seeds"]),
            "batch_size": work["batch_size"],
            "epochs": work["epochs"],
        },
        tune_config=tune.TuneConfig(metric="val_acc", mode="max"),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
    )
    results = tuner.fit()
    assert not results.errors
    table = results.get_dataframe(filter_metric="val_acc", filter_mode="max")
    table.groupby(["config/D", "config/lr"])["val_acc"].agg(["mean", "std"]).to_csv(folder / "tune.csv")


class Pairs(torch.utils.data.Dataset[tuple[Tensor, ...]]):
    """A data set that hands out single samples, as in torch's tutorial."""

    def __init__(self, *columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, row: int) -> tuple[Tensor, ...]:
        return tuple(column[row] for column in self.columns)


def train_by_script(folder: Path, work: dict[str, Any]) -> None:
    """Train once as the reference's scripts did: vectors from JSON, a DataLoader, torch's defaults."""
    from torch.utils.data import DataLoader, Subset, TensorDataset

    torch.manual_seed(42)
    columns = json.loads((folder / "vectors.json").read_text())
    tensors = [torch.tensor(columns[name]) for name in ("img_feats", "txt_feats", "labels")]
    data = TensorDataset(*tensors) if work["batched"] else Pairs(*tensors)
    train, validation = (Subset(data, rows.tolist()) for rows in split(len(tensors[0])))
    train_loader = DataLoader(train, work["batch_size"], shuffle=True)
    validation_loader = DataLoader(validation, work["batch_size"])
    model = Fusion([tensor.shape[1] for tensor in tensors[:2]], work["D"][0])
    adam = torch.optim.Adam(model.parameters(), lr=work["lr"][0])
    best = 0.0
    for _ in range(work["epochs"]):
        model.train()
        for image, text, labels in train_loader:
            loss = nn.functional.cross_entropy(model(image, text), labels)
            adam.zero_grad()
            loss.backward()
            adam.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for image, text, labels in validation_loader:
                correct += int((model(image, text).argmax(dim=1) == labels).sum())
        best = max(best, correct / len(validation))
    print(f"best validation accuracy {best:.4f}")


def main() -> None:
    """Train."""
    ways = {"tune": sweep_with_tune, "script": train_by_script}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=ways)
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=json.loads)
    options = parser.parse_args()
    ways[options.way](options.folder, options.work)


if __name__ == "__main__":
    main()
