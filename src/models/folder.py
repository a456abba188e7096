"""A classifier as a Hugging Face folder: written for `transformers.pipeline`, and read back.

Length and truncation side are in the tokenizer's own settings; what those cannot say (head_tail, windows) is in
`preprocessing.json`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from src.data.fingerprints import read_hashes, save_hashes
from src.data.tokens import Encoder
from src.models.archive import Archive, tokenizer_to_files
from src.system import pretrained
from src.system.errors import UserError
from src.system.quiet import quiet

WEIGHTS = "model.safetensors"
PREPROCESSING = "preprocessing.json"
_TOKENIZER_SETTINGS = "tokenizer_config.json"


def save_folder(folder: Path, archive: Archive, network: PreTrainedModel) -> None:
    """Writes what `transformers.pipeline("text-classification", folder)` runs and `read_folder` reads."""
    save_network(folder, network)
    encoder = archive.encoder
    save_tokenizer(folder, encoder.tokenizer, encoder.max_length, "left" if encoder.truncation == "tail" else "right")
    preprocessing = {"max_length": encoder.max_length, "truncation": encoder.truncation}
    (folder / PREPROCESSING).write_text(json.dumps(preprocessing, indent=2) + "\n")
    if len(archive.texts):
        save_hashes(folder, archive.texts.numpy().view(np.uint64))


def save_network(folder: Path, network: PreTrainedModel) -> None:
    """Writes configuration and weights."""
    with quiet():
        network.save_pretrained(folder)
    # safetensors makes files that only their owner can read
    (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)


def save_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, truncation_side: str) -> None:
    """Writes the tokenizer's files, with the length and the side on which it cuts longer texts."""
    files = tokenizer_to_files(tokenizer)
    # in the file itself: a tokenizer saves the side that it was loaded with, whatever it has been set to
    settings = json.loads(files[_TOKENIZER_SETTINGS])
    settings |= {"model_max_length": max_length, "truncation_side": truncation_side}
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
    config = pretrained.load_config(str(folder.absolute()))
    tokenizer = pretrained.load_tokenizer(str(folder.absolute()))
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
    names: Any = config.id2label
    labels = [names[i] for i in range(len(names))]
    texts = torch.from_numpy(read_hashes(folder).view(np.int64))
    return Archive(Encoder(tokenizer, **settings), labels, config, texts)


def read_network(folder: Path, archive: Archive) -> PreTrainedModel:
    """The network of an exported folder, in fp32 and eval mode.

    Raises:
        UserError: it has no safetensors, they cannot be read, or they lack weights (the head, say).
    """
    options = {"output_loading_info": True, "ignore_mismatched_sizes": False}
    network, report = pretrained.load_weights(
        AutoModelForSequenceClassification, str(folder.absolute()), archive.config, **options
    )
    if report["missing_keys"]:
        raise UserError(f"{folder} is no trained classifier: it lacks {', '.join(sorted(report['missing_keys'])[:3])}")
    result: PreTrainedModel = network.eval()
    return result
