"""Compare the rate of fine-tuning with the same network's bare forward, backward and step on a ready batch.

    python bench/finetune.py --data DIR --pair mobilenet_v2+minilm --weights mobilenet_v2=FILE minilm=FOLDER
    python bench/finetune.py --data DIR --random --device cuda --precision bf16 --samples 1024

It needs no Ray. Both use one process, one network, the same threads and batches; loading is not counted. A round is
bare, epoch, bare: its ratio is the epoch's rate (pictures are read and prepared during the training, texts tokenised
before) over that of the two bare runs around it. `--random` uses ResNet-50 and RoBERTa-base in full size with random
weights, for speed and memory alone.
"""

import argparse
import os
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mvsa_tune.config import Config, Replicate, split_pair
from mvsa_tune.data.dataset import read_dataset
from mvsa_tune.data.splits import Split
from mvsa_tune.data.text import normalise
from mvsa_tune.encoders.weights import weights_by_name
from mvsa_tune.finetuning.model import train_mode
from mvsa_tune.finetuning.trainer import FinetuneTask, ReplicateTrainer
from mvsa_tune.machine import keep_freed_memory
from stacks import seconds, spread


def read_flags() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pair", default="resnet50+roberta-base")
    parser.add_argument("--weights", nargs="+", default=[])
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--samples", type=int, default=64, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--frozen", type=float, default=0.0)
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def random_weights(folder: Path, texts: list[str]) -> dict[str, Path]:
    """Write random weights of ResNet-50 and RoBERTa-base, its tokenizer trained on `texts`; return their paths."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from torchvision.models import resnet50
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    torch.save(resnet50().state_dict(), folder / "resnet50.pth")
    roberta = folder / "roberta"
    RobertaModel(RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)).save_pretrained(
        roberta
    )
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=20_000, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(roberta)
    return {"resnet50": folder / "resnet50.pth", "roberta-base": roberta}


def bare(trainer: ReplicateTrainer) -> Callable[[], None]:
    """Return a function that does as many steps as an epoch has, each on the same ready batch."""
    rows = trainer.train_rows[: trainer.config.batch_size // trainer.config.accumulation]
    inputs = next(trainer.samples.batches([rows]))
    labels = trainer.labels[torch.from_numpy(rows).to(trainer.device)]
    count = len(trainer.train_rows) // len(rows)

    def steps() -> None:
        train_mode(trainer.network, trainer.config.batchnorm)
        for step in range(count):
            torch.nn.functional.cross_entropy(trainer.logits(inputs), labels).backward()
            if (step + 1) % trainer.config.accumulation == 0:
                trainer.optimizer.step()
                trainer.optimizer.zero_grad(set_to_none=True)

    return steps


def main() -> None:
    """Measure and print."""
    options = read_flags()
    keep_freed_memory()
    device, dataset = torch.device(options.device), read_dataset(options.data)
    texts = [normalise(sample.text) for sample in dataset.samples[: options.samples]]
    image, text = split_pair(options.pair)
    config = Config(
        image_encoder=image, text_encoder=text, lr=1e-5, encoder_lr=1e-5, batch_size=options.batch_size, epochs=10**6,
        accumulation=options.accumulation, frozen=options.frozen, precision=options.precision,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        weights = random_weights(Path(folder), texts) if options.random else weights_by_name(options.weights)
        threads, rows = len(os.sched_getaffinity(0)), np.arange(options.samples)
        task = FinetuneTask.on(
            dataset,
            "reference",
            Path(folder),
            weights,
            split=Split("all", {0: rows}, {0: rows[:2]}, {0: rows[:0]}),
            replicates=(Replicate(42),),
            device=options.device,
            threads=threads,
            recomputed=options.gradient_checkpointing,
        )
        trainer = ReplicateTrainer(config, task.replicates[0], task)
    steps = bare(trainer)
    seconds(steps, device), seconds(trainer.train_epoch, device)
    ratios = []
    for number in range(options.rounds):
        first, epoch, second = (seconds(work, device) for work in (steps, trainer.train_epoch, steps))
        ratios.append((first + second) / 2 / epoch)
        rates = f"bare {2 * options.samples / (first + second):.1f}/s   epoch {options.samples / epoch:.1f}/s"
        print(f"round {number + 1}: {rates}   ratio {ratios[-1]:.2f}   load {os.getloadavg()[0]:.1f}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    trained = sum(parameter.numel() for group in trainer.optimizer.param_groups for parameter in group["params"])
    print(
        f"{options.pair}, {trained:,} parameters trained, {device}, {threads} threads, "
        f"batch size {options.batch_size}, {options.precision}; peak memory {peak / 2**30:.1f} GiB"
    )
    print(f"  epoch / bare   {spread(ratios)}")


if __name__ == "__main__":
    main()
