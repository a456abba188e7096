"""A head that is right about the training rows before fine-tuning begins.

A random head at first asks of the pretrained weights what means nothing, and distorts what they know; with few labels
there are too few steps to mend it. Probing first, that is logistic regression on what the head reads of the rows while
the network stays as it is, gives fine-tuning a head to begin with (Kumar et al. 2022, arXiv 2202.10054).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from src.system.errors import UserError

_PENALTY = 0.1
"""On the sum of the head's squared weights, beside the mean loss: measured in docs/experiments/recipes.md."""


def probe(network: nn.Module, batches: Iterable[dict[str, torch.Tensor]]) -> float:
    """Sets the classifier's head by logistic regression, in place, and leaves all else as it was.

    Args:
        network: a classifier of `transformers` whose head ends with a linear layer that reads a vector a row.
        batches: of `input_ids`, `attention_mask` and `labels`, on the network's device.

    Returns:
        The share of the rows that the head gets right.

    Raises:
        UserError: it has no such head.
    """
    head = head_of(network)
    vectors: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []

    def keep(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if given[0].dim() != 2:
            raise _no_head(network)
        vectors.append(given[0].detach().cpu())  # the rest is done there: not every GPU has float64

    handle = head.register_forward_pre_hook(keep)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                # not by calling it: a network that is to be compiled would be compiled for this too
                network.forward(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
                labels.append(batch["labels"].cpu())
    finally:
        handle.remove()
        network.train(training)
    x, y = torch.cat(vectors).double(), torch.cat(labels)
    weight, bias = logistic_regression(x, y, head.out_features, _PENALTY)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return float(((x @ weight.T + bias).argmax(dim=1) == y).double().mean())


def logistic_regression(
    x: torch.Tensor, y: torch.Tensor, classes: int, penalty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (classes, size) and bias (classes,) that minimise mean cross-entropy + penalty · Σ weight².

    Args:
        x: vectors, float64 of shape (rows, size).
        y: classes, int64 of shape (rows,).
    """
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    exact = {"max_iter": 500, "tolerance_grad": 1e-9, "tolerance_change": 1e-14, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([weight, bias], **exact)  # type: ignore[arg-type]

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(x @ weight.T + bias, y) + penalty * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()


def head_of(network: Any) -> nn.Linear:
    """The last linear layer, with an output a label, whatever a family calls it.

    Raises:
        UserError: there is none.
    """
    last = [part for part in network.modules() if isinstance(part, nn.Linear)][-1]
    if last.out_features != network.config.num_labels or last.bias is None:
        raise _no_head(network)
    return last


def _no_head(network: Any) -> UserError:
    kind = network.config.model_type
    return UserError(
        f"model.linear_probe needs a head that reads a vector a review, which a model of the type {kind!r} has not"
    )
