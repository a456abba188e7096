"""AdamW with parameter groups, and a learning rate that changes with every step."""

import math
import re
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel, get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

Schedule = Literal["linear", "cosine", "constant"]
_SCHEDULER_NAMES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}

# encoder.layer.3. in BERT, RoBERTa, ELECTRA; transformer.layer.3. in DistilBERT; layers.3. in ModernBERT
_LAYER = re.compile(r"\.layers?\.(\d+)\.")


def parameter_groups(
    model: PreTrainedModel,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float,
    head_learning_rate: float | None = None,
) -> list[dict[str, Any]]:
    """AdamW's groups: biases and norms are not decayed, and each layer learns slower than the one above it.

    Layer k of n learns at learning_rate · layer_decay^(n − k), the embeddings slowest (Sun et al. 2019, section 5.3.4),
    the heads at `head_learning_rate`; None is `learning_rate`.
    """
    # get_parameter_names is what the Hugging Face Trainer decides by
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


def _depth_below_head(name: str, n_layers: int) -> int:
    if match := _LAYER.search(name):
        return n_layers - int(match[1])
    return n_layers + 1 if "embeddings" in name else 0


def total_steps(
    n_batches: int, limit: int | float, accumulate_grad_batches: int, max_epochs: int | None, max_steps: int
) -> int:
    """Optimizer steps of a whole run; 0 where nothing but time limits them.

    Args:
        n_batches: of the training loader.
        limit: `limit_train_batches`: a number of them if an int, a share if a float.
        accumulate_grad_batches, max_epochs, max_steps: the Trainer's.

    Computed here since `trainer.estimated_stepping_batches`, called in `configure_optimizers`, loads the training
    data early and drops what a resumed loader was given (lightning #20550).
    """
    used = min(n_batches, limit) if isinstance(limit, int) else int(n_batches * limit)
    steps = math.inf if max_epochs in (None, -1) else math.ceil(used / accumulate_grad_batches) * (max_epochs or 0)
    if max_steps != -1:
        steps = min(steps, max_steps)
    return int(steps) if math.isfinite(steps) else 0


def adamw_with_schedule(
    groups: Iterable[dict[str, Any]], schedule: Schedule, warmup_ratio: float, n_steps: int, fused: bool
) -> dict[str, Any]:
    """What `configure_optimizers` returns: AdamW as the Hugging Face Trainer sets it, its rate renewed every step."""
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=fused)
    scheduler = get_scheduler(
        _SCHEDULER_NAMES[schedule],
        optimizer,
        num_warmup_steps=math.ceil(n_steps * warmup_ratio),
        num_training_steps=n_steps,
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
