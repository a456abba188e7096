"""LoRA (Hu et al. 2021, arXiv 2106.09685): trains low-rank changes of the attention's projections, and the head.

The encoder stays as it is, so a checkpoint holds the small weights alone, and says of which pretrained model: its base.
Each command that reads the checkpoint takes the base from where the training found it, and compares its weights with
their hash. `predict` and `export` add the changes to the base's matrices, so an exported folder is as any other.

PEFT makes the layers. It is imported within functions: it takes three seconds, and is an extra.
"""

import importlib.util
import math
import warnings
from dataclasses import dataclass
from typing import Any, Self, TypedDict

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from src.models.heads.mean_pooling import Pooling, begin_as_mean
from src.system.checksums import file_sha256
from src.system.errors import UserError
from src.system.hub import find_repository
from src.system.locations import PACKAGE_PREFIX, locate
from src.system.stored import difference
from src.system.weights import load_weights, weight_files

# of queries and values, as PEFT has them by default for BERT and others; one matrix with the keys in ModernBERT, GPT-2
_PROJECTIONS = {
    *("query", "value", "query_proj", "value_proj", "q_lin", "v_lin", "q_proj", "v_proj", "q", "v", "Wqkv", "c_attn"),
    *("query_global", "value_global"),  # Longformer's, by which its head's token reads the text
}


class Lora(TypedDict):
    """Size of the changes: their rank, and alpha, by which they are multiplied, over the rank."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class Adapter:
    """What belongs to LoRA's weights in a checkpoint.

    Attributes:
        lora: their size.
        pooling: how the base was initialised; see `BertClassifier`.
        base: the pretrained model: an absolute path, `package://NAME/PATH` or a Hub id.
        revision: its commit on the Hub; empty for another.
        hashes: SHA-256 of the files with its weights, by name.
    """

    lora: Lora
    pooling: Pooling
    base: str
    revision: str
    hashes: dict[str, str]

    @classmethod
    def new(cls, lora: Lora, pooling: Pooling, name: str, revision: str | None) -> Self:
        """That of a training that starts from the pretrained model `name`."""
        path = locate(name, "the model")
        if path is None:
            revision = find_repository("model", name, revision).commit
        elif not name.startswith(PACKAGE_PREFIX):
            name = str(path)
        return cls(lora, pooling, name, revision or "", _hashes(name, revision))

    @classmethod
    def stored(cls, settings: Any) -> Self:
        """That which `vars` turned into `settings`, which may come from a stranger.

        Raises:
            UserError: something is missing or of another type.
        """
        example = {"lora": {"rank": 0, "alpha": 0.0}, "pooling": "", "base": "", "revision": "", "hashes": {}}
        if wrong := difference(settings, example, "its section of LoRA"):
            raise UserError(wrong)
        check_size(settings["lora"])
        return cls(**{name: settings[name] for name in example})

    def frozen_weights(self, config: PretrainedConfig) -> dict[str, torch.Tensor]:
        """The base's weights, which are not trained, by their names in a network with LoRA.

        Args:
            config: of the trained network.

        Raises:
            UserError: the base is not where the training has found it, or its weights are others.
        """
        try:
            found = _hashes(self.base, self.revision or None)
        except UserError as error:
            raise UserError(f"the checkpoint holds LoRA's weights alone and needs its base: {error}") from error
        if found != self.hashes:
            raise UserError(
                f"the checkpoint holds LoRA's weights alone, and those of its base {self.base!r} are not those of the "
                f"training: put back the files with the sha256 {', '.join(map(str, self.hashes.values()))[:200]}"
            )
        with torch.random.fork_rng(devices=[]):
            network, _ = load_weights(AutoModelForSequenceClassification, self.base, config, self.revision or None)
            if self.pooling == "mean":
                begin_as_mean(network)
            add_lora(network, self.lora | {"rank": 1})  # names do not depend on the rank, which may be a stranger's
        names = frozen(network)
        named = network.named_parameters(remove_duplicate=False)
        return {name: weight.detach() for name, weight in named if name in names}


def check_size(lora: Lora) -> None:
    """Raises UserError if a size is out of range."""
    if lora["rank"] < 1:
        raise UserError(f"model.lora: rank is {lora['rank']}; it must be 1 or more")
    if not 0 < lora["alpha"] < math.inf:
        raise UserError(f"model.lora: alpha is {lora['alpha']}; it must be positive")


def check_installed() -> None:
    """Raises UserError if PEFT is missing."""
    if importlib.util.find_spec("peft") is None:
        raise UserError("peft is not installed, which model.lora needs: pip install -c constraints.txt -e '.[lora]'")


def check_place(network: PreTrainedModel) -> None:
    """Raises UserError if LoRA has no place in the network."""
    if not _projections(network):
        raise UserError(
            f"model.lora changes linear projections of attention, which model type {network.config.model_type!r} does "
            "not have under a known name: leave it out"
        )


def add_lora(network: PreTrainedModel, lora: Lora) -> Any:
    """Adds LoRA to each layer, in place, and freezes all but that, the head and the pooler below it.

    The changes start at zero. The head is trained as a whole: PEFT freezes it, or loses it, unless it is told the
    head's name in each family (peft #310, #577).

    Returns:
        PEFT's model of the network, which can merge them.
    """
    check_installed()
    from peft import LoraConfig, LoraModel

    encoder = f"{network.base_model_prefix}."
    config = LoraConfig(r=lora["rank"], lora_alpha=lora["alpha"], target_modules=_projections(network))  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GPT-2's projections are transposed, which PEFT sees and says
        made = LoraModel(network, config, "default")
    for name, parameter in network.named_parameters():
        if not name.startswith(encoder) or "pooler" in name:
            parameter.requires_grad_(True)
    return made


def describe(network: nn.Module) -> str:
    """How much of a network with LoRA is trained, in words."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    trained, all_of_them = sum(size for size, is_trained in sizes if is_trained), sum(size for size, _ in sizes)
    return f"LoRA: trains {trained:,} of {all_of_them:,} weights"


def frozen(network: nn.Module) -> set[str]:
    """Names of the parameters that are not trained, tied ones with each of their names."""
    named = network.named_parameters(remove_duplicate=False)
    return {name for name, parameter in named if not parameter.requires_grad}


def _projections(network: PreTrainedModel) -> list[str]:
    parts = network.base_model.named_modules(prefix=network.base_model_prefix)
    kinds = (nn.Linear, Conv1D)  # exactly these: a subclass may compute something else
    return [name for name, part in parts if type(part) in kinds and name.rpartition(".")[2] in _PROJECTIONS]


def _hashes(name: str, revision: str | None) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in weight_files(name, revision)}
