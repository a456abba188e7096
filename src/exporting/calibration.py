"""Calibration of an export: temperatures from the validation rows of the training, their effect on its test rows."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from src.data.cache import cache_dir
from src.data.examples import ReviewExamples
from src.data.prepared_reviews import Reviews, Selection, prepare_reviews, reviews_key, source_of
from src.inference.classifier import Classifier
from src.inference.prediction import BATCH_SIZE_CPU, BATCH_SIZE_GPU
from src.models.checkpoint_format import Archive
from src.models.heads.temperature import HIGHEST, LOWEST, best_temperatures, divide_head
from src.models.tasks.task import Task
from src.runs.checkpoint_reading import Checkpoint
from src.system.checksums import is_whole
from src.system.errors import UserError, printable

_ROWS_AT_ONCE = 4096
_SHOWN = 20


@dataclass(frozen=True)
class Calibration:
    """What an export was calibrated by, and what that gained.

    Attributes:
        temperatures: of each label, or one for all under the name "".
        n_val: validation rows that gave them.
        n_test: test rows, on which the figures are.
        before, after: `ece` and `log loss` of the checkpoint and of the export; empty without test rows.
    """

    temperatures: dict[str, float]
    n_val: int
    n_test: int
    before: dict[str, float]
    after: dict[str, float]

    @property
    def divisors(self) -> np.ndarray:
        """What the logits were divided by, float64 of shape (1,) or (labels,)."""
        return np.array(list(self.temperatures.values()))

    @property
    def kept(self) -> int:
        """How many temperatures are 1 because no other was the best."""
        return sum(value == 1 for value in self.temperatures.values())

    def lines(self) -> list[str]:
        """What it says to the user."""
        shown = [f"{printable(name)} {value:.4g}".strip() for name, value in self.temperatures.items()]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        lines = [f"Calibrated on {self.n_val:,} validation texts: temperature {', '.join(shown[:_SHOWN])}{more}"]
        if self.kept:
            which = f"{self.kept} of {len(shown)} temperatures stay" if len(shown) > 1 else "The temperature stays"
            lines.append(
                f"{which} at 1: on these texts none from {LOWEST:g} to {HIGHEST:g} is the best (they are too few "
                "or too easy, or the model has learnt nothing)"
            )
        if not self.n_test:
            return [*lines, "What that changes was not measured: the training had no test rows"]
        figures = [f"{name} {self.before[name]:.4f} → {self.after[name]:.4f}" for name in self.before]
        return [*lines, f"On {self.n_test:,} test texts: {', '.join(figures)}"]


def calibrate_head(
    network: PreTrainedModel, checkpoint: Checkpoint, archive: Archive, classifier: Classifier
) -> Calibration:
    """Divides the head of `network` by the best temperatures, and moves the thresholds of `archive` along.

    Args:
        network: of the checkpoint; it is changed.
        checkpoint: of a `BertClassifier`.
        archive: of the checkpoint; its configuration is changed.
        classifier: gives the logits of the checkpoint as it was.

    Raises:
        UserError: the validation rows of the training are not to be had, or there are none.
    """
    reviews, task = _reviews_of(checkpoint, archive), archive.task
    if not len(reviews.rows("val")):
        raise UserError("--calibrate needs validation rows, and the training had none (data.val_size was 0)")
    logits, labels = _logits_and_labels(reviews, "val", classifier)
    temperatures = best_temperatures(logits, labels, task)
    calibrated = task.calibrated(temperatures)
    divide_head(network, temperatures)
    for config in (network.config, archive.config):
        config.update(calibrated.settings)
    n_val, n_test = len(labels), len(reviews.rows("test"))
    before, after = {}, {}
    if n_test:
        logits, labels = _logits_and_labels(reviews, "test", classifier)
        before = _figures(logits.double(), labels, task)
        after = _figures(logits / temperatures, labels, calibrated)
    names = task.labels if task.label_shape else [""]
    named = dict(zip(names, temperatures.tolist(), strict=True))
    return Calibration(named, n_val, n_test, before, after)


def _reviews_of(checkpoint: Checkpoint, archive: Archive) -> Reviews:
    """The prepared reviews of the training: those in this machine's cache, or prepared again."""
    folder = cache_dir() / archive.prepared
    if archive.prepared and is_whole(folder):
        return Reviews(archive.prepared, folder, found=True)
    options = checkpoint.content.get("datamodule_hyper_parameters")
    try:
        if not isinstance(options, Mapping) or not isinstance(options.get("dataset"), str):
            raise UserError("the checkpoint does not say which they are")
        source, selection = source_of(options), Selection.of(options)
        if reviews_key(source, selection, archive.encoder) != archive.prepared:
            raise UserError(f"{options['dataset']!r} is not as it was then")
        return prepare_reviews(source, selection, archive.encoder)
    except UserError as error:
        raise UserError(f"--calibrate needs the validation rows of the training: {error}") from error


def _logits_and_labels(reviews: Reviews, name: str, classifier: Classifier) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all rows of "val" or "test", some thousand at a time."""
    examples = ReviewExamples(reviews.rows(name))
    batch_size = BATCH_SIZE_GPU if classifier.on_gpu else BATCH_SIZE_CPU
    logits, labels = [], []
    interval = 0.1 if sys.stderr.isatty() else 10  # in a log, a line every ten seconds is enough
    what = "Calibrating" if name == "val" else "Testing"
    with tqdm(total=len(examples), desc=what, unit=" reviews", mininterval=interval) as bar:
        for start in range(0, len(examples), _ROWS_AT_ONCE):
            some = examples.__getitems__(list(range(start, min(start + _ROWS_AT_ONCE, len(examples)))))
            windows = [[window.tolist() for window in example["windows"]] for example in some]
            logits.append(torch.from_numpy(classifier.logits_of_tokens(windows, batch_size, bar.update)))
            labels.append(torch.tensor([example["label"] for example in some]))
    return torch.cat(logits), torch.cat(labels)


def _figures(logits: torch.Tensor, labels: torch.Tensor, task: Task) -> dict[str, float]:
    """The expected calibration error and the log loss, as `test` computes them."""
    metrics = task.metrics(len(labels))
    metrics.update(task.probabilities(logits).float(), labels)
    figures = {"ece": task.evaluate(metrics.compute()).overall["ece"], "log loss": task.losses(logits, labels).mean()}
    return {name: float(value) for name, value in figures.items()}
