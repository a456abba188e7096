"""Ideas from the literature that are compared with the options of `fit`, and are none themselves unless they pay.

Named on the command line of a recipe: `--trainer.callbacks+=benchmarks.candidates.ReinitialiseTopLayers`.
"""

from collections.abc import Callable
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn
from torch.utils.data import DataLoader

from src.data.batches import FILLER_ROW, Collator, EvalBatches, PreparedReviews, PreparedWindows
from src.data.imdb import ImdbDataModule
from src.data.labels import IGNORED_LABEL
from src.models.base import Batch
from src.models.classifier import BertClassifier


class ReinitialiseTopLayers(lightning.Callback):
    """Begins with random weights in the top layers, and in the pooler (Zhang et al. 2021, section 5).

    Args:
        layers: how many, from the top.
    """

    def __init__(self, layers: int = 1) -> None:
        self.layers = layers

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        bert = pl_module.model.bert
        for part in [*bert.encoder.layer[-self.layers :], bert.pooler]:
            for module in part.modules():
                _reinitialise(module, bert.config.initializer_range)


def _reinitialise(module: nn.Module, deviation: float) -> None:
    """As BERT begins: normal weights, zero biases, norms that change nothing."""
    with torch.no_grad():
        if isinstance(module, nn.Linear):
            module.weight.normal_(0.0, deviation)
            module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
            module.bias.zero_()


class AverageOfLastSteps(WeightAveraging):
    """Evaluates and saves the mean of the weights after each step of the last part of a run (Izmailov et al. 2018).

    Args:
        share: of the steps.
    """

    def __init__(self, share: float = 0.25) -> None:
        # a GPU's weights are averaged on it, and its whole numbers cannot be (RuntimeError of addcdiv, torch 2.11)
        super().__init__(device=None, use_buffers=False)
        self.share = share
        self._steps = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self._steps = int(trainer.estimated_stepping_batches)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= (1 - self.share) * self._steps


class RDropClassifier(BertClassifier):
    """Each row twice with different dropout, and how far the answers differ in the loss (Wu et al. 2021, R-Drop).

    `--model=benchmarks.candidates.RDropClassifier`.
    """

    weight = 1.0

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self._logits = super().forward(input_ids, attention_mask)
        return self._logits

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss = super().training_step({name: torch.cat([values, values]) for name, values in batch.items()}, batch_idx)
        one, other = (logits.log_softmax(dim=-1) for logits in self._logits.chunk(2))
        there, back = (
            nn.functional.kl_div(a, b, log_target=True, reduction="batchmean") for a, b in ((one, other), (other, one))
        )
        return loss + self.weight * (there + back) / 2


class SmoothedClassifier(BertClassifier):
    """With label smoothing (Szegedy et al. 2016, section 7): `--model=benchmarks.candidates.SmoothedClassifier`."""

    smoothing = 0.1

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(
            logits, labels, ignore_index=IGNORED_LABEL, reduction="none", label_smoothing=self.smoothing
        )


class WholeReviews(ImdbDataModule):
    """Trains on the mean of the logits of a review's windows, as it is judged, not on each window.

    `--data=benchmarks.candidates.WholeReviews`; `batch_size` is then in reviews.
    """

    def dataset(self, name: str) -> PreparedReviews:
        return PreparedReviews(self.splits[name].remove_columns(["text", "row"]))

    def collator(self, name: str) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
        collator = super().collator(name)
        assert isinstance(collator, Collator)
        collator.by_review = True
        return collator

    def train_rows_once(self) -> DataLoader[dict[str, torch.Tensor]]:
        """Window by window, for the linear probe."""
        windows = super().dataset("train")
        assert isinstance(windows, PreparedWindows)
        batches = EvalBatches(windows.lengths, self.hparams["eval_batch_size"] or 8, rank=0, world_size=1)
        return DataLoader(windows, batch_sampler=batches, collate_fn=super().collator("train"))


class RandomWindows(ImdbDataModule):
    """Cuts the windows of training elsewhere each time: `--data=benchmarks.candidates.RandomWindows`."""

    def dataset(self, name: str) -> PreparedReviews:
        rows = self.splits[name].remove_columns(["text", "row"])
        return _WindowsAnywhere(rows) if name == "train" else PreparedReviews(rows)


class _WindowsAnywhere(PreparedWindows):
    """Each window as long as it was, from a random place of its review. For tokenizers that add [CLS] and [SEP].

    The places come from one stream, the same for each seed, and a resumed run begins it anew.
    """

    def __init__(self, rows: Any) -> None:
        super().__init__(rows)
        self._rng = np.random.default_rng(0)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        windows = super().__getitems__(indices)
        if indices == [FILLER_ROW]:
            return windows
        reviews = PreparedReviews.__getitems__(self, self._review[indices].tolist())
        return [self._moved(window, review) for window, review in zip(windows, reviews, strict=True)]

    def _moved(self, window: dict[str, Any], review: dict[str, Any]) -> dict[str, Any]:
        body = [token for part in review["windows"] for token in part[1:-1]]
        (ids,) = window["windows"]
        room = len(ids) - 2
        start = int(self._rng.integers(len(body) - room + 1))
        return {"windows": [[ids[0], *body[start : start + room], ids[-1]]], "label": window["label"]}
