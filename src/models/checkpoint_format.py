"""This project's section of a checkpoint: the configuration, tokenizer and labels that go with the weights.

With it, `predict`, `export` and a resumed run need no file but the checkpoint. The section holds only tensors and plain
types (the tokenizer as the text of its files), so that `torch.load` reads it with `weights_only=True`.
"""

import functools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from src.data.tokenization import Encoder
from src.runs.checkpoint_reading import Checkpoint
from src.system.errors import UserError, one_line, os_error_in, why
from src.system.pretrained import read_tokenizer

FORMAT = 2
"""Version of the sections below; raised when their layout or meaning changes."""

_TOKENIZER_FILES = {
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja"),
}
"""A checkpoint may come from a stranger, so nothing else is written to the disk."""

_WEIGHTS = "model."
"""Prefix of the network's weights in a checkpoint's state_dict."""


@dataclass(frozen=True)
class Archive:
    """All of a classifier but its weights: the section `classifier` of a checkpoint, or an exported folder.

    Attributes:
        encoder: the tokenizer, with the maximum length and the truncation of the training.
        labels: names of the classes, in the order of the logits.
        config: of the network.
        texts: hashes of the texts that its pre-training has read (`src.data.fingerprints`), int64 of shape (texts,).
        prepared: cache key of its training data; empty for an exported folder.
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
        """The section to write into a checkpoint."""
        return _section(self) | {
            "max_length": self.encoder.max_length,
            "truncation": self.encoder.truncation,
            "labels": self.labels,
            "prepared": self.prepared,
        }

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Reads the section of a `BertClassifier`'s checkpoint.

        Raises:
            UserError: the checkpoint is of another module, or of another version of this program.
        """
        own = ("max_length", "truncation", "labels", "prepared")
        section = _read_section(checkpoint, cls.SECTION, "BertClassifier", own)
        labels, config = section["labels"], section["config"]
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels) or len(labels) < 2:
            raise UserError(f"{checkpoint.path} is damaged: its labels are {labels!r:.100}")
        encoder = Encoder(section["tokenizer"], section["max_length"], section["truncation"])
        return cls(encoder, labels, config, section["texts"], section["prepared"])


@dataclass(frozen=True)
class PretrainerArchive:
    """All of a pre-trained BERT but its weights: the section `pretrainer` of a checkpoint.

    Attributes:
        tokenizer: of the corpus.
        sequence_length: tokens of a training sequence.
        config: of the network, with the dropout that fine-tuning should start from.
        texts: hashes of the texts that it has read (`src.data.fingerprints`), int64 of shape (texts,).
    """

    SECTION = "pretrainer"

    tokenizer: PreTrainedTokenizerBase
    sequence_length: int
    config: PretrainedConfig
    texts: torch.Tensor

    @functools.cached_property
    def section(self) -> dict[str, Any]:
        """The section to write into a checkpoint."""
        return _section(self) | {"sequence_length": self.sequence_length}

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Reads the section of a `BertPretrainer`'s checkpoint.

        Raises:
            UserError: the checkpoint is of another module, or of another version of this program.
        """
        section = _read_section(checkpoint, cls.SECTION, "BertPretrainer", ("sequence_length",))
        return cls(section["tokenizer"], section["sequence_length"], section["config"], section["texts"])


def _section(archive: Archive | PretrainerArchive) -> dict[str, Any]:
    """The entries that both sections have, as tensors and plain types."""
    return {
        "format": FORMAT,
        "config": archive.config.to_diff_dict() | {"model_type": archive.config.model_type},
        "tokenizer": tokenizer_to_files(archive.tokenizer),
        "texts": archive.texts,
    }


def _read_section(checkpoint: Checkpoint, name: str, module: str, own: Sequence[str]) -> dict[str, Any]:
    """A section, with the configuration and the tokenizer as objects, and the entries `own` that it alone has."""
    path = checkpoint.path
    section = checkpoint.content.get(name)
    if not isinstance(section, dict):
        raise UserError(f"{path} is no checkpoint of a {module}: it has no section {name!r}")
    if (found := section.get("format", 1)) != FORMAT:
        raise UserError(
            f"{path} was written by another version of this program (format {found}; this one reads {FORMAT}): "
            "train again, or use that version"
        )
    try:
        return {key: section[key] for key in own} | {
            "config": AutoConfig.for_model(**section["config"]),
            "tokenizer": tokenizer_from_files(section["tokenizer"]),
            "texts": section["texts"].clone(),  # not mapped from a file that may be replaced
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: its section {name!r} cannot be read ({one_line(error)[:200]})") from error


def tokenizer_to_files(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The tokenizer's files: name to content."""
    with _scratch_folder() as folder:
        tokenizer.save_pretrained(folder)
        return {file.name: file.read_text("utf-8") for file in sorted(folder.iterdir()) if file.is_file()}


def tokenizer_from_files(files: dict[str, str]) -> PreTrainedTokenizerBase:
    """The tokenizer that `tokenizer_to_files` turned into `files`.

    Raises:
        UserError: there is a file that no tokenizer of `transformers` has, such as a Python module.
    """
    if unknown := sorted(set(files) - _TOKENIZER_FILES):
        raise UserError(f"the checkpoint's tokenizer has the file {unknown[0]!r}, which is none of a tokenizer's files")
    with _scratch_folder() as folder:
        for name, content in files.items():
            (folder / name).write_text(content, "utf-8")
        return read_tokenizer(folder)


@contextmanager
def _scratch_folder() -> Iterator[Path]:
    """A temporary folder, since `transformers` writes and reads a tokenizer as files only.

    Raises:
        UserError: $TMPDIR is full or cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    except Exception as error:
        if found := os_error_in(error):
            raise UserError(f"the tokenizer's files cannot be written to $TMPDIR: {why(found)}") from error
        raise


# ---- weights -------------------------------------------------------------------------------------------------------


def network_in(checkpoint: Checkpoint, archive: Archive) -> PreTrainedModel:
    """The classifier of a checkpoint as a `transformers` model, in fp32 and eval mode.

    Raises:
        UserError: the weights do not fit the configuration.
    """
    # not on the device "meta", which would leave buffers empty that are not saved (BERT's position ids)
    network: PreTrainedModel = AutoModelForSequenceClassification.from_config(archive.config, dtype=torch.float32)
    load_weights(checkpoint, network)
    return network


def load_weights(checkpoint: Checkpoint, network: PreTrainedModel) -> None:
    """Loads the weights of a checkpoint, in fp32, and sets eval mode. On the device "meta", checks names and shapes.

    Raises:
        UserError: the weights do not fit the network.
    """
    weights = {
        name.removeprefix(_WEIGHTS): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.content["state_dict"].items()
        if name.startswith(_WEIGHTS)
    }
    try:
        # "meta" has no memory to copy to
        network.load_state_dict(weights, assign=network.device.type == "meta")
    except RuntimeError as error:
        reason = one_line(error)[:300]
        raise UserError(f"the weights in {checkpoint.path} do not fit its configuration: {reason}") from error
    network.eval()
