"""Where a network comes from: pretrained weights, a checkpoint to restore, or random weights."""

import copy
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NotRequired, TypedDict

import numpy as np
import torch
from transformers import (
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForPreTraining,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from src.data.fingerprints import read_hashes
from src.data.tokenizer_source import check_vocabulary, longest_input
from src.models.checkpoint_format import Archive, PretrainerArchive, add_base, load_weights
from src.models.heads.mean_pooling import Pooling, begin_as_mean, check_mean
from src.models.heads.pretrained_head import match_head
from src.models.lora import Adapter, Lora, add_lora
from src.models.tasks.task import Task
from src.runs.checkpoint_reading import Checkpoint
from src.system import pretrained, weights
from src.system.errors import UserError
from src.system.locations import locate

DROPOUT_KEYS = {
    # in the order of BERT and its kin, DistilBERT, ModernBERT; a head's own dropout comes last
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
"""Names of the dropout probabilities in a network's configuration, by the option that sets them."""

_NEW_BERT_LENGTH = 512
_SMALLEST_VOCABULARY = 100  # letters, alone and within words, digits, punctuation, BERT's five special tokens


@dataclass(frozen=True)
class Origin:
    """Builds a network, and provides its configuration and tokenizer.

    A checkpoint holds all of them, so a run can be resumed without the pretrained model.

    Attributes:
        auto_class: the class of `transformers` that makes the network.
        archive_class: the class of the checkpoint's section.
        name: of the pretrained model: Hub id, folder or package://.
        checkpoint: the checkpoint whose weights will be restored; None to start afresh.
        dropout: probabilities that replace those of the configuration, by option.
        revision: commit, tag or branch of a pretrained model on the Hub; None is its main branch.
    """

    auto_class: ClassVar[type[AutoModelForSequenceClassification] | type[AutoModelForPreTraining]]
    archive_class: ClassVar[type[Archive] | type[PretrainerArchive]]

    name: str
    checkpoint: Checkpoint | None = None
    dropout: Mapping[str, float] = field(default_factory=dict)
    revision: str | None = None

    @property
    def is_on_hub(self) -> bool:
        return locate(self.name, "the model") is None

    def __str__(self) -> str:
        return pretrained.describe(self.name, self.revision)

    @functools.cached_property
    def archive(self) -> Archive | PretrainerArchive | None:
        """The checkpoint's section."""
        return self.archive_class.of(self.checkpoint) if self.checkpoint else None

    @property
    def reads_weights(self) -> bool:
        """Whether the network starts from the pretrained weights."""
        return self.checkpoint is None

    @property
    def vocab_size(self) -> int:
        """The vocabulary size of a tokenizer to train on the corpus; 0 if there is a tokenizer."""
        return 0

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer that belongs to the weights; None if it is to be trained."""
        if self.archive:
            return self.archive.tokenizer
        if self.reads_weights:
            weights.find_weights(self.name, self.revision)  # before the data are prepared
        return pretrained.load_tokenizer(self.name, self.revision)

    def longest_input(self) -> int | None:
        """The maximum number of tokens in an input; None if the network sets no limit."""
        return longest_input(self._config())

    def texts_read(self) -> np.ndarray:
        """Hashes of the texts that earlier pre-training has read, uint64; empty if they are not known."""
        if self.archive:
            texts: np.ndarray = self.archive.texts.numpy().view(np.uint64)
            return texts
        folder = locate(self.name, "the model")
        return np.empty(0, dtype=np.uint64) if folder is None else read_hashes(folder)

    def check_weights(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel | None:
        """Downloads and checks the weights, without building the network for use.

        Returns:
            The pretrained network, to look at and to drop; None if a checkpoint is to be restored.

        Raises:
            UserError: the weights cannot be read or do not fit the configuration or the tokenizer, or the network has
                no dropout of a kind that the user set.
        """
        config = self._config()
        self.dropout_changes(config)
        check_vocabulary(tokenizer, config)
        if self.checkpoint is None:
            return weights.check_weights(self.auto_class, self.name, config, self.revision)
        with torch.device("meta"):  # names and shapes, no memory
            network, _ = self._network(config, pretrained_weights=False)
        load_weights(self.checkpoint, network)
        return None

    def dropout_changes(self, config: PretrainedConfig) -> dict[str, float]:
        """`dropout` under the names that this configuration has for it.

        Raises:
            UserError: it has none for one of them.
        """
        changes = {}
        for option, value in self.dropout.items():
            # a head whose own dropout is None uses that of the encoder
            names = [name for name in DROPOUT_KEYS[option] if getattr(config, name, None) is not None]
            if not names:
                raise UserError(f"model.{option} is set, but the model type {config.model_type!r} has no such dropout")
            changes.update(dict.fromkeys(names, value))
        return changes

    def _config(self) -> PretrainedConfig:
        """A copy, which callers may change."""
        return copy.deepcopy(self.archive.config) if self.archive else pretrained.load_config(self.name, self.revision)

    def _network(self, config: PretrainedConfig, pretrained_weights: bool) -> tuple[PreTrainedModel, set[str]]:
        """A network in fp32 with the dropout that the user set, and the names of the weights that are random.

        Without `pretrained_weights`, all are, and the names are left out.
        """
        config.update(self.dropout_changes(config))
        if pretrained_weights:
            return weights.load_weights(self.auto_class, self.name, config, self.revision)
        return pretrained.new_network(self.auto_class, config), set()


@dataclass(frozen=True)
class ClassifierOrigin(Origin):
    """The origin of an encoder with a classification head.

    Attributes:
        pooling: what a new head reads when training starts; see `BertClassifier`.
        lora: size of LoRA's changes; None trains all weights.
    """

    auto_class = AutoModelForSequenceClassification
    archive_class = Archive

    pooling: Pooling = "cls"
    lora: Lora | None = None

    def adapter(self) -> Adapter | None:
        """What belongs to LoRA's weights; None without LoRA."""
        if isinstance(self.archive, Archive):
            return self.archive.adapter
        return Adapter.new(self.lora, self.pooling, self.name, self.revision) if self.lora else None

    def check_weights(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel | None:
        if self.pooling == "mean":
            check_mean(self._config(), self.name)
        if self.checkpoint and isinstance(self.archive, Archive):
            add_base(self.checkpoint, self.archive)
        return super().check_weights(tokenizer)

    def check_labels(self, task: Task) -> None:
        """Raises UserError if the checkpoint has other labels, or another number of them a text, than the data."""
        if not isinstance(self.archive, Archive):
            return
        if self.archive.labels != task.labels:
            known = ", ".join(self.archive.labels)
            raise UserError(f"the checkpoint has the labels {known}, but the data have {', '.join(task.labels)}")
        if self.archive.task.problem_type != task.problem_type:
            was, now = self.archive.task.label_kind, task.label_kind
            raise UserError(f"the checkpoint gives a text {was}, but a text of the data has {now}")

    def build(self, task: Task) -> tuple[PreTrainedModel, str]:
        """The network in fp32, and what its head is, in words. Lightning restores a checkpoint's weights later.

        Args:
            task: what the logits are to mean.
        """
        labels = task.labels
        config = self._config()
        if self.checkpoint:
            return self._network(config, pretrained_weights=False)[0], "Head: that of the checkpoint"
        before: dict[Any, str] = dict(config.id2label or {})  # once loaded, its keys are integers
        config.update({"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}})
        # whatever the old head was for
        vars(config).pop("thresholds", None)
        config.update(task.settings)
        network, lacking = self._network(config, pretrained_weights=True)
        head = match_head(network, lacking, before if self.pooling == "cls" else {}, labels, self.name)
        if self.pooling == "mean":
            begin_as_mean(network)
            head = "Head: new, since model.pooling=mean changes what it reads"
        if self.lora:
            add_lora(network, self.lora)
        return network, head

    def _network(self, config: PretrainedConfig, pretrained_weights: bool) -> tuple[PreTrainedModel, set[str]]:
        network, lacking = super()._network(config, pretrained_weights)
        if isinstance(self.archive, Archive) and self.archive.adapter:
            add_lora(network, self.archive.adapter.lora)
        return network, lacking


class FromScratch(TypedDict):
    """Sizes of a new BERT. `vocab_size` is the approximate size of a tokenizer to train on the corpus."""

    hidden_size: int
    layers: int
    heads: int
    vocab_size: NotRequired[int | None]


@dataclass(frozen=True)
class PretrainerOrigin(Origin):
    """The origin of a BERT with its two pre-training heads.

    Attributes:
        from_scratch: sizes of a network with random weights; None to start from pretrained ones.

    Raises:
        UserError: the sizes do not make a BERT.
    """

    auto_class = AutoModelForPreTraining
    archive_class = PretrainerArchive

    from_scratch: FromScratch | None = None

    def __post_init__(self) -> None:
        if self.from_scratch is None:
            return
        smallest = {"hidden_size": 1, "layers": 1, "heads": 1, "vocab_size": _SMALLEST_VOCABULARY}
        for name, size in self.from_scratch.items():
            if isinstance(size, int) and size < smallest[name]:
                raise UserError(f"model.from_scratch: {name} is {size}; it must be {smallest[name]} or more")
        size, heads = self.from_scratch["hidden_size"], self.from_scratch["heads"]
        if size % heads:
            raise UserError(f"model.from_scratch: hidden_size is {size}; it must be a multiple of the {heads} heads")

    @property
    def _new(self) -> FromScratch | None:
        """The sizes, if there is no checkpoint."""
        return None if self.checkpoint else self.from_scratch

    @property
    def reads_weights(self) -> bool:
        return self.checkpoint is None and self.from_scratch is None

    @property
    def vocab_size(self) -> int:
        return (self.from_scratch.get("vocab_size") or 0) if self.from_scratch else 0

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        return None if self._new and self.vocab_size else super().tokenizer()

    def longest_input(self) -> int | None:
        return _NEW_BERT_LENGTH if self._new else super().longest_input()

    def texts_read(self) -> np.ndarray:
        return np.empty(0, dtype=np.uint64) if self._new else super().texts_read()

    def check_weights(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel | None:
        if self._new:
            return None
        if (kind := self._config().model_type) != "bert":
            raise UserError(f"the model type of {self.name!r} is {kind!r}, but BertPretrainer trains BERT only")
        return super().check_weights(tokenizer)

    def build(self, tokenizer: PreTrainedTokenizerBase) -> BertForPreTraining:
        """The network in fp32. Lightning restores a checkpoint's weights later.

        Args:
            tokenizer: of the data.
        """
        network, _ = self._network(self.config(tokenizer), self.reads_weights)
        assert isinstance(network, BertForPreTraining)
        return network

    def config(self, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
        """A copy of the network's configuration, with its own dropout."""
        if self._new is None:
            return self._config()
        return BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=self._new["hidden_size"],
            num_hidden_layers=self._new["layers"],
            num_attention_heads=self._new["heads"],
            intermediate_size=4 * self._new["hidden_size"],
            max_position_embeddings=_NEW_BERT_LENGTH,
            pad_token_id=tokenizer.pad_token_id,
        )
