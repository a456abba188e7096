"""Where a network comes from: pretrained weights, a checkpoint that is restored, or random weights."""

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForPreTraining,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from src.data.fingerprints import read_hashes
from src.data.tokenizers import longest_input
from src.models.archive import Archive, PretrainerArchive, check_shapes
from src.models.heads.mean_pooling import Pooling, begin_as_mean
from src.runs.reading import Checkpoint
from src.system import pretrained
from src.system.errors import UserError
from src.system.locations import locate

DROPOUT_KEYS = {
    # what configurations call it: BERT and its kin, then DistilBERT, then ModernBERT; a head's own comes last
    "hidden_dropout": (
        "hidden_dropout_prob",
        "dropout",
        "seq_classif_dropout",
        "embedding_dropout",
        "mlp_dropout",
        "classifier_dropout",
    ),
    "attention_dropout": ("attention_probs_dropout_prob", "attention_dropout"),
}
"""By the option that sets it."""

_NEW_BERT_LENGTH = 512


@dataclass(frozen=True)
class Origin(ABC):
    """Configuration, tokenizer and network, from a checkpoint if there is one.

    A checkpoint holds all three, so the pretrained weights that training began with need not be there any more.

    Attributes:
        name: of the pretrained model: Hub id, folder or package://.
        checkpoint: what will be restored; None where training starts afresh.
        dropout: probabilities that replace those of the configuration, by option.
    """

    name: str
    checkpoint: Checkpoint | None = None
    dropout: Mapping[str, float] = field(default_factory=dict)

    @property
    def vocab_size(self) -> int:
        """The size of a vocabulary that is to be trained on the corpus; 0 where there is a tokenizer."""
        return 0

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer that belongs to the weights; None where one is to be trained."""
        return self.archive.tokenizer if self.archive else pretrained.load_tokenizer(self.name)

    def longest_input(self) -> int | None:
        """The most tokens that the network takes at once; None if it sets no limit."""
        return longest_input(self._config())

    def texts_read(self) -> np.ndarray:
        """Hashes of the texts that earlier pre-training has read, uint64; empty where nothing says so."""
        if self.archive:
            texts: np.ndarray = self.archive.texts.numpy().view(np.uint64)
            return texts
        folder = locate(self.name, "the model")
        return np.empty(0, dtype=np.uint64) if folder is None else read_hashes(folder)

    def check_weights(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Finds what would fail when the network is built, before the run's directory is made.

        Raises:
            UserError: the pretrained weights cannot be had, or do not go with the tokenizer; the network has no such
                dropout; or the checkpoint to restore holds the weights of another network.
        """
        config = self._config()
        self.dropout_changes(config)
        if len(tokenizer) > config.vocab_size:
            raise UserError(f"the tokenizer has {len(tokenizer)} tokens, but the network knows {config.vocab_size}")
        if self.checkpoint is None:
            pretrained.check_weights(self.name)
            return
        with torch.device("meta"):  # shapes alone
            check_shapes(self.checkpoint, self._new_network(config))

    def dropout_changes(self, config: PretrainedConfig) -> dict[str, float]:
        """`dropout` under the names that this configuration has for it.

        Raises:
            UserError: it has none for one of them.
        """
        changes = {}
        for option, value in self.dropout.items():
            # None, as a head's own, means that of the encoder
            names = [name for name in DROPOUT_KEYS[option] if getattr(config, name, None) is not None]
            if not names:
                raise UserError(f"model.{option} is set, but the model type {config.model_type!r} has no such dropout")
            changes.update(dict.fromkeys(names, value))
        return changes

    def _config(self) -> PretrainedConfig:
        """A copy: callers may change it."""
        return copy.deepcopy(self.archive.config) if self.archive else pretrained.load_config(self.name)

    @property
    @abstractmethod
    def archive(self) -> Archive | PretrainerArchive | None:
        """What the checkpoint holds beside the weights."""

    @abstractmethod
    def _new_network(self, config: PretrainedConfig) -> PreTrainedModel:
        """A network with random weights, in fp32."""


@dataclass(frozen=True)
class ClassifierOrigin(Origin):
    """The origin of an encoder with a head over labels.

    Attributes:
        pooling: what a new head reads as training begins; see `BertClassifier`.
    """

    pooling: Pooling = "cls"

    def check_weights(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if self.pooling == "mean" and (kind := self._config().model_type) != "bert":
            raise UserError(f"model.pooling=mean is for BERT, but the model type of {self.name!r} is {kind!r}: use cls")
        super().check_weights(tokenizer)

    def check_labels(self, labels: list[str]) -> None:
        """Raises UserError where the checkpoint to restore has other labels."""
        if self.archive and self.archive.labels != labels:
            known = ", ".join(self.archive.labels)
            raise UserError(f"the checkpoint knows the labels {known}, but the data have {', '.join(labels)}")

    def build(self, labels: list[str]) -> PreTrainedModel:
        """The network in fp32, with a head over `labels`; with a checkpoint, its weights are still to be restored.

        Args:
            labels: the names of the classes, in the order of their numbers.
        """
        if self.archive:
            config = self._config()
            config.update(self.dropout_changes(config))
            return self._new_network(config)
        names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        config = pretrained.load_config(self.name, num_labels=len(labels), **names)
        config.update(self.dropout_changes(config))
        network: PreTrainedModel = pretrained.load_weights(AutoModelForSequenceClassification, self.name, config)
        if self.pooling == "mean":
            begin_as_mean(network)
        return network

    @functools.cached_property
    def archive(self) -> Archive | None:
        return Archive.of(self.checkpoint) if self.checkpoint else None

    def _new_network(self, config: PretrainedConfig) -> PreTrainedModel:
        network: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        return network


@dataclass(frozen=True)
class PretrainerOrigin(Origin):
    """The origin of a BERT with its two pre-training heads.

    Attributes:
        from_scratch: sizes of a network that begins from random weights: `hidden_size`, `layers`, `heads`, and
            `vocab_size` where its tokenizer is to be trained.
    """

    from_scratch: Mapping[str, Any] | None = None

    @property
    def vocab_size(self) -> int:
        return int((self.from_scratch or {}).get("vocab_size") or 0)

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        return None if self.vocab_size and not self.checkpoint else super().tokenizer()

    def longest_input(self) -> int | None:
        return _NEW_BERT_LENGTH if self.from_scratch else super().longest_input()

    def texts_read(self) -> np.ndarray:
        random = self.from_scratch and not self.checkpoint
        return np.empty(0, dtype=np.uint64) if random else super().texts_read()

    def check_weights(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if self.from_scratch and not self.checkpoint:
            return
        if (kind := self._config().model_type) != "bert":
            raise UserError(f"the model type of {self.name!r} is {kind!r}; pre-training here is BERT's")
        super().check_weights(tokenizer)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> BertForPreTraining:
        """The network in fp32; with a checkpoint, its weights are still to be restored.

        Args:
            tokenizer: of the data.
        """
        config = self.config(tokenizer)
        config.update(self.dropout_changes(config))
        if self.checkpoint or self.from_scratch:
            return self._new_network(config)
        network: BertForPreTraining = pretrained.load_weights(BertForPreTraining, self.name, config)
        return network

    def config(self, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
        """The network's own configuration, before any change for the training, in a copy."""
        if self.checkpoint or not self.from_scratch:
            return self._config()
        return BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.from_scratch["hidden_size"],
            num_hidden_layers=self.from_scratch["layers"],
            num_attention_heads=self.from_scratch["heads"],
            intermediate_size=4 * self.from_scratch["hidden_size"],
            max_position_embeddings=_NEW_BERT_LENGTH,
            pad_token_id=tokenizer.pad_token_id,
        )

    @functools.cached_property
    def archive(self) -> PretrainerArchive | None:
        return PretrainerArchive.of(self.checkpoint) if self.checkpoint else None

    def _new_network(self, config: PretrainedConfig) -> BertForPreTraining:
        network: BertForPreTraining = BertForPreTraining._from_config(config, dtype=torch.float32)
        return network
