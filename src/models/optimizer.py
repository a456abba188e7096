"""AdamW with parameter groups, and the learning-rate schedule."""

import math
import re
from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from transformers import PreTrainedModel, get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

from src.system.errors import UserError

Schedule = Literal["linear", "cosine", "constant"]

# encoder.layer.3. in BERT, RoBERTa, ELECTRA; transformer.layer.3. in DistilBERT; layers.3. in ModernBERT
_LAYER = re.compile(r"\.layers?\.(\d+)\.")


def parameter_groups(
    model: PreTrainedModel,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float,
    head_learning_rate: float | None = None,
) -> list[dict[str, Any]]:
    """Groups the parameters by learning rate and weight decay, for AdamW.

    Biases and norms have no weight decay. The learning rate falls from layer to layer (Sun et al. 2019, section 5.3.4):
    d layers below the head it is `learning_rate` · `layer_decay`^d. `head_learning_rate` sets that of the head.
    """
    # the Hugging Face Trainer selects by the same function
    decayed = set(get_parameter_names(model, [nn.LayerNorm], ["bias", "layernorm", "rmsnorm", r"(?:^|\.)norm(?:$|\.)"]))
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    n_layers = 1 + max((int(m[1]) for name, _ in named if (m := _LAYER.search(name))), default=-1)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in named:
        rate = learning_rate * layer_decay ** _depth_below_head(name, n_layers)
        if head_learning_rate is not None and not name.startswith(f"{model.base_model_prefix}."):
            rate = head_learning_rate
        decay = weight_decay if name in decayed else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def check_layers(model: PreTrainedModel) -> None:
    """Raises UserError unless the model has one stack of numbered layers, which layer decay needs."""
    names = [name for name, _ in model.named_parameters()]
    stacks = {name[: match.start()] for name in names if (match := _LAYER.search(name))}
    if len(stacks) != 1:
        raise UserError(
            f"model.layer_decay needs one stack of layers, which model type {model.config.model_type!r} does not have: "
            "set it to 1"
        )


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The model's numbered layers; none where it names them otherwise."""
    names = (name[: match.end() - 1] for name, _ in model.named_parameters() if (match := _LAYER.search(name)))
    return [model.get_submodule(name) for name in dict.fromkeys(names)]


def _depth_below_head(name: str, n_layers: int) -> int:
    if match := _LAYER.search(name):
        return n_layers - int(match[1])
    return n_layers + 1 if "embed" in name else 0


def total_steps(
    n_batches: int, limit: int | float, accumulate_grad_batches: int, max_epochs: int | None, max_steps: int
) -> int:
    """The number of optimizer steps in a run; 0 if only `max_time` limits it.

    `trainer.estimated_stepping_batches` is not used: within `configure_optimizers` it loads the training data early,
    and a resumed loader loses its state (lightning #20550).

    Args:
        n_batches: of the training loader, in an epoch.
        limit: the Trainer's `limit_train_batches`: a number of batches (int) or a fraction (float).
        accumulate_grad_batches, max_epochs, max_steps: the Trainer's.
    """
    used = min(n_batches, limit) if isinstance(limit, int) else int(n_batches * limit)
    steps = math.inf if max_epochs in (None, -1) else math.ceil(used / accumulate_grad_batches) * (max_epochs or 0)
    if max_steps != -1:
        steps = min(steps, max_steps)
    return int(steps) if math.isfinite(steps) else 0


def adamw_with_schedule(
    groups: Iterable[dict[str, Any]], schedule: Schedule, warmup_ratio: float, n_steps: int, fused: bool
) -> OptimizerLRSchedulerConfig:
    """What `configure_optimizers` returns: AdamW as in the Hugging Face Trainer, and a schedule over `n_steps`."""
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=fused)
    scheduler = get_scheduler(
        "constant_with_warmup" if schedule == "constant" else schedule,
        optimizer,
        num_warmup_steps=math.ceil(n_steps * warmup_ratio),
        num_training_steps=n_steps,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
