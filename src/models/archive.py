"""What a checkpoint holds beside Lightning's content, so that `predict`, `export` and a resumed run need nothing else.

The tokenizer is kept as the text of its files, so that a checkpoint can be read with `weights_only=True`.
"""

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from src.data.tokens import Encoder
from src.runs.reading import Checkpoint
from src.system.errors import UserError, one_line

FORMAT = 2
"""Version of the sections below; raised when their layout or meaning changes."""

_WEIGHTS = "model."
"""Prefix of the network's weights in a checkpoint's state_dict; the sums of metrics stand beside them."""


@dataclass(frozen=True)
class Archive:
    """A classifier without its weights: the section `classifier` of a checkpoint, or an exported folder.

    Attributes:
        encoder: the tokenizer with the length and truncation of the training.
        labels: names of the classes, in the order of the logits.
        config: of the network.
        texts: hashes of the texts that its pre-training has read (`src.data.fingerprints`), int64 of shape (texts,).
        prepared: key of the prepared reviews that it was trained on; empty where that is not known.
    """

    SECTION = "classifier"

    encoder: Encoder
    labels: list[str]
    config: PretrainedConfig
    texts: torch.Tensor
    prepared: str = ""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The encoder's tokenizer."""
        return self.encoder.tokenizer

    @functools.cached_property
    def section(self) -> dict[str, Any]:
        """Tensors and plain types, for a checkpoint."""
        return {
            "format": FORMAT,
            "config": config_to_dict(self.config),
            "tokenizer": tokenizer_to_files(self.tokenizer),
            "max_length": self.encoder.max_length,
            "truncation": self.encoder.truncation,
            "labels": self.labels,
            "texts": self.texts,
            "prepared": self.prepared,
        }

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """What a checkpoint of `BertClassifier` says of its classifier.

        Raises:
            UserError: it is a checkpoint of another module or another version.
        """
        section = _section(checkpoint.content, cls.SECTION, "BertClassifier", checkpoint.path)
        return cls(
            encoder=Encoder(tokenizer_from_files(section["tokenizer"]), section["max_length"], section["truncation"]),
            labels=list(section["labels"]),
            config=AutoConfig.for_model(**section["config"]),
            texts=section["texts"].clone(),  # not mapped from a file that may be replaced
            prepared=section["prepared"],
        )


@dataclass(frozen=True)
class PretrainerArchive:
    """A pre-trained BERT without its weights: the section `pretrainer` of a checkpoint.

    Attributes:
        tokenizer: of its corpus.
        sequence_length: tokens of a training sequence.
        config: of the network, with the dropout that a fine-tuning should find.
        texts: hashes of the texts it has read (`src.data.fingerprints`), int64 of shape (texts,).
    """

    SECTION = "pretrainer"

    tokenizer: PreTrainedTokenizerBase
    sequence_length: int
    config: PretrainedConfig
    texts: torch.Tensor

    @functools.cached_property
    def section(self) -> dict[str, Any]:
        """Tensors and plain types, for a checkpoint."""
        return {
            "format": FORMAT,
            "config": config_to_dict(self.config),
            "tokenizer": tokenizer_to_files(self.tokenizer),
            "sequence_length": self.sequence_length,
            "texts": self.texts,
        }

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """What a checkpoint of `BertPretrainer` says of its network.

        Raises:
            UserError: it is a checkpoint of another module or another version.
        """
        section = _section(checkpoint.content, cls.SECTION, "BertPretrainer", checkpoint.path)
        return cls(
            tokenizer=tokenizer_from_files(section["tokenizer"]),
            sequence_length=section["sequence_length"],
            config=AutoConfig.for_model(**section["config"]),
            texts=section["texts"].clone(),
        )


def _section(content: dict[str, Any], name: str, module: str, path: Path) -> dict[str, Any]:
    section: dict[str, Any] | None = content.get(name)
    if section is None:
        raise UserError(f"{path} is no checkpoint of a {module}: it has no section {name!r}")
    if (found := section.get("format", 1)) != FORMAT:
        raise UserError(
            f"{path} was written by another version of this program (format {found}; this one reads {FORMAT}): "
            "train again, or use that version"
        )
    return section


def config_to_dict(config: PretrainedConfig) -> dict[str, Any]:
    """The configuration as plain types, for `AutoConfig.for_model`."""
    return config.to_diff_dict() | {"model_type": config.model_type}


def tokenizer_to_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The tokenizer's files: name to content."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {file.name: file.read_text("utf-8") for file in sorted(Path(folder).iterdir()) if file.is_file()}


def tokenizer_from_files(files: dict[str, str]) -> PreTrainedTokenizerBase:
    """The tokenizer of which `tokenizer_to_files` made `files`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / Path(name).name).write_text(content, "utf-8")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        return tokenizer


# ---- weights -------------------------------------------------------------------------------------------------------


def network_in(checkpoint: Checkpoint, archive: Archive) -> PreTrainedModel:
    """The classifier of a checkpoint, as `transformers` makes it, in fp32 and eval mode.

    Raises:
        UserError: the weights do not fit the configuration.
    """
    from transformers import AutoModelForSequenceClassification

    # in full, not on the device "meta": that would leave buffers that are no weights (BERT's positions) empty
    network: PreTrainedModel = AutoModelForSequenceClassification.from_config(archive.config, dtype=torch.float32)
    load_weights(checkpoint, network)
    return network


def load_weights(checkpoint: Checkpoint, network: PreTrainedModel) -> None:
    """Puts the weights of a checkpoint into its network, in fp32 and eval mode.

    Raises:
        UserError: they do not fit the configuration.
    """
    weights = {
        name.removeprefix(_WEIGHTS): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.content["state_dict"].items()
        if name.startswith(_WEIGHTS)
    }
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = one_line(error)[:300]
        raise UserError(f"the weights in {checkpoint.path} do not fit its configuration: {reason}") from error
    network.eval()


def check_shapes(checkpoint: Checkpoint, network: PreTrainedModel) -> None:
    """Raises UserError where a checkpoint holds other weights than `network` has; `network` may be on "meta"."""
    expected = {f"{_WEIGHTS}{name}": weight.shape for name, weight in network.state_dict().items()}
    found = {name: weight.shape for name, weight in checkpoint.content["state_dict"].items()}
    if wrong := [name for name in expected | found if expected.get(name) != found.get(name)]:
        raise UserError(
            f"{checkpoint.path} holds the weights of another network than its configuration says: {len(wrong)} are "
            f"missing, unknown or of another shape, among them {wrong[0]}"
        )
