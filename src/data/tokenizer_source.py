"""Where a data module gets its tokenizer: from a pretrained model, or from the model that it is trained with."""

from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import AutoModel, PretrainedConfig, PreTrainedTokenizerBase

from src.system import pretrained
from src.system.errors import UserError

DEFAULT = "bert-base-uncased"


class TokenizerSource(Protocol):
    """A model's tokenizer, loaded on request."""

    @property
    def name(self) -> str:
        """The model's name, for messages."""

    @property
    def vocab_size(self) -> int:
        """The size of the vocabulary to train on the corpus; 0 if there is a tokenizer."""

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """A fast tokenizer; None if one is to be trained."""

    def longest_input(self) -> int | None:
        """The most tokens that the network takes at once; None if it sets no limit."""


@dataclass(frozen=True)
class PretrainedTokenizer:
    """The tokenizer of a pretrained model.

    Attributes:
        name: Hub id, folder, or `package://NAME/PATH`.
    """

    name: str
    vocab_size = 0

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return pretrained.load_tokenizer(self.name)

    def longest_input(self) -> int | None:
        return longest_input(pretrained.load_config(self.name))


def longest_input(config: PretrainedConfig) -> int | None:
    """The most tokens that a network of this configuration takes at once; None if it sets no limit."""
    with torch.device("meta"):  # shapes, no memory
        network = pretrained.new_network(AutoModel, config)
    limits = [
        # RoBERTa and its relatives number positions from padding_idx + 1
        len(table.weight) - (0 if table.padding_idx is None else table.padding_idx + 1)
        for name, table in network.named_modules()
        if "position" in name.rpartition(".")[2] and hasattr(table, "padding_idx")
    ]
    # rotary positions have a limit without a table; XLNet says that it has none by -1
    stated = getattr(config, "max_position_embeddings", None)
    if isinstance(stated, int) and stated > 0:
        limits.append(stated)
    return min(limits, default=None)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Raises UserError if the tokenizer has an id for which the network has no embedding."""
    needed = 1 + max(tokenizer.get_vocab().values())
    if needed > config.vocab_size:
        raise UserError(
            f"the tokenizer has {needed} tokens, but the network has embeddings for {config.vocab_size}: "
            "they are of different models"
        )
