"""What a linear probe on the frozen encoder makes of labelled texts: its accuracy, and the labels that it doubts.

Each text gets its probabilities from a probe that was fitted without it (5-fold cross-validation). Labels are doubted
in the order of their own probability; cleanlab finds no more of them (docs/experiments/check.md).
"""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from src.data.examples import Collator
from src.models.heads.linear_probe import PENALTY, head_inputs, logistic_regression

FOLDS = 5
_WINDOWS_A_BATCH = 32


def vectors_of(
    network: PreTrainedModel, reviews: Sequence[list[list[int]]], pad_token_id: int, advance: Callable[[int], object]
) -> torch.Tensor:
    """What the head reads of each review, float64 of shape (reviews, size): the mean over its windows.

    The head is linear, so its logits of that mean are the mean of the windows' logits.

    Args:
        network: a classifier, on its device.
        reviews: the token ids of the windows of each.
        pad_token_id: of the tokenizer.
        advance: called with the number of windows of each batch, when it has been read.
    """
    windows = [(review, window) for review, windows in enumerate(reviews) for window in windows]
    windows.sort(key=lambda each: -len(each[1]))
    collate = Collator(pad_token_id, "longest", 0)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        for i in range(0, len(windows), _WINDOWS_A_BATCH):
            part = windows[i : i + _WINDOWS_A_BATCH]
            batch = collate([{"windows": [window], "label": 0} for _, window in part])
            yield {name: values.to(network.device) for name, values in batch.items()}
            advance(len(part))

    of_window = head_inputs(network, batches()).double()
    review = torch.tensor([review for review, _ in windows])
    total = of_window.new_zeros(len(reviews), of_window.shape[1]).index_add_(0, review, of_window)
    return total / torch.bincount(review, minlength=len(reviews))[:, None]


def out_of_sample(x: torch.Tensor, y: np.ndarray, classes: int) -> np.ndarray:
    """The probabilities of each row, float64 of shape (rows, classes), from probes that were fitted without that row.

    The rows of each class are dealt to the folds in turn.

    Args:
        x: vectors, float64 of shape (rows, size).
        y: classes, shape (rows,); at least two occur more than once.
        classes: how many there are.
    """
    fold = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        of_class = np.flatnonzero(y == label)
        fold[of_class] = np.arange(len(of_class)) % FOLDS
    targets = torch.from_numpy(y)
    probabilities = np.zeros((len(y), classes))
    for k in range(FOLDS):
        out = torch.from_numpy(fold == k)
        loss = functools.partial(nn.functional.cross_entropy, target=targets[~out])
        weight, bias = logistic_regression(x[~out], classes, PENALTY, loss)
        probabilities[fold == k] = (x[out] @ weight.T + bias).softmax(dim=1).numpy()
    return probabilities


def doubted(probabilities: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The rows in the order in which their labels are likely to be wrong: by the probability of the label itself.

    Rows of a class that has fewer rows than there are folds are left out, since no probe can know that class.
    """
    known = np.bincount(y)[y] >= FOLDS
    order = np.argsort(probabilities[np.arange(len(y)), y], kind="stable")
    doubts: np.ndarray = order[known[order]]
    return doubts
