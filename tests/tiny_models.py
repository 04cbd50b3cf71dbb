"""Tiny models of random weights, saved in their library's own format, and what runs them."""

from pathlib import Path
from typing import Any

import torch

from mvsa_tune.encoders.registry import find_encoder
from mvsa_tune.encoders.towers import Tower

CPU = torch.device("cpu")


TEXTS = ["a short tweet", "another, rather longer tweet about nothing at all, or so it seems", "", "ok " * 200]


def load(name: str, modality: str, weights: Path | None = None) -> Tower:
    return find_encoder(name).load(modality, weights, CPU)


def vectors(tower: Tower, items: list[Any]) -> torch.Tensor:
    """In one batch; and apart and the other way round, which must give the same."""
    prepared = [tower.prepare(item) for item in items]
    together = tower.encode(prepared)
    assert together.dtype == torch.float32 and together.shape == (len(items), tower.width)
    for row in range(len(items)):
        torch.testing.assert_close(tower.encode([prepared[row]])[0], together[row], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tower.encode(prepared[::-1]).flip(0), together, rtol=1e-5, atol=1e-5)
    return together


def word_tokenizer(folder: Path, **special: str) -> Any:
    """A small tokenizer in transformers' own format."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(folder)
    return fast


def text_model(kind: str, folder: Path, positions: int = 140) -> tuple[Any, Any]:
    import transformers

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=100, max_position_embeddings=positions, type_vocab_size=1, pad_token_id=1, **small
    )
    model = getattr(transformers, f"{kind}Model")(config).eval()
    model.save_pretrained(folder)
    return model, word_tokenizer(folder)
