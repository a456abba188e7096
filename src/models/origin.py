"""Where a network comes from: pretrained weights, a checkpoint that is restored, or nothing."""

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
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

from src.models import pretrained
from src.models.archive import Archive, PretrainerArchive, archive_in, pretrainer_archive_in
from src.models.heads.mean_pooling import Pooling, begin_as_mean
from src.runs.reading import read_checkpoint
from src.system.errors import UserError

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


@dataclass(frozen=True)
class Origin(ABC):
    """Configuration, tokenizer and network, from a checkpoint where there is one.

    A checkpoint holds all three, so the pretrained weights that it was begun with need not be there any more.

    Attributes:
        name: of the pretrained model: Hub id, folder or package://.
        checkpoint: what will be restored, None where training starts afresh.
        dropout: probabilities that replace those of the configuration, by option.
    """

    name: str
    checkpoint: Path | None
    dropout: Mapping[str, float] = field(default_factory=dict)

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer that the weights belong to; None where one is to be trained."""
        archive = self._archive
        return archive.tokenizer if archive else pretrained.load_tokenizer(self.name)

    def longest_input(self) -> int | None:
        """The most tokens that the network takes, None if it sets no limit."""
        config = self._config()
        longest: int | None = getattr(config, "max_position_embeddings", None)
        # RoBERTa and its kin count positions from padding_idx + 1
        offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
        return None if longest is None else longest - offset

    def check_weights(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Looks for what would fail when the network is built, since the run's directory is made before that.

        Raises:
            UserError: the pretrained weights cannot be had, or do not go with the tokenizer; the network has no such
                dropout; or the checkpoint that is to be restored holds the weights of another network.
        """
        self.dropout_changes(self._config())
        vocabulary = self._config().vocab_size
        if len(tokenizer) > vocabulary:
            raise UserError(f"the tokenizer has {len(tokenizer)} tokens, but the network knows {vocabulary}")
        archive = self._archive
        if archive is None or self.checkpoint is None:
            pretrained.check_weights(self.name)
            return
        with torch.device("meta"):  # shapes alone
            network = self._network(archive.config)
        expected = {f"model.{name}": weight.shape for name, weight in network.state_dict().items()}
        weights = read_checkpoint(self.checkpoint)["state_dict"]
        found = {name: weight.shape for name, weight in weights.items()}
        if wrong := [name for name in expected | found if expected.get(name) != found.get(name)]:
            raise UserError(
                f"{self.checkpoint} holds the weights of another network than its configuration says: "
                f"{len(wrong)} are missing, unknown or of another shape, among them {wrong[0]}"
            )

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
                raise UserError(f"model.{option} is nothing that a model of the type {config.model_type!r} has")
            changes.update(dict.fromkeys(names, value))
        return changes

    def texts_read(self) -> np.ndarray:
        """Hashes of the reviews that earlier pre-training has read, uint64; none where nothing says so."""
        if archive := self._archive:
            texts: np.ndarray = archive.texts.numpy().view(np.uint64)
            return texts
        return pretrained.texts_read(self.name)

    def _config(self) -> PretrainedConfig:
        archive = self._archive
        return archive.config if archive else pretrained.load_config(self.name)

    @property
    @abstractmethod
    def _archive(self) -> Archive | PretrainerArchive | None:
        """What the checkpoint holds beside the weights."""

    @abstractmethod
    def _network(self, config: PretrainedConfig) -> PreTrainedModel:
        """A network without pretrained weights, in fp32."""


@dataclass(frozen=True)
class ClassifierOrigin(Origin):
    """That of an encoder with a head over labels.

    Attributes:
        pooling: what a new head reads as training begins; see `BertClassifier`.
    """

    pooling: Pooling = field(default="cls")

    def check_weights(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if self.pooling == "mean" and (kind := self._config().model_type) != "bert":
            raise UserError(
                f"model.pooling=mean is for BERT, but {self.name!r} is a model of the type {kind!r}: leave it at cls"
            )
        super().check_weights(tokenizer)

    def check_labels(self, labels: list[str]) -> None:
        """Raises UserError where the checkpoint that is to be restored knows other labels."""
        if self._archive and self._archive.labels != labels:
            known = ", ".join(self._archive.labels)
            raise UserError(f"the checkpoint knows the labels {known}, but the data have {', '.join(labels)}")

    def build(self, labels: list[str]) -> PreTrainedModel:
        """The network in fp32, with a head over `labels`; of a checkpoint, its weights are still to be restored.

        Args:
            labels: the names of the classes, in the order of their numbers.
        """
        if archive := self._archive:
            archive.config.update(self.dropout_changes(archive.config))
            return self._network(archive.config)
        names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        config = pretrained.load_config(self.name, num_labels=len(labels), **names)
        config.update(self.dropout_changes(config))
        network = pretrained.load_weights(AutoModelForSequenceClassification, self.name, config)
        if self.pooling == "mean":
            begin_as_mean(network)
        return network

    @functools.cached_property
    def _archive(self) -> Archive | None:
        return archive_in(read_checkpoint(self.checkpoint), self.checkpoint) if self.checkpoint else None

    def _network(self, config: PretrainedConfig) -> PreTrainedModel:
        network: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        return network


@dataclass(frozen=True)
class PretrainerOrigin(Origin):
    """That of a BERT with its two pre-training heads.

    Attributes:
        from_scratch: sizes of a network that begins from random weights: `hidden_size`, `layers`, `heads`, and
            `vocab_size` where its tokenizer is to be trained.
    """

    from_scratch: Mapping[str, Any] | None = field(default=None)

    @property
    def vocab_size(self) -> int:
        """Of the tokenizer that is to be trained; 0 where none is."""
        return int((self.from_scratch or {}).get("vocab_size") or 0)

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        return None if self.vocab_size and not self.checkpoint else super().tokenizer()

    def longest_input(self) -> int | None:
        return _NEW_BERT_LENGTH if self.from_scratch else super().longest_input()

    def check_weights(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if self.from_scratch and not self.checkpoint:
            return
        if (kind := self._config().model_type) != "bert":
            raise UserError(f"{self.name!r} is a model of the type {kind!r}; pre-training here is BERT's")
        super().check_weights(tokenizer)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> BertForPreTraining:
        """The network in fp32; of a checkpoint, its weights are still to be restored.

        Args:
            tokenizer: of the data.
        """
        config = self.config(tokenizer)
        config.update(self.dropout_changes(config))
        if self._archive or self.from_scratch:
            return self._network(config)
        network: BertForPreTraining = pretrained.load_weights(BertForPreTraining, self.name, config)  # type: ignore[assignment]
        return network

    def config(self, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
        """The network's own configuration, before any change for the training, in a copy."""
        if archive := self._archive:
            return copy.deepcopy(archive.config)
        return self._new_config(tokenizer) if self.from_scratch else pretrained.load_config(self.name)

    def texts_read(self) -> np.ndarray:
        begun_anew = self.from_scratch and not self.checkpoint
        return np.empty(0, dtype=np.uint64) if begun_anew else super().texts_read()

    def _new_config(self, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
        sizes = self.from_scratch or {}
        return BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=sizes["hidden_size"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            intermediate_size=4 * sizes["hidden_size"],
            max_position_embeddings=_NEW_BERT_LENGTH,
            pad_token_id=tokenizer.pad_token_id,
        )

    @functools.cached_property
    def _archive(self) -> PretrainerArchive | None:
        return pretrainer_archive_in(read_checkpoint(self.checkpoint), self.checkpoint) if self.checkpoint else None

    def _network(self, config: PretrainedConfig) -> BertForPreTraining:
        network: BertForPreTraining = BertForPreTraining._from_config(config, dtype=torch.float32)
        return network


_NEW_BERT_LENGTH = 512
