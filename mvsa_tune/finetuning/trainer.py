"""Fine-tunes one replicate: its encoders and its head, end to end. Pure torch.

Its numbers are a function of configuration, seed and fold alone, as in a stack: the head's weights, the order of the samples and the
head's dropout come from the same generators, so that with encoders that stand still it trains as the frozen head does.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mvsa_tune.config import Config, Replicate
from mvsa_tune.encoders.towers import ModelTower
from mvsa_tune.finetuning.data import Prepared
from mvsa_tune.finetuning.model import Inputs, Network, Noise, freeze, recompute, train_mode, trainable_parameters
from mvsa_tune.models.heads import build_head, initialise
from mvsa_tune.training.stack import generators, minibatches
from mvsa_tune.training.trainer import Part, Trainer

RECORDS, NETWORK, OPTIMIZER, GENERATOR = "records.", "network.", "optimizer.", "generator."


class ReplicateTrainer(Trainer):
    """One replicate of a configuration whose encoders are trained with its head."""

    def __init__(
        self,
        config: Config,
        replicate: Replicate,
        prepared: Prepared,
        labels: Tensor,
        classes: int,
        train_rows: NDArray[np.int64],
        val_rows: NDArray[np.int64],
        test_rows: NDArray[np.int64],
        *,
        recomputed: bool = False,
    ) -> None:
        """Begin with the encoders' own weights and a fresh head.

        Args:
            config: what to train.
            replicate: its seed and fold.
            prepared: the samples, and the towers that they are prepared for; those are left as they are.
            labels: `(N,)` int64, on the device to train on.
            classes: number of classes.
            train_rows: `(n,)` row numbers of the training samples.
            val_rows: `(M,)` the same for validation.
            test_rows: the same for testing; empty for a split without such a part.
            recomputed: gradient checkpointing: less memory for more time, the same numbers.
        """
        super().__init__(config, labels, classes, [torch.from_numpy(val_rows)], [torch.from_numpy(test_rows)])
        self.prepared, self.train_rows = prepared, train_rows
        weights, self.order, self.dropout = generators(replicate, self.device)
        seeds = np.random.SeedSequence([replicate.seed, replicate.fold]).generate_state(4)
        self.noise = Noise(int(seeds[3]), self.device)  # the first three are those of `generators`
        self.network = build_network(config, prepared.towers, classes)
        initialise(self.network.head, [weights], [self.dropout])
        self.network.to(self.device)
        encoders = list(self.network.encoders.values())
        for encoder in encoders:
            freeze(encoder, config.frozen)
            if recomputed:
                recompute(encoder)
        groups = [
            {"params": trainable_parameters(encoders), "lr": config.encoder_lr},
            {"params": trainable_parameters([self.network.head]), "lr": config.lr},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
        self.batches = list(minibatches(len(train_rows), config.batch_size))

    def train_epoch(self) -> Tensor:
        """Pass once over the training samples, in the replicate's own order; return the mean loss `(1,)`."""
        train_mode(self.network, self.config.batchnorm)
        rows = self.train_rows[torch.randperm(len(self.train_rows), generator=self.order).numpy()]
        batches = [parts(rows[batch], self.config.accumulation) for batch in self.batches]
        total = torch.zeros(1, device=self.device)
        inputs = self.prepared.batches([part for batch in batches for part in batch])
        with self.noise.drawn():
            for place, batch in enumerate(batches):
                count = sum(map(len, batch))
                for part in batch:
                    loss = self._loss(next(inputs), part, self.config.label_smoothing) / count
                    loss.backward()
                    total += loss.detach() * count
                self._step(place)
        return total / len(rows)

    def _loss(self, inputs: Inputs, rows: NDArray[np.int64], smoothing: float) -> Tensor:
        """The sum of the samples' cross-entropies."""
        labels = self.labels[torch.from_numpy(rows).to(self.device)]
        return F.cross_entropy(self.logits(inputs), labels, reduction="sum", label_smoothing=smoothing)

    def logits(self, inputs: Inputs) -> Tensor:
        """What the towers' `collate` made of B samples → logits `(B, C)`, float32."""
        mixed = self.config.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed):
            return self.network(inputs).float()  # type: ignore[no-any-return]

    def rates(self, step: int) -> tuple[float, float]:
        """The learning rates of encoders and head in step `step` of the epoch: the former follow the latter."""
        rate = self.rate(0, step, len(self.batches))
        return rate * self.config.encoder_lr / self.config.lr, rate

    def _step(self, step: int) -> None:
        """Take step `step` of the epoch, of AdamW, and forget the gradients."""
        for group, rate in zip(self.optimizer.param_groups, self.rates(step), strict=True):
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def evaluate(self, part: Part) -> tuple[Tensor, Tensor]:
        """Score samples; return the mean loss `(1,)` and predicted classes `(1, M)`."""
        self.network.eval()
        rows = part.rows[0]
        blocks = rows.cpu().split(max(1, self.config.batch_size // self.config.accumulation))
        inputs = self.prepared.batches([block.numpy() for block in blocks])
        logits = torch.cat([self.logits(one) for one in inputs])
        loss = F.cross_entropy(logits, self.labels[rows])
        return loss[None], logits.argmax(dim=1)[None]

    def state(self) -> dict[str, Tensor]:
        """All that its next epoch depends on, and what it has found."""
        moments = self.optimizer.state_dict()["state"]
        own = {"order": self.order.get_state(), "dropout": self.dropout.get_state()}
        noise = {f"noise{place}": state for place, state in enumerate(self.noise.state)}
        return {
            **{f"{NETWORK}{name}": tensor for name, tensor in self.network.state_dict().items()},
            **{f"{OPTIMIZER}{key}.{name}": one for key, kept in moments.items() for name, one in kept.items()},
            **{f"{GENERATOR}{name}": tensor for name, tensor in (own | noise).items()},
            **{f"{RECORDS}{name}": tensor for name, tensor in self.records().items()},
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave, as if nothing had happened in between."""
        self.network.load_state_dict(below(NETWORK, state))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in below(OPTIMIZER, state).items():
            key, _, kind = name.partition(".")
            moments.setdefault(int(key), {})[kind] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        own = below(GENERATOR, state)
        self.order.set_state(own["order"].cpu())
        self.dropout.set_state(own["dropout"].cpu())
        self.noise.state = [own[f"noise{place}"].cpu() for place in range(len(self.noise.state))]
        self.restore(below(RECORDS, state))


def build_network(config: Config, towers: Mapping[str, ModelTower], classes: int) -> Network:
    """Copies of the towers' models and a head of one replicate, its weights not yet drawn."""
    widths = {modality: tower.width for modality, tower in towers.items()}
    head = build_head(config.head, 1, widths, config.D, classes, config.dropout)
    return Network({name: deepcopy(tower.model) for name, tower in towers.items()}, head, config.normalise)


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def parts(rows: NDArray[np.int64], count: int) -> Sequence[NDArray[np.int64]]:
    """Cut a minibatch into `count` parts of like size, fewer where one would hold a single sample (BatchNorm needs two)."""
    return np.array_split(rows, max(1, min(count, len(rows) // 2)))
