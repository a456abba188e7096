"""A fine-tuned classifier at rest: inside a checkpoint, and as a Hugging Face folder.

In a checkpoint the tokenizer is kept as the text of its files, so that it can be read with `weights_only=True`.
In a folder everything is where `transformers` looks for it, the length and the side that is cut in the tokenizer's
own settings; what those cannot say (head_tail, windows) is in `preprocessing.json`.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from src.data.tokens import Encoder
from src.system.errors import UserError, one_line
from src.system.quiet import quiet

PREPROCESSING = "preprocessing.json"
WEIGHTS = "model.safetensors"
READ_TEXTS = "pretraining_texts.npy"
"""In a folder: hashes of the reviews that its pre-training has read (`src.data.fingerprints`), sorted uint64."""
_TOKENIZER_SETTINGS = "tokenizer_config.json"


@dataclass(frozen=True)
class Archive:
    """A classifier without its network.

    Attributes:
        encoder: the tokenizer with the length and the truncation of the training.
        labels: names of the classes, in the order of the logits.
        config: of the network.
        texts: hashes of what its pre-training has read (`src.data.fingerprints`), int64 of shape (reviews,).
    """

    encoder: Encoder
    labels: list[str]
    config: PretrainedConfig
    texts: torch.Tensor

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The encoder's."""
        return self.encoder.tokenizer


@dataclass(frozen=True)
class PretrainerArchive:
    """A pre-trained BERT without its network.

    Attributes:
        tokenizer: of its corpus.
        sequence_length: tokens of a sequence of the training.
        config: of the network.
        texts: hashes of the reviews it has read (`src.data.fingerprints`), int64 of shape (reviews,).
    """

    tokenizer: PreTrainedTokenizerBase
    sequence_length: int
    config: PretrainedConfig
    texts: torch.Tensor


def archive_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The tokenizer's files: name to content."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {file.name: file.read_text("utf-8") for file in sorted(Path(folder).iterdir()) if file.is_file()}


def restore_tokenizer(files: dict[str, str]) -> PreTrainedTokenizerBase:
    """The tokenizer of which `archive_tokenizer` made `files`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / Path(name).name).write_text(content, "utf-8")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        return tokenizer


def archive_in(checkpoint: Mapping[str, Any], path: Path) -> Archive:
    """What a checkpoint of `BertClassifier`, read from `path`, says of its classifier.

    Raises:
        UserError: it is a checkpoint of another module.
    """
    if "classifier" not in checkpoint:
        raise UserError(f"{path} is no checkpoint of a BertClassifier: there is no classifier in it")
    content = checkpoint["classifier"]
    return Archive(
        encoder=Encoder(restore_tokenizer(content["tokenizer"]), content["max_length"], content["truncation"]),
        labels=list(content["labels"]),
        config=AutoConfig.for_model(**content["config"]),
        texts=content.get("texts", torch.empty(0, dtype=torch.int64)),  # checkpoints before 2026-11-23 have none
    )


def pretrainer_archive_in(checkpoint: Mapping[str, Any], path: Path) -> PretrainerArchive:
    """What a checkpoint of `BertPretrainer`, read from `path`, says of its network.

    Raises:
        UserError: it is a checkpoint of another module.
    """
    if "pretrainer" not in checkpoint:
        raise UserError(f"{path} is no checkpoint of a BertPretrainer: there is no pre-training in it")
    content = checkpoint["pretrainer"]
    return PretrainerArchive(
        tokenizer=restore_tokenizer(content["tokenizer"]),
        sequence_length=content["sequence_length"],
        config=AutoConfig.for_model(**content["config"]),
        texts=content["texts"],
    )


def network_in(checkpoint: Mapping[str, Any], archive: Archive, path: Path) -> PreTrainedModel:
    """The network of that checkpoint, as `transformers` makes it, in fp32 and eval mode.

    Raises:
        UserError: the weights are not those of the configuration.
    """
    from transformers import AutoModelForSequenceClassification

    # on "meta" nothing is allocated or drawn at random, but buffers that are no weights (BERT's positions) would be
    # empty too: so build in full
    network: PreTrainedModel = AutoModelForSequenceClassification.from_config(archive.config, dtype=torch.float32)
    load_weights_of(checkpoint, network, path)
    return network


def load_weights_of(checkpoint: Mapping[str, Any], network: PreTrainedModel, path: Path) -> None:
    """Puts the weights of a checkpoint, read from `path`, into its network, in fp32 and eval mode.

    Raises:
        UserError: they are not those of the configuration.
    """
    prefix = "model."
    weights = {
        name.removeprefix(prefix): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"the weights in {path} are not those of its configuration: {one_line(error)[:300]}") from error
    network.eval()


def save_folder(folder: Path, archive: Archive, network: PreTrainedModel) -> None:
    """Writes what `transformers.pipeline("text-classification", folder)` runs, and `read_folder` reads."""
    save_network(folder, network)
    encoder = archive.encoder
    save_tokenizer(folder, encoder.tokenizer, encoder.max_length, "left" if encoder.truncation == "tail" else "right")
    preprocessing = {"max_length": encoder.max_length, "truncation": encoder.truncation}
    (folder / PREPROCESSING).write_text(json.dumps(preprocessing, indent=2) + "\n")
    if len(archive.texts):
        save_texts(folder, archive.texts)


def save_network(folder: Path, network: PreTrainedModel) -> None:
    """Writes configuration and weights."""
    with quiet():
        network.save_pretrained(folder)
    # safetensors makes files that nobody but their owner can read
    (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)


def save_texts(folder: Path, texts: torch.Tensor) -> None:
    """Writes the hashes of what was read, so that a fine-tuning which starts from the folder is not judged by it."""
    np.save(folder / READ_TEXTS, texts.numpy().view(np.uint64))


def read_texts(folder: Path) -> np.ndarray:
    """What `save_texts` wrote, uint64; none where there is nothing.

    Raises:
        UserError: the file is damaged.
    """
    if not (folder / READ_TEXTS).is_file():
        return np.empty(0, dtype=np.uint64)
    try:
        hashes: np.ndarray = np.load(folder / READ_TEXTS)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{folder / READ_TEXTS} is damaged: export the pre-training again") from error
    return hashes


def save_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, truncation_side: str) -> None:
    """Writes the tokenizer's files, with the length and the side where it cuts longer texts."""
    files = archive_tokenizer(tokenizer)
    # in the file itself: a tokenizer saves the side that it was loaded with, whatever it has been set to
    settings = json.loads(files[_TOKENIZER_SETTINGS])
    settings["model_max_length"] = max_length
    settings["truncation_side"] = truncation_side
    files[_TOKENIZER_SETTINGS] = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")


def read_folder(folder: Path) -> Archive:
    """What a folder says of its classifier: an exported one, or any other that `transformers` made.

    Raises:
        UserError: there is no classifier in it, or it cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no exported model: it has no config.json")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise classes of their own of many kinds
        raise UserError(f"{folder} cannot be read as a model: {one_line(error)[:300]}") from error
    longest = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    settings: dict[str, Any] = {
        "max_length": min(tokenizer.model_max_length, longest),
        "truncation": "tail" if tokenizer.truncation_side == "left" else "head",
    }
    if (folder / PREPROCESSING).is_file():
        try:
            stored = json.loads((folder / PREPROCESSING).read_text())
            settings = {name: stored[name] for name in settings}
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{folder / PREPROCESSING} is damaged: export the checkpoint again") from error
    labels = [config.id2label[i] for i in range(config.num_labels)]
    return Archive(Encoder(tokenizer, **settings), labels, config, torch.from_numpy(read_texts(folder).view(np.int64)))


def read_network(folder: Path, archive: Archive) -> PreTrainedModel:
    """The network of an exported folder, in fp32 and eval mode.

    Raises:
        UserError: it has no safetensors, they cannot be read, or they lack weights (the head, say).
    """
    from transformers import AutoModelForSequenceClassification

    try:
        with quiet():
            network, report = AutoModelForSequenceClassification.from_pretrained(
                folder, config=archive.config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # as above
        raise UserError(f"the weights in {folder} cannot be read: {one_line(error)[:300]}") from error
    if report["missing_keys"]:
        raise UserError(f"{folder} is no trained classifier: it lacks {', '.join(sorted(report['missing_keys'])[:3])}")
    result: PreTrainedModel = network
    result.eval()
    return result
