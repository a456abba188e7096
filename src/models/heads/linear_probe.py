"""Linear probe: sets the classification head by logistic regression on frozen features before fine-tuning.

A random head sends uninformative gradients into the pretrained weights and distorts their features. With few labels
there are too few steps to repair that. A fitted head avoids it (Kumar et al. 2022, arXiv 2202.10054).
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from src.models.heads.pretrained_head import output_layer
from src.models.tasks.task import Task
from src.system.errors import UserError

PENALTY = 0.1
"""Weight of the sum of the head's squared weights, beside the mean loss: measured in docs/experiments/recipes.md."""


def probe(
    network: PreTrainedModel,
    batches: Iterable[dict[str, torch.Tensor]],
    task: Task,
    weights: torch.Tensor | None = None,
) -> float:
    """Fits the classification head, in place, and leaves all other weights unchanged.

    Args:
        network: a classifier whose head ends with a linear layer over one vector per row.
        batches: of `input_ids`, `attention_mask` and `labels`, on the network's device.
        task: what the head's outputs mean.
        weights: of the classes in the loss, float32 of shape (labels,).

    Returns:
        The head's accuracy on these rows.

    Raises:
        UserError: the network has no such head.
    """
    labels: list[torch.Tensor] = []

    def labelled() -> Iterator[dict[str, torch.Tensor]]:
        for batch in batches:
            labels.append(batch["labels"].cpu())
            yield batch

    head = head_of(network)
    x, y = head_inputs(network, labelled()).double(), torch.cat(labels)
    weights = None if weights is None else weights.double().cpu()

    def loss_of_row(logits: torch.Tensor) -> torch.Tensor:
        # the sum over its labels, so that the penalty on each label does not depend on how many there are
        return task.losses(logits, y, weights, reduction="mean") * y[0].numel()

    weight, bias = logistic_regression(x, head.out_features, PENALTY, loss_of_row)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return float(task.right(x @ weight.T + bias, y).double().mean())


def head_inputs(network: PreTrainedModel, batches: Iterable[dict[str, torch.Tensor]]) -> torch.Tensor:
    """The vectors that the classification head reads, on the CPU, of shape (rows, size). Dropout is off.

    Args:
        network: a classifier whose head ends with a linear layer over one vector per row.
        batches: of `input_ids` and `attention_mask`, on the network's device.

    Raises:
        UserError: the network has no such head.
    """
    vectors: list[torch.Tensor] = []

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].dim() != 2:
            raise _no_head(network)
        vectors.append(inputs[0].detach().cpu())  # the fit runs there: not every GPU has float64

    handle = head_of(network).register_forward_pre_hook(keep)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                # `forward`, since a call would compile the network for this pass, if torch_compile means it as a whole
                network.forward(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    finally:
        handle.remove()
        network.train(training)
    return torch.cat(vectors)


def logistic_regression(
    x: torch.Tensor, classes: int, penalty: float, mean_loss: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (classes, size) and bias (classes,) that minimise mean loss + penalty · Σ weight².

    Args:
        x: vectors, float64 of shape (rows, size).
        mean_loss: of logits of shape (rows, classes).
    """
    weight = x.new_zeros(classes, x.shape[1], requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    minimise([weight, bias], lambda: mean_loss(x @ weight.T + bias) + penalty * weight.square().sum())
    return weight.detach(), bias.detach()


def minimise(parameters: list[torch.Tensor], value: Callable[[], torch.Tensor]) -> None:
    """Sets `parameters`, in place, to where a smooth convex `value` of them is least (L-BFGS)."""
    exact = {"max_iter": 500, "tolerance_grad": 1e-9, "tolerance_change": 1e-14, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS(parameters, **exact)  # type: ignore[arg-type]

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = value()
        found.backward()
        return found

    with torch.enable_grad():
        optimizer.step(loss)


def head_of(network: PreTrainedModel) -> nn.Linear:
    """The output layer, which must have a bias.

    Raises:
        UserError: there is none.
    """
    try:
        _, last = output_layer(network)
    except LookupError as error:
        raise _no_head(network) from error
    if last.bias is None:
        raise _no_head(network)
    return last


def _no_head(network: PreTrainedModel) -> UserError:
    return UserError(
        "model.linear_probe needs a linear head with a bias that reads one vector per review, which model type "
        f"{network.config.model_type!r} does not have: set it to false"
    )
