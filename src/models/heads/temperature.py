"""Temperature scaling (Guo et al. 2017, arXiv 1706.04599): logits are divided by a number that calibrates them.

A network that has learnt its training rows by heart is too sure of others. The best temperature is the one with the
lowest loss on rows that were not trained on. Where a text has one label, there is one temperature for all; where it may
have several, one for each label. Dividing the head's weight and bias by it divides the logits.
"""

import torch
from transformers import PreTrainedModel

from src.models.heads.linear_probe import minimise
from src.models.heads.pretrained_head import output_layer
from src.models.tasks.task import Task
from src.system.errors import UserError

LOWEST, HIGHEST = 0.01, 100.0
"""Where no temperature between these is the best, the logits say nothing of the labels, or are right of all rows."""


def best_temperatures(logits: torch.Tensor, labels: torch.Tensor, task: Task) -> torch.Tensor:
    """The temperatures with the lowest loss on some rows, float64 of shape (1,) or (labels,).

    It is 1 where none between `LOWEST` and `HIGHEST` is the best, or where rounding would change a label.

    Args:
        logits: of shape (rows, labels).
        labels: of shape (rows, *task.label_shape).
        task: what the logits mean.
    """
    logits = logits.double()
    ones = torch.ones(task.label_shape or 1, dtype=torch.float64)

    def loss(scales: torch.Tensor) -> torch.Tensor:
        """Convex in the inverse temperatures, which do not depend on each other."""
        return task.losses(logits * scales, labels).mean(dim=0).sum()

    def slope(scale: float) -> torch.Tensor:
        scales = (ones * scale).requires_grad_()
        with torch.enable_grad():
            loss(scales).backward()
        assert scales.grad is not None
        return scales.grad

    between = (slope(1 / HIGHEST) < 0) & (slope(1 / LOWEST) > 0)
    free = ones[between].requires_grad_()
    if len(free):
        minimise([free], lambda: loss(ones.masked_scatter(between, free)))
    temperatures = 1 / ones.masked_scatter(between, free.detach())
    before = task.predicted(task.probabilities(logits))
    calibrated = task.calibrated(temperatures)
    same = before == calibrated.predicted(calibrated.probabilities(logits / temperatures))
    return temperatures.where(same.reshape(len(logits), -1).all(dim=0), 1.0)


@torch.no_grad()
def divide_head(network: PreTrainedModel, temperatures: torch.Tensor) -> None:
    """Divides the weight and bias of the output layer, in place, by temperatures of shape (1,) or (labels,).

    Raises:
        UserError: the network has no such layer.
    """
    try:
        _, layer = output_layer(network)
    except LookupError as error:
        kind = network.config.model_type
        raise UserError(f"--calibrate divides a linear head, which the model type {kind!r} does not have") from error
    layer.weight.copy_(layer.weight.double() / temperatures[:, None])
    if layer.bias is not None:
        layer.bias.copy_(layer.bias.double() / temperatures)
