"""What both pipelines need of texts: byte-level BPE whose words are single tokens, and batches of prompts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from shapes import all_captions
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_bpe(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Trained on all captions and ``texts``, up to ``vocabulary`` tokens. Any other text has tokens as well."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*all_captions(), *texts], trainer)
    return tokenizer


def batch_unique(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Each different prompt once: token ids and mask, both (prompts, longest), and the place of every row in them."""
    unique = sorted({tuple(row) for row in rows})
    longest = max(map(len, unique))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in unique])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in unique])
    place = {row: i for i, row in enumerate(unique)}
    return ids, mask, [place[tuple(row)] for row in rows]
