"""Writes what the metrics hide to TensorBoard after each evaluation: where the model errs and how sure it is."""

from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import STEP_OUTPUT

from src.callbacks.report_reviews import class_list, review_list
from src.data.imdb import ImdbDataModule
from src.data.labels import IGNORED_LABEL
from src.models.base import Batch, TransformerModule

_REVIEWS_A_LIST = 10
_LONGEST_TAG = 40
_MOST_CURVES = 10  # nobody reads 1,000 precision-recall curves, one for each class


class EvaluatedRows(NamedTuple):
    """A model's predictions for some rows of a subset.

    Attributes:
        position: each row's place in the prepared subset, shape (rows,).
        label: its true class, shape (rows,).
        predicted: its predicted class, shape (rows,).
        confidence: the probability of that, float32 of shape (rows,).
        probabilities: of the classes that have curves, the first ones: float32 of shape (rows, classes).
    """

    position: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray


class Report(Callback):
    """Writes figures, curves and reviews to TensorBoard after each validation, during `fit` too, and after each test.

    Below `val/` and `test/`: the images `confusion_matrix`, `calibration` and `accuracy_by_length`; a precision-recall
    curve for each of the first ten classes (with two classes, for the second); as text, the reviews with the most
    confident wrong predictions (`most_wrong`) and those with the least confident predictions (`least_sure`). Where the
    matrix numbers the classes, since their names cannot be drawn, the text `classes` lists them.

    Every row counts once on any number of ranks; rank 0 writes. Of a row no more is kept than the report shows. A model
    whose steps return no `logits` gets no report.
    """

    def __init__(self) -> None:
        self._order = np.empty(0, dtype=np.int64)
        self._batches: list[tuple[torch.Tensor, ...]] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._order = _data(trainer).eval_order(_subset(trainer))
        self._batches = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not isinstance(outputs, dict) or "logits" not in outputs:
            return
        # they stay on the device: a copy would wait for the GPU after each batch
        probabilities = outputs["logits"].detach().float().softmax(dim=1)
        confidence, predicted = probabilities.max(dim=1)
        self._batches.append((batch["labels"], predicted, confidence, probabilities[:, :_MOST_CURVES].clone()))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the report at the end of the epoch, which is before a checkpoint is saved at the end of validation."""
        batches = [self._rows()] if self._batches else []
        if trainer.world_size > 1:
            # all ranks take part: they may have different numbers of rows, or none
            shares: list[list[EvaluatedRows]] = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(shares, batches)
            batches = [batch for share in shares for batch in share]
        if not trainer.is_global_zero or trainer.sanity_checking or not any(len(batch.label) for batch in batches):
            return
        rows = _joined(batches)
        if not np.isfinite(rows.confidence).all():
            return  # the module is about to refuse this evaluation
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                _write(logger, _data(trainer), rows, _subset(trainer), _step(trainer, pl_module))

    def _rows(self) -> EvaluatedRows:
        """Takes the rows of this rank."""
        kept = [torch.cat(parts).cpu().numpy() for parts in zip(*self._batches, strict=True)]
        self._batches = []
        real = kept[0] != IGNORED_LABEL
        return EvaluatedRows(*(values[real] for values in (self._order[: len(real)], *kept)))

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end


def _data(trainer: Trainer) -> ImdbDataModule:
    data: ImdbDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data


def _subset(trainer: Trainer) -> str:
    return "test" if trainer.testing else "val"


def _joined(batches: list[EvaluatedRows]) -> EvaluatedRows:
    """All rows in the order of the subset, so that ties are broken alike on any number of ranks."""
    rows = EvaluatedRows(*map(np.concatenate, zip(*batches, strict=True)))
    order = np.argsort(rows.position, kind="stable")
    return EvaluatedRows(*(values[order] for values in rows))


def _step(trainer: Trainer, pl_module: LightningModule) -> int:
    """The last training step, counted from 0, as Lightning counts the steps of the scalars.

    Outside `fit`, Lightning does not restore its counter, so the step is read from the checkpoint.
    """
    assert isinstance(pl_module, TransformerModule)
    seen = trainer.global_step
    if trainer.state.fn != "fit" and pl_module.origin.checkpoint is not None:
        seen = pl_module.origin.checkpoint.step
    return max(seen - 1, 0)


def _write(logger: TensorBoardLogger, data: ImdbDataModule, rows: EvaluatedRows, subset: str, step: int) -> None:
    # matplotlib takes a second to import
    from src.callbacks import report_figures

    writer, names = logger.experiment, data.label_names
    predicted, confidence = rows.predicted, rows.confidence
    correct = predicted == rows.label
    lengths = data.lengths(subset)[rows.position]
    for tag, figure in (
        ("confusion_matrix", report_figures.confusion_matrix(rows.label, predicted, names)),
        ("calibration", report_figures.reliability_diagram(confidence, correct, 1 / len(names))),
        ("accuracy_by_length", report_figures.accuracy_by_length(lengths, correct)),
    ):
        writer.add_figure(f"{subset}/{tag}", figure, step)
    if not report_figures.drawable(names):
        writer.add_text(f"{subset}/classes", class_list(names), step)

    for k in [1] if len(names) == 2 else range(min(len(names), _MOST_CURVES)):
        name = names[k] if len(names[k]) <= _LONGEST_TAG else f"{names[k][:_LONGEST_TAG]}… ({k})"
        tag = f"{subset}/precision_recall/{name}"
        writer.add_pr_curve(tag, (rows.label == k).astype(int), rows.probabilities[:, k], step)

    wrong = np.flatnonzero(~correct)
    for tag, chosen in (
        ("most_wrong", wrong[np.argsort(-confidence[wrong], kind="stable")][:_REVIEWS_A_LIST]),
        ("least_sure", np.argsort(confidence, kind="stable")[:_REVIEWS_A_LIST]),
    ):
        reviews = data.splits[subset][rows.position[chosen].tolist()]
        text = review_list(
            reviews["row"],
            [names[k] for k in rows.label[chosen]],
            [names[k] for k in predicted[chosen]],
            confidence[chosen].tolist(),
            reviews["text"],
        )
        writer.add_text(f"{subset}/{tag}", text, step)
