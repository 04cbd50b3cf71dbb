"""What `heads.py` compares with: the same trainings as Ray Tune's examples would write them, and as separate scripts.

python bench/rivals.py tune FOLDER SETTINGS        one Tune trial, and one process, a seed
python bench/rivals.py script FOLDER SETTINGS      one training, as the reference's scripts did it

FOLDER holds `image.npy`, `text.npy`, `labels.npy`, and `vectors.json` for the script; SETTINGS are `heads.Work` as
JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


class Fusion(nn.Module):
    """The reference's head in plain torch.nn."""

    def __init__(self, widths: list[int], D: int) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, D), nn.BatchNorm1d(D), nn.ReLU(), nn.Dropout(0.3)) for width in widths
        )
        self.classifier = nn.Linear(D * len(widths), 3)

    def forward(self, *vectors: Tensor) -> Tensor:
        """Vectors `(B, width)` of each modality → logits `(B, 3)`."""
        hidden = [tower(x) for tower, x in zip(self.towers, vectors, strict=True)]
        return self.classifier(torch.cat(hidden, dim=1))


def split(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The reference's split."""
    from sklearn.model_selection import train_test_split

    train, validation = train_test_split(np.arange(count), test_size=0.1, random_state=42)
    return train, validation


def train_one(config: dict[str, float], image: np.ndarray, text: np.ndarray, labels: np.ndarray) -> None:
    """A Tune trial: a careful torch loop, with tensors in memory, minibatches by index and fused Adam."""
    from ray import tune

    torch.manual_seed(int(config["seed"]))
    vectors = [torch.from_numpy(np.array(one)) for one in (image, text)]
    targets = torch.from_numpy(np.array(labels))
    train, validation = map(torch.from_numpy, split(len(labels)))
    model = Fusion([one.shape[1] for one in vectors], int(config["D"]))
    adam = torch.optim.Adam(model.parameters(), lr=config["lr"], fused=True)
    held = [one[validation] for one in vectors]
    for _ in range(int(config["epochs"])):
        model.train()
        total = torch.zeros(())
        for rows in train[torch.randperm(len(train))].split(int(config["batch_size"])):
            loss = nn.functional.cross_entropy(model(*(one[rows] for one in vectors)), targets[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            total += loss.detach() * len(rows)
        model.eval()
        with torch.no_grad():
            accuracy = (model(*held).argmax(dim=1) == targets[validation]).float().mean()
        tune.report({"train_loss": total.item() / len(train), "val_acc": accuracy.item()})


def sweep_with_tune(folder: Path, work: dict[str, object]) -> None:
    """Every configuration and seed as a trial of its own, in a process of its own; a table at the end."""
    from ray import tune

    arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("image", "text", "labels")}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train_one, **arrays), {"cpu": 1}),
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
    """A sample at a time, as torch's tutorial on data sets has it."""

    def __init__(self, *columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, row: int) -> tuple[Tensor, ...]:
        return tuple(column[row] for column in self.columns)


def train_by_script(folder: Path, work: dict[str, object]) -> None:
    """One training as the reference's scripts had it: vectors from JSON, a DataLoader, torch's defaults."""
    from torch.utils.data import DataLoader, Subset, TensorDataset

    torch.manual_seed(42)
    kept = json.loads((folder / "vectors.json").read_text())
    vectors = [torch.tensor(kept["img_feats"]), torch.tensor(kept["txt_feats"])]
    columns = *vectors, torch.tensor(kept["labels"])
    # A plain data set hands out samples one by one; torch's own a minibatch at once.
    data = TensorDataset(*columns) if work["batched"] else Pairs(*columns)
    train, validation = (Subset(data, rows.tolist()) for rows in split(len(vectors[0])))
    batch_size = int(work["batch_size"])  # type: ignore[call-overload]
    loaders = DataLoader(train, batch_size, shuffle=True), DataLoader(validation, batch_size)
    model = Fusion([one.shape[1] for one in vectors], work["D"][0])  # type: ignore[index]
    adam = torch.optim.Adam(model.parameters(), lr=work["lr"][0])  # type: ignore[index]
    best = 0.0
    for _ in range(int(work["epochs"])):  # type: ignore[call-overload]
        model.train()
        for image, text, targets in loaders[0]:
            loss = nn.functional.cross_entropy(model(image, text), targets)
            adam.zero_grad()
            loss.backward()
            adam.step()
        model.eval()
        right = 0
        with torch.no_grad():
            for image, text, targets in loaders[1]:
                right += int((model(image, text).argmax(dim=1) == targets).sum())
        best = max(best, right / len(validation))
    print(f"best validation accuracy {best:.4f}")


if __name__ == "__main__":
    place, settings = Path(sys.argv[2]), json.loads(sys.argv[3])
    {"tune": sweep_with_tune, "script": train_by_script}[sys.argv[1]](place, settings)
