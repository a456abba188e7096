"""Configurations and tokenizers of pretrained models, and the one function that loads, without code from the Hub.

The files may be a stranger's. A library may raise anything on them, so each of its calls is within `reading`.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from src.system.checksums import verify_checksums
from src.system.downloads import fetch, origin
from src.system.errors import UserError, one_line
from src.system.hub import find_repository
from src.system.locations import locate

# of what `transformers` makes a list or a module, in memory or time, before it looks at the weights
_MOST = {"num_labels": 100_000} | dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "num_layers"), 10_000)
# of a model on the Hub: its configuration and tokenizer, at the top of the repository
_SMALL = (
    "config.json",
    "token*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
_MOST_BYTES_OF_CONFIG = 16 * 2**20


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turns any error of a library about `what`, which is of a stranger, into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except BaseException as error:
        # "panic": a library in Rust gives up, with a class that is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{what} cannot be read: {type(error).__name__} ({one_line(error)[:300]})") from error


def describe(name: str, revision: str | None = None) -> str:
    """A model's name; of one on the Hub with its commit, and whether its files came from the cache."""
    if locate(name, "the model") is not None:
        return name
    repository = find_repository("model", name, revision)
    return f"{repository}, {origin(repository)}"


def load_config(name: str, revision: str | None = None) -> PretrainedConfig:
    """The configuration of the pretrained model `name` (Hub id, folder or package://).

    Args:
        revision: commit, tag or branch of a model on the Hub; None is its main branch.
    """
    config: PretrainedConfig = load(AutoConfig, name, revision, "the configuration", ("*.json", "*.npy"))
    return _called_as_here(config)


def stored_config(settings: dict[str, Any]) -> PretrainedConfig:
    """The configuration that `to_diff_dict` turned into `settings`, which may come from a stranger."""
    with reading("the configuration"):
        _check_counts(settings)
        config: PretrainedConfig = AutoConfig.for_model(**settings)
    return _called_as_here(config)


def _called_as_here(config: PretrainedConfig) -> PretrainedConfig:
    """Resets what changes how a network is called, or what it computes from one call to the next."""
    config.return_dict = True
    config.chunk_size_feed_forward = 0
    if getattr(config, "attention_type", None) == "block_sparse":
        config.attention_type = "original_full"  # to which BigBird changes, for good, at its first batch of short texts
    return config


def _check_counts(settings: Any) -> None:
    if not isinstance(settings, dict):
        raise TypeError("it is no JSON object")
    for name, most in _MOST.items():
        count = settings.get(name, 1)
        if not isinstance(count, int) or not 1 <= count <= most:
            raise ValueError(f"{name} is {count!r:.50}")


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The fast tokenizer of the pretrained model `name`."""
    tokenizer: PreTrainedTokenizerBase = load(AutoTokenizer, name, revision, "the tokenizer", ("*.json", "*.txt"))
    _check_tokenizer(tokenizer, f"the tokenizer of {name!r}")
    return tokenizer


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer whose files are in a folder that holds no model.

    Raises:
        UserError: they are no tokenizer, or one that needs its own code, which is never run.
    """
    with reading("the tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    _check_tokenizer(tokenizer, "the tokenizer")
    return tokenizer


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, what: str) -> None:
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        # transformers makes an empty tokenizer from a folder that has a configuration but no vocabulary
        raise UserError(f"{what} cannot be read: there is no vocabulary in it")
    if not tokenizer.is_fast:
        raise UserError(f"{what} is not a fast one (tokenizer.json), which is needed")
    longest = tokenizer.model_max_length
    if not isinstance(longest, int | float) or not 1 <= longest < math.inf:  # NaN too
        raise UserError(f"{what} cannot be read: its model_max_length is {longest!r:.50}")


def new_network(auto_class: Any, config: PretrainedConfig) -> PreTrainedModel:
    """A network of this configuration, in fp32 with random weights, on torch's default device."""
    with reading(f"the configuration of a {config.model_type}"):
        network: PreTrainedModel = auto_class.from_config(config, dtype=torch.float32)
        if empty := next((name for name, each in network.named_parameters() if not each.numel()), ""):
            raise ValueError(f"by it {empty} is empty")
    return network


def model_folder(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder of a model; of one on the Hub, the files at its top that match a pattern are downloaded to it."""
    path = locate(name, "the model")
    if path is not None:
        return path
    repository = find_repository("model", name, revision)
    top = [file for file in repository.files if "/" not in file]
    return fetch(repository, [file for file in top if any(fnmatch(file, pattern) for pattern in patterns)])


def load(auto_class: Any, name: str, revision: str | None, what: str, verified: Sequence[str], **options: Any) -> Any:
    """What `auto_class` reads from a model's folder, after its checksums were compared.

    Args:
        what: is read, for messages.
        verified: patterns of the files that are read.
    """
    path = model_folder(name, revision, _SMALL)
    if not (path / "config.json").is_file():
        raise UserError(f"the model folder {name!r} has no config.json")
    verify_checksums(path, *verified)
    for entry in sorted(chain.from_iterable(map(path.glob, verified))):
        if not entry.is_file():  # which `transformers` takes for a file that is not there
            raise UserError(f"{entry} cannot be read: it is no file")
    with reading(f"the configuration of {name!r}"):  # that of a tokenizer too
        if (path / "config.json").stat().st_size > _MOST_BYTES_OF_CONFIG:
            raise ValueError("config.json is too large")
        _check_counts(json.loads((path / "config.json").read_text("utf-8")))
    with reading(f"{what} of {name!r}"):
        return auto_class.from_pretrained(str(path), trust_remote_code=False, local_files_only=True, **options)
