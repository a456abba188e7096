"""Silences library messages that a user cannot act on."""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers.utils import logging as transformers_logging

# users who turn these features on want to read what they report
_WANTED_REPORTS = ("tuner.lr_finder", "profilers.profiler", "callbacks.early_stopping")


def hush_libraries() -> None:
    """Silences messages that need no action, for the rest of the process; the run prints its own progress."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _WANTED_REPORTS:
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.INFO)
    transformers_logging.disable_progress_bar()
    if not sys.stderr.isatty():  # each step of a bar would be a line
        import datasets  # takes 1.6 s to import, and `predict` needs this module but not that one

        datasets.disable_progress_bars()
        disable_progress_bars()
    for message in (
        r".*does not have many workers.*",  # one process reads prepared rows faster than workers would
        r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run uses its old directory
        r".*smaller than the logging interval.*",  # StepLog always logs the last step of an epoch
        r".*callbacks used to create the checkpoint need to be provided.*",  # test does not need those of fit
        r".*sync_dist=True.* when logging on epoch level.*",  # torchmetrics has synchronised the ranks already
        r"\s*Unable to serialize instance",  # RunConfig refuses it
        r"You're using the WeightAveraging callback with a model that overrides the configure_model.*",  # never sharded
        r".*torch.distributed.nn.functional.*is deprecated.*",
        r".*isinstance\(treespec, LeafSpec\)` is deprecated.*",  # torch, called by Lightning
        r"Glyph .* missing from font",  # names of labels on TensorBoard's pictures, which its tables show too
        r".*overridden `on_before_batch_transfer` in `LightningModule`.*",  # the data module has none
    ):
        warnings.filterwarnings("ignore", message=message)
    threading.excepthook = _tell_of_thread
    # otherwise each data worker warns that it was forked after the tokenizer had used threads (transformers #5486);
    # workers never use the tokenizer
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def _tell_of_thread(told: threading.ExceptHookArgs) -> None:
    """Shows the traceback of a thread that has failed, unless TensorBoard's writer could not write.

    The main thread gets that error too, when it logs again or closes the log, and ends the run in one line: the curves
    belong to a run as its metrics.csv does, and after a full disk is mended the run resumes exactly.
    """
    if not (isinstance(told.exc_value, OSError) and type(told.thread).__module__.startswith("tensorboard.")):
        threading.__excepthook__(told)


@contextmanager
def quiet() -> Iterator[None]:
    """Hides transformers' progress bars and its reports of missing and unused weights."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
