"""After each validation and test, what the figures do not tell: where the model errs, and how sure it is then."""

from dataclasses import dataclass
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from src.callbacks.review_list import review_list
from src.data.labels import IGNORED_LABEL

_REVIEWS_A_LIST = 10
_MOST_CURVES = 10  # a page with one precision-recall curve for each of 1,000 classes is read by no one


@dataclass(frozen=True)
class EvaluatedRows:
    """What a model said of some rows of a subset.

    Attributes:
        position: each row's place in the prepared subset, shape (rows,).
        label: its true class, shape (rows,).
        probabilities: of each class, float32 of shape (rows, classes).
    """

    position: np.ndarray
    label: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest class of each row, shape (rows,)."""
        return np.asarray(self.probabilities.argmax(axis=1))

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the likeliest class, shape (rows,)."""
        return np.asarray(self.probabilities.max(axis=1))

    @property
    def correct(self) -> np.ndarray:
        """Whether the likeliest class is the true one, shape (rows,)."""
        return np.asarray(self.predicted == self.label)

    def most_wrong(self, n: int) -> np.ndarray:
        """At most `n` indices of rows with another class predicted than the true one, the surest first."""
        wrong = np.flatnonzero(~self.correct)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:n]

    def least_sure(self, n: int) -> np.ndarray:
        """`n` indices of rows, those whose likeliest class has the lowest probability first."""
        return np.argsort(self.confidence, kind="stable")[:n]


class Report(lightning.Callback):
    """Writes pictures, curves and reviews to TensorBoard after each validation, in `fit` too, and after each test.

    Below `val/` and `test/`: the images `confusion_matrix`, `calibration` and `accuracy_by_length`; a
    precision-recall curve for each of the first ten classes (of two classes, for the second); and as text the
    reviews that were got `most_wrong` and those that the model was `least_sure` of.

    Every row counts once, whatever the number of ranks; rank 0 writes. Of each row, only its place, label and
    probabilities are kept. A model whose steps return no `logits` gets no report.
    """

    def __init__(self) -> None:
        self._order = np.empty(0, dtype=np.int64)
        self._seen = 0
        self._batches: list[EvaluatedRows] = []

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._begin(trainer, "val")

    def on_test_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._begin(trainer, "test")

    def on_validation_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        self._collect(outputs, args[0])

    def on_test_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        self._collect(outputs, args[0])

    # at the end of the epoch, so that a checkpoint saved at the end of validation finds the report written

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._finish(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._finish(trainer, pl_module, "test")

    # ---- collecting ------------------------------------------------------------------------------------------------

    def _begin(self, trainer: lightning.Trainer, name: str) -> None:
        self._order = trainer.datamodule.eval_order(name)  # type: ignore[attr-defined]
        self._seen = 0
        self._batches = []

    def _collect(self, outputs: Any, batch: Any) -> None:
        if not isinstance(outputs, dict) or "logits" not in outputs:
            return
        label = batch["labels"].cpu().numpy()
        position = self._order[self._seen : self._seen + len(label)]
        self._seen += len(label)
        real = label != IGNORED_LABEL
        probabilities = outputs["logits"].detach().float().softmax(dim=1).cpu().numpy()
        self._batches.append(EvaluatedRows(position[real], label[real], probabilities[real]))

    def _finish(self, trainer: lightning.Trainer, pl_module: Any, name: str) -> None:
        batches, self._batches = self._batches, []
        if trainer.world_size > 1:
            # every rank takes part, with whatever it has: shares may differ in length, or be empty
            shares: list[list[EvaluatedRows]] = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(shares, batches)
            batches = [batch for share in shares for batch in share]
        if trainer.is_global_zero and not trainer.sanity_checking and any(len(batch.label) for batch in batches):
            rows = _joined(batches)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    self._write(logger.experiment, trainer.datamodule, rows, name, _step(trainer, pl_module))  # type: ignore[attr-defined]

    # ---- writing ---------------------------------------------------------------------------------------------------

    def _write(self, writer: Any, data: Any, rows: EvaluatedRows, name: str, step: int) -> None:
        # matplotlib takes a second to import
        from src.callbacks import figures

        names: list[str] = data.label_names
        lengths = data.lengths(name)[rows.position]
        writer.add_figure(f"{name}/confusion_matrix", figures.confusion_matrix(rows.label, rows.predicted, names), step)
        writer.add_figure(
            f"{name}/calibration", figures.calibration(rows.confidence, rows.correct, 1 / len(names)), step
        )
        writer.add_figure(f"{name}/accuracy_by_length", figures.accuracy_by_length(lengths, rows.correct), step)

        classes = [1] if len(names) == 2 else range(min(len(names), _MOST_CURVES))
        for k in classes:
            tag = f"{name}/precision_recall/{names[k][:40]}"
            writer.add_pr_curve(tag, (rows.label == k).astype(int), rows.probabilities[:, k], step)

        for tag, chosen in (
            ("most_wrong", rows.most_wrong(_REVIEWS_A_LIST)),
            ("least_sure", rows.least_sure(_REVIEWS_A_LIST)),
        ):
            writer.add_text(f"{name}/{tag}", self._reviews(data, rows, name, chosen), step)

    def _reviews(self, data: Any, rows: EvaluatedRows, name: str, chosen: np.ndarray) -> str:
        reviews = data.texts(name)[rows.position[chosen].tolist()]
        return review_list(
            reviews["row"],
            [data.label_names[k] for k in rows.label[chosen]],
            [data.label_names[k] for k in rows.predicted[chosen]],
            rows.confidence[chosen].tolist(),
            reviews["text"],
        )


def _joined(batches: list[EvaluatedRows]) -> EvaluatedRows:
    """All rows in the order of the subset, so that ties fall alike for any number of ranks."""
    order = np.argsort(np.concatenate([batch.position for batch in batches]), kind="stable")
    return EvaluatedRows(
        *(
            np.concatenate([getattr(batch, field) for batch in batches])[order]
            for field in ("position", "label", "probabilities")
        )
    )


def _step(trainer: lightning.Trainer, pl_module: Any) -> int:
    """The step that the weights have seen, counted from 0, as Lightning counts those of the scalars beside it.

    Outside of `fit` Lightning does not restore its own counter, so the checkpoint is asked.
    """
    seen = trainer.global_step
    if trainer.state.fn != "fit" and pl_module.origin.checkpoint is not None:
        seen = pl_module.origin.checkpoint.step
    return max(seen - 1, 0)
