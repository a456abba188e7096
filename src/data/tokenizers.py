"""Where a data module's tokenizer comes from: a pretrained model, or whatever the model hands over."""

from dataclasses import dataclass
from typing import Protocol

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from src.system import pretrained

DEFAULT = "bert-base-uncased"


class TokenizerSource(Protocol):
    """A model's tokenizer, loaded when it is asked for."""

    @property
    def name(self) -> str:
        """The model's name, for messages."""

    @property
    def vocab_size(self) -> int:
        """The size of a vocabulary that is to be trained on the corpus; 0 where there is a tokenizer."""

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """A fast tokenizer; None where one is to be trained."""

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
    longest: int | None = getattr(config, "max_position_embeddings", None)
    # RoBERTa and its kin count positions from padding_idx + 1
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return None if longest is None else longest - offset
