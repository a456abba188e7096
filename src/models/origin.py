"""Where a classifier's network comes from: pretrained weights, or a checkpoint that is restored."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from src.checkpoints import read_checkpoint
from src.errors import UserError
from src.models import pretrained
from src.models.archive import Archive, archive_in


@dataclass(frozen=True)
class Origin:
    """Configuration, tokenizer and network, from a checkpoint where there is one.

    A checkpoint holds all three, so the pretrained weights that it was begun with need not be there any more.

    Attributes:
        name: of the pretrained model: Hub id, folder or package://.
        checkpoint: what will be restored, None where training starts afresh.
    """

    name: str
    checkpoint: Path | None

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that the weights belong to."""
        archive = self._archive
        return archive.encoder.tokenizer if archive else pretrained.load_tokenizer(self.name)

    def longest_input(self) -> int | None:
        """The most tokens that the network takes, None if it sets no limit."""
        config = self._config()
        longest: int | None = getattr(config, "max_position_embeddings", None)
        # RoBERTa and its kin count positions from padding_idx + 1
        offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
        return None if longest is None else longest - offset

    def check(self, labels: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
        """Looks for what would fail when the network is built, since the run's directory is made before that.

        Raises:
            UserError: the pretrained weights cannot be had, or do not go with the tokenizer; or the checkpoint that is
                to be restored knows other labels, or holds the weights of another network.
        """
        vocabulary = self._config().vocab_size
        if len(tokenizer) > vocabulary:
            raise UserError(f"the tokenizer has {len(tokenizer)} tokens, but the network knows {vocabulary}")
        archive = self._archive
        if archive is None:
            pretrained.check_weights(self.name)
            return
        if archive.labels != labels:
            raise UserError(
                f"the checkpoint knows the labels {', '.join(archive.labels)}, but the data have {', '.join(labels)}"
            )
        assert self.checkpoint is not None
        with torch.device("meta"):  # shapes alone
            network = AutoModelForSequenceClassification.from_config(archive.config)
        expected = {f"model.{name}": weight.shape for name, weight in network.state_dict().items()}
        found = {name: weight.shape for name, weight in read_checkpoint(self.checkpoint)["state_dict"].items()}
        if wrong := [name for name in expected | found if expected.get(name) != found.get(name)]:
            raise UserError(
                f"{self.checkpoint} holds the weights of another network than its configuration says: "
                f"{len(wrong)} are missing, unknown or of another shape, among them {wrong[0]}"
            )

    def build(self, labels: list[str], options: Mapping[str, Any]) -> PreTrainedModel:
        """The network in fp32, with a head over `labels`; of a checkpoint, its weights are still to be restored.

        Args:
            labels: the names of the classes, in the order of their numbers.
            options: changes to the configuration, as dropout.
        """
        network: PreTrainedModel
        if archive := self._archive:
            archive.config.update(dict(options))
            network = AutoModelForSequenceClassification.from_config(archive.config, dtype=torch.float32)
            return network
        names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        config = pretrained.load_config(self.name, num_labels=len(labels), **names, **options)
        network = pretrained.load_weights(AutoModelForSequenceClassification, self.name, config)
        return network

    def _config(self) -> PretrainedConfig:
        archive = self._archive
        return archive.config if archive else pretrained.load_config(self.name)

    @functools.cached_property
    def _archive(self) -> Archive | None:
        return archive_in(read_checkpoint(self.checkpoint), self.checkpoint) if self.checkpoint else None
