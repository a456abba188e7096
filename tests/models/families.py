"""Tiny RoBERTa and DistilBERT models with random weights, saved to disk."""

from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizerFast,
)

from tests.synthetic import synthetic_reviews


def save_roberta_tokenizer(folder: Path) -> Path:
    """A byte-level BPE tokenizer with RoBERTa's special tokens and a vocabulary of 400."""
    bpe = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe.train_from_iterator(synthetic_reviews(100)["text"], vocab_size=400, special_tokens=special, show_progress=False)
    bpe.save_model(str(folder))
    RobertaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    return folder


def save_roberta(folder: Path) -> Path:
    """A RoBERTa of 2 layers, hidden size 32, at most 128 tokens."""
    save_roberta_tokenizer(folder)
    tokenizer = RobertaTokenizerFast.from_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,  # RoBERTa does not use the first two
        pad_token_id=tokenizer.pad_token_id,
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_distilbert(folder: Path, vocabulary: Path) -> Path:
    """A DistilBERT of 2 layers, hidden size 32, at most 128 tokens."""
    tokenizer = BertTokenizerFast(str(vocabulary))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=128
    )
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    return folder
