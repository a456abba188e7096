"""Writes what the metrics hide to TensorBoard after each evaluation: where the model errs and how sure it is."""

from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import STEP_OUTPUT

from src.callbacks.report_text import class_list, class_table, review_list
from src.data.imdb import ImdbDataModule
from src.data.labels import IGNORED_LABEL
from src.models.base import Batch
from src.models.classifier import BertClassifier
from src.models.tasks.task import Task

_REVIEWS_A_LIST = 10
_LONGEST_TAG = 40
_NO_LABEL = "no label"
_MOST_CURVES = 10  # nobody reads 1,000 precision-recall curves, one for each class


class EvaluatedRows(NamedTuple):
    """A model's predictions for some rows of a subset.

    Attributes:
        position: each row's place in the prepared subset, shape (rows,).
        label: its true labels, shape (rows, *label_shape).
        predicted: its predicted labels, of the same shape.
        confidence: the probability that these are right, float32 of the same shape.
        probabilities: of the labels that have curves, the first ones: float32 of shape (rows, labels).
    """

    position: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    probabilities: np.ndarray


class Report(Callback):
    """Writes figures, curves and reviews to TensorBoard after each validation, during `fit` too, and after each test.

    Below `val/` and `test/`: the images `confusion_matrix` (where a text has one label), `calibration` and
    `accuracy_by_length`; a precision-recall curve for each of the first ten classes (with two classes, for the second);
    as text, the figures of each class (`by_class`), the reviews with the most confident wrong predictions
    (`most_wrong`) and those with the least confident predictions (`least_sure`). Where the matrix numbers the classes,
    since their names cannot be drawn, the text `classes` lists them.

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
        assert isinstance(pl_module, BertClassifier)
        # they stay on the device: a copy would wait for the GPU after each batch
        task = pl_module.task
        probabilities = task.probabilities(outputs["logits"].detach().float())
        if task.label_shape:  # the thresholds are chosen at the end
            self._batches.append((batch["labels"], probabilities))
        else:
            self._batches.append((batch["labels"], *_shown(task, probabilities)))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the report, which needs what the module has found at the end of the epoch.

        Callbacks that save come later: Lightning calls them last.
        """
        assert isinstance(pl_module, BertClassifier)
        batches = [self._rows(pl_module.task)] if self._batches else []
        if trainer.world_size > 1:
            # all ranks take part: they may have different numbers of rows, or none
            shares: list[list[EvaluatedRows]] = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(shares, batches)
            batches = [batch for share in shares for batch in share]
        if not trainer.is_global_zero or trainer.sanity_checking or not any(len(batch.label) for batch in batches):
            return
        rows = _joined(batches)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                _write(logger, pl_module, rows, _subset(trainer), _step(trainer, pl_module))

    def _rows(self, task: Task) -> EvaluatedRows:
        """Takes the rows of this rank."""
        kept = [torch.cat(parts) for parts in zip(*self._batches, strict=True)]
        self._batches = []
        label = kept[0].cpu().numpy()
        real = label.reshape(len(label), -1)[:, 0] != IGNORED_LABEL
        shown = _shown(task, kept[1]) if task.label_shape else kept[1:]
        values = (self._order[: len(label)], label, *(each.cpu().numpy() for each in shown))
        return EvaluatedRows(*(value[real] for value in values))

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end


def _data(trainer: Trainer) -> ImdbDataModule:
    data: ImdbDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return data


def _shown(task: Task, probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What is kept of probabilities: see `EvaluatedRows`. A copy, since a view would keep all of them."""
    return task.predicted(probabilities), task.confidence(probabilities), probabilities[:, :_MOST_CURVES].clone()


def _subset(trainer: Trainer) -> str:
    return "test" if trainer.testing else "val"


def _joined(batches: list[EvaluatedRows]) -> EvaluatedRows:
    """All rows in the order of the subset, so that ties are broken alike on any number of ranks."""
    rows = EvaluatedRows(*map(np.concatenate, zip(*batches, strict=True)))
    order = np.argsort(rows.position, kind="stable")
    return EvaluatedRows(*(values[order] for values in rows))


def _step(trainer: Trainer, pl_module: BertClassifier) -> int:
    """The last training step, counted from 0, as Lightning counts the steps of the scalars.

    Outside `fit`, Lightning does not restore its counter, so the step is read from the checkpoint.
    """
    seen = trainer.global_step
    if trainer.state.fn != "fit" and pl_module.origin.checkpoint is not None:
        seen = pl_module.origin.checkpoint.step
    return max(seen - 1, 0)


def _write(logger: TensorBoardLogger, module: BertClassifier, rows: EvaluatedRows, subset: str, step: int) -> None:
    # matplotlib takes a second to import
    from src.callbacks import report_figures

    writer, data, task = logger.experiment, module.data, module.task
    names, one_label, n = task.labels, not task.label_shape, len(rows.label)
    predicted, confidence = rows.predicted, rows.confidence
    # of each label of a row: one, or as many as there are
    sure, right = confidence.reshape(n, -1), (predicted == rows.label).reshape(n, -1)
    all_right = right.all(axis=1)
    lowest = 1 / len(names) if one_label else 0.0
    figures = {
        "calibration": report_figures.reliability_diagram(sure.ravel(), right.ravel(), lowest),
        "accuracy_by_length": report_figures.accuracy_by_length(data.lengths(subset)[rows.position], all_right),
    }
    if one_label:
        figures["confusion_matrix"] = report_figures.confusion_matrix(rows.label, predicted, names)
        if not report_figures.drawable(names):
            writer.add_text(f"{subset}/classes", class_list(names), step)
    for tag, figure in figures.items():
        writer.add_figure(f"{subset}/{tag}", figure, step)
    writer.add_text(f"{subset}/by_class", class_table(module.by_class), step)

    for k in [1] if one_label and len(names) == 2 else range(min(len(names), _MOST_CURVES)):
        name = names[k] if len(names[k]) <= _LONGEST_TAG else f"{names[k][:_LONGEST_TAG]}… ({k})"
        has = rows.label == k if one_label else rows.label[:, k]
        writer.add_pr_curve(f"{subset}/precision_recall/{name}", has.astype(int), rows.probabilities[:, k], step)

    wrong = np.flatnonzero(~all_right)
    surest_error, least_sure = sure.max(axis=1, where=~right, initial=0), sure.min(axis=1)
    for tag, chosen, shown in (
        ("most_wrong", wrong[np.argsort(-surest_error[wrong], kind="stable")], surest_error),
        ("least_sure", np.argsort(least_sure, kind="stable"), least_sure),
    ):
        listed = chosen[:_REVIEWS_A_LIST]
        reviews = data.splits[subset][rows.position[listed].tolist()]
        true, said = (
            [", ".join(task.names_of(label)) or _NO_LABEL for label in torch.from_numpy(labels[listed])]
            for labels in (rows.label, predicted)
        )
        text = review_list(reviews["row"], true, said, shown[listed].tolist(), reviews["text"])
        writer.add_text(f"{subset}/{tag}", text, step)
