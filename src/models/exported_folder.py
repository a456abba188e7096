"""A classifier as a Hugging Face folder: written for `transformers.pipeline`, and read back.

The tokenizer's own settings hold the maximum length and the truncation side. They cannot express the truncations
`head_tail` and `windows`, so `preprocessing.json` holds those, and what `classify.py` must know without `transformers`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from src.data.fingerprints import read_hashes, save_hashes
from src.data.tokenization import Encoder
from src.data.tokenizer_source import longest_input
from src.models.checkpoint_format import Archive, tokenizer_to_files
from src.models.tasks.known import TASKS
from src.models.tasks.single_label import SingleLabel
from src.system import pretrained, weights
from src.system.errors import UserError
from src.system.quiet import quiet

WEIGHTS = "model.safetensors"
PREPROCESSING = "preprocessing.json"
_TOKENIZER_SETTINGS = "tokenizer_config.json"


def save_folder(folder: Path, archive: Archive, network: PreTrainedModel) -> None:
    """Writes a folder for `transformers.pipeline("text-classification", folder)` and `read_folder`."""
    save_network(folder, network)
    encoder = archive.encoder
    save_tokenizer(folder, encoder.tokenizer, encoder.max_length, "left" if encoder.truncation == "tail" else "right")
    prefix, suffix = encoder.special_tokens()
    preprocessing = {
        "max_length": encoder.max_length,
        "truncation": encoder.truncation,
        "prefix": prefix,
        "suffix": suffix,
        "pad_token_id": encoder.tokenizer.pad_token_id or 0,
        "special_tokens_as_text": encoder.special_tokens_as_text(),
    }
    (folder / PREPROCESSING).write_text(json.dumps(preprocessing) + "\n")
    if len(archive.texts):
        save_hashes(folder, archive.texts.numpy().view(np.uint64))


def save_network(folder: Path, network: PreTrainedModel) -> None:
    """Writes the configuration and the weights."""
    with quiet():
        network.save_pretrained(folder)
    # safetensors makes the file readable by its owner only
    (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)


def save_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, truncation_side: str) -> None:
    """Writes the tokenizer's files, with the maximum length and the side ("left" or "right") that truncation cuts."""
    files = tokenizer_to_files(tokenizer)
    # edits the file, since a tokenizer saves the truncation side it was loaded with, not its present one
    settings = json.loads(files[_TOKENIZER_SETTINGS])
    settings |= {"model_max_length": max_length, "truncation_side": truncation_side, "split_special_tokens": True}
    files[_TOKENIZER_SETTINGS] = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")


def read_folder(folder: Path) -> Archive:
    """Reads all but the weights of a classifier, from an exported folder or any other folder of `transformers`.

    Raises:
        UserError: the folder has no model, or a file cannot be read.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no exported model: it has no config.json")
    config = pretrained.load_config(str(folder.absolute()))
    tokenizer = pretrained.load_tokenizer(str(folder.absolute()))
    longest = longest_input(config)
    settings: dict[str, Any] = {
        "max_length": int(min(tokenizer.model_max_length, longest or tokenizer.model_max_length)),
        "truncation": "tail" if tokenizer.truncation_side == "left" else "head",
    }
    if (folder / PREPROCESSING).exists():
        try:
            stored = json.loads((folder / PREPROCESSING).read_text())
            settings = {name: stored[name] for name in settings}
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{folder / PREPROCESSING} is damaged: export the checkpoint again") from error
    names: Any = config.id2label  # its type allows string keys too, but once loaded they are integers
    if sorted(names) != list(range(len(names))):
        raise UserError(f"{folder / 'config.json'} is damaged: the numbers of its labels are {sorted(names)!r:.100}")
    labels = [names[i] for i in range(len(names))]
    problem = config.problem_type or SingleLabel.problem_type
    if len(labels) == 1 or str(problem) not in TASKS:
        kind = f"its problem_type is {problem!r:.50}" if len(labels) > 1 else "it has a single output"
        raise UserError(f"{folder} gives no probabilities of classes: {kind}. `fit` can start from it")
    texts = torch.from_numpy(read_hashes(folder).view(np.int64))
    return Archive(Encoder(tokenizer, **settings), labels, config, texts)


def read_network(folder: Path, archive: Archive) -> PreTrainedModel:
    """The network of a folder, in fp32 and eval mode.

    Raises:
        UserError: there is no safetensors file, it cannot be read, or weights are missing (the head's, for example).
    """
    network, lacking = weights.load_weights(AutoModelForSequenceClassification, str(folder.absolute()), archive.config)
    if lacking:
        raise UserError(f"{folder} is no trained classifier: it has no weights for {', '.join(sorted(lacking)[:3])}")
    result: PreTrainedModel = network.eval()
    return result
