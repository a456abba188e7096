"""Tiny models of other families, with random weights, saved to disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaTokenizerFast,
)

from src.system.pretrained import stored_config
from tests.synthetic import WORDS, synthetic_reviews


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


_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
_ENCODER_DECODER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
_BERT_LIKE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
}
FAMILIES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "ibert"), _BERT_LIKE),
    **dict.fromkeys(("fnet", "nystromformer", "deberta-v2"), _BERT_LIKE),
    "electra": _BERT_LIKE | {"embedding_size": 32},
    "albert": _BERT_LIKE | {"embedding_size": 16},
    "modernbert": _BERT_LIKE | {"global_attn_every_n_layers": 2, "cls_token_id": 0, "sep_token_id": 2},
    "longformer": _BERT_LIKE | {"attention_window": 16},
    "big_bird": _BERT_LIKE | {"block_size": 4, "num_random_blocks": 1, "sep_token_id": 2},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 130},
    "bart": _ENCODER_DECODER | {"max_position_embeddings": 130, "decoder_start_token_id": 2},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 1},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 130},
}
"""Sizes of tiny networks, by model type."""


def word_level_tokenizer(template: str = "<s> $A </s>", special: Sequence[str] = _SPECIAL) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words and letters, with RoBERTa's special tokens, which its vocabulary holds as words."""
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    words = {word: i for i, word in enumerate(dict.fromkeys([*special, *WORDS, *letters, *"<>/.,"]))}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, words[token]) for token in special]
    )
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **{f"{name}_token": token for name, token in names.items()})


def family_config(name: str) -> PretrainedConfig:
    """The configuration of a tiny network that fits `word_level_tokenizer`."""
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    return stored_config({"model_type": name, "vocab_size": len(word_level_tokenizer()), **FAMILIES[name], **ids})


def save_family(name: str, folder: Path) -> Path:
    """A tiny network with random weights and its tokenizer."""
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(family_config(name)).save_pretrained(folder)
    tokenizer = word_level_tokenizer("$A </s> <s>" if name == "xlnet" else "<s> $A </s>")
    tokenizer.padding_side = "left" if name == "xlnet" else "right"
    tokenizer.save_pretrained(folder)
    return folder
