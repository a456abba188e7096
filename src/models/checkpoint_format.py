"""This project's section of a checkpoint: the configuration, tokenizer and labels that go with the weights.

With it, `predict`, `export` and a resumed run need no file but the checkpoint. The section holds only tensors and plain
types (the tokenizer as the text of its files), so that `torch.load` reads it with `weights_only=True`.
"""

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import (
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.initialization import no_init_weights

from src.data.tokenization import Encoder
from src.data.tokenizer_source import check_vocabulary, longest_input
from src.models.lora import Adapter, add_lora
from src.models.tasks.known import task_of
from src.models.tasks.task import Task
from src.runs.checkpoint_reading import Checkpoint
from src.system.errors import UserError, one_line, os_error_in, why
from src.system.pretrained import new_network, read_tokenizer, reading, stored_config
from src.system.stored import difference, is_plain

FORMAT = 2
"""Version of the sections below; raised when their layout or meaning changes."""

_TOKENIZER_FILES = {
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "chat_template.jinja"),
}
"""A checkpoint may come from a stranger, so nothing else is written to the disk."""

WEIGHTS = "model."
"""Prefix of the network's weights in a checkpoint's state_dict."""

STATES = ("state_dict", "current_model_state")
"""Where a checkpoint has weights: those to use, and with Lightning's WeightAveraging those that it trains on."""


@dataclass(frozen=True)
class Archive:
    """All of a classifier but its weights: the section `classifier` of a checkpoint, or an exported folder.

    Attributes:
        encoder: the tokenizer, with the maximum length and the truncation of the training.
        labels: names of the classes, in the order of the logits.
        config: of the network.
        texts: hashes of the texts that its pre-training has read (`src.data.fingerprints`), int64 of shape (texts,).
        prepared: cache key of its training data; empty for an exported folder.
        adapter: LoRA's, whose checkpoint leaves out the weights of its base; None without LoRA.
    """

    SECTION = "classifier"

    encoder: Encoder
    labels: list[str]
    config: PretrainedConfig
    texts: torch.Tensor
    prepared: str = ""
    adapter: Adapter | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(label, str) for label in self.labels) or not 2 <= len(set(self.labels)) == len(
            self.labels
        ):
            raise UserError(f"the labels must be two or more different texts, but are {self.labels!r:.100}")
        if len(self.labels) != self.config.num_labels:
            raise UserError(f"there are {len(self.labels)} labels, but the network has {self.config.num_labels} logits")
        _ = self.task
        _check_tokens(self.encoder.tokenizer, self.encoder.max_length, self.config)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The encoder's tokenizer."""
        return self.encoder.tokenizer

    @property
    def task(self) -> Task:
        """What the logits mean."""
        return task_of(self.config, self.labels)

    @property
    def section(self) -> dict[str, Any]:
        """The section to write into a checkpoint. A validation may have changed the configuration: its thresholds."""
        return self._fixed | {"config": _settings(self.config)}

    @functools.cached_property
    def _fixed(self) -> dict[str, Any]:
        return _section(self) | {
            "max_length": self.encoder.max_length,
            "truncation": self.encoder.truncation,
            "labels": self.labels,
            "prepared": self.prepared,
            **({"lora": vars(self.adapter)} if self.adapter else {}),
        }

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        """Reads the section of a `BertClassifier`'s checkpoint.

        Raises:
            UserError: the checkpoint is of another module, or of another version of this program.
        """
        own = {"max_length": 0, "truncation": "", "labels": [""], "prepared": ""}
        with _section_of(checkpoint, cls.SECTION, "BertClassifier", own) as section:
            labels, config = section["labels"], stored_config(section["config"])
            if list((config.id2label or {}).values()) != labels:
                raise UserError(f"its labels are {labels!r:.100}, but {config.id2label!r:.100} in its configuration")
            encoder = Encoder(tokenizer_from_files(section["tokenizer"]), section["max_length"], section["truncation"])
            adapter = Adapter.stored(section["lora"]) if "lora" in section else None
            # not mapped from a file that may be replaced
            return cls(encoder, labels, config, section["texts"].clone(), section["prepared"], adapter)


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
        with _section_of(checkpoint, cls.SECTION, "BertPretrainer", {"sequence_length": 0}) as section:
            config = stored_config(section["config"])
            if config.model_type != "bert":
                raise UserError(f"its model type is {config.model_type!r}, but BertPretrainer trains BERT only")
            tokenizer = tokenizer_from_files(section["tokenizer"])
            _check_tokens(tokenizer, section["sequence_length"], config)
            return cls(tokenizer, section["sequence_length"], config, section["texts"].clone())


def _check_tokens(tokenizer: PreTrainedTokenizerBase, length: int, config: PretrainedConfig) -> None:
    """Raises UserError if the network has no embedding for a token or a position."""
    check_vocabulary(tokenizer, config)
    longest = longest_input(config)
    if longest is not None and length > longest:
        raise UserError(f"texts are read up to {length} tokens, but the network takes at most {longest}")


def _section(archive: Archive | PretrainerArchive) -> dict[str, Any]:
    """The entries that both sections have, as tensors and plain types."""
    return {
        "format": FORMAT,
        "config": _settings(archive.config),
        "tokenizer": tokenizer_to_files(archive.tokenizer),
        "texts": archive.texts,
    }


def _settings(config: PretrainedConfig) -> dict[str, Any]:
    settings: dict[str, Any] = config.to_diff_dict() | {"model_type": config.model_type}
    return settings


@contextmanager
def _section_of(checkpoint: Checkpoint, name: str, module: str, own: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A section whose entries have the right types, and errors that name the file.

    Args:
        own: examples of the entries that this section alone has.
    """
    path = checkpoint.path
    section = checkpoint.content.get(name)
    if not isinstance(section, dict):
        raise UserError(f"{path} is no checkpoint of a {module}: it has no section {name!r}")
    if (found := section.get("format", 1)) != FORMAT:
        raise UserError(
            f"{path} was written by another version of this program (format {found!s:.50}; this one reads {FORMAT}): "
            "train again, or use that version"
        )
    example = {"config": {"model_type": ""}, "tokenizer": {}, "texts": None, **own}
    wrong = difference(section, example, f"its section {name!r}")
    if not wrong and not (is_plain(section["texts"]) and section["texts"].dtype == torch.int64):
        wrong = f"its section {name!r} has no hashes of texts"
    if not wrong and section["texts"].dim() != 1:
        wrong = f"its section {name!r} has hashes of texts in {section['texts'].dim()} dimensions"
    if wrong:
        raise UserError(f"{path} is damaged: {wrong}")
    try:
        yield section
    except UserError as error:
        raise UserError(f"{path} is damaged: {error}") from error


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
    for name, content in files.items():
        if name not in _TOKENIZER_FILES:
            raise UserError(f"the checkpoint's tokenizer has the file {name!r}, which is none of a tokenizer's files")
        if not isinstance(content, str):
            raise UserError(f"the file {name} of the checkpoint's tokenizer is no text")
    with _scratch_folder() as folder:
        for name, content in files.items():
            (folder / name).write_text(content, "utf-8")
        with reading("the tokenizer"):
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
    """The classifier of a checkpoint as a `transformers` model, in fp32 and eval mode; LoRA's changes are merged.

    Raises:
        UserError: the weights do not fit the configuration, or LoRA's base is missing or has changed.
    """
    kind, adapter = AutoModelForSequenceClassification, archive.adapter
    add_base(checkpoint, archive)
    with torch.device("meta"):  # names and shapes first, which take no memory
        network = new_network(kind, archive.config)
        if adapter:
            add_lora(network, adapter.lora)
        load_weights(checkpoint, network)
    # not on the device "meta", which would leave buffers empty that are not saved (BERT's position ids)
    with no_init_weights():
        network = new_network(kind, archive.config)
    made = add_lora(network, adapter.lora) if adapter else None
    load_weights(checkpoint, network)
    if made:
        made.merge_and_unload()
        network.requires_grad_(True)
    return network


def add_base(checkpoint: Checkpoint, archive: Archive) -> None:
    """Adds to LoRA's weights those of the base, which the file leaves out. Without LoRA, it has all.

    Raises:
        UserError: the base is missing or has changed.
    """
    if archive.adapter is None:
        return
    base = {f"{WEIGHTS}{name}": weight for name, weight in archive.adapter.frozen_weights(archive.config).items()}
    for state in STATES:
        if state in checkpoint.content:
            checkpoint.content[state] = base | checkpoint.content[state]


def load_weights(checkpoint: Checkpoint, network: PreTrainedModel) -> None:
    """Loads the weights of a checkpoint, in fp32, and sets eval mode. On the device "meta", checks names and shapes.

    Raises:
        UserError: the weights do not fit the network.
    """
    weights = {
        name.removeprefix(WEIGHTS): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint.content["state_dict"].items()
        if name.startswith(WEIGHTS)
    }
    kinds = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    wrong = next((name for name, tensor in weights.items() if kinds.get(name, tensor.dtype) != tensor.dtype), "")
    try:
        if wrong:
            raise TypeError(f"{wrong} has numbers of the type {weights[wrong].dtype}")
        # "meta" has no memory to copy to
        network.load_state_dict(weights, assign=network.device.type == "meta")
    except (RuntimeError, TypeError) as error:
        reason = one_line(error)[:300]
        raise UserError(f"the weights in {checkpoint.path} do not fit its configuration: {reason}") from error
    network.eval()
