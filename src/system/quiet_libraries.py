"""Messages of the libraries that ask for nothing a user could do."""

import logging
import os
import warnings

import transformers

# what these say is what they were configured for
_ASKED_FOR = ("tuner.lr_finder", "profilers.profiler", "callbacks.early_stopping")


def hush_libraries() -> None:
    """Silences messages that ask for nothing a user could do; the run's own lines say what it does."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _ASKED_FOR:
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.INFO)
    transformers.utils.logging.disable_progress_bar()
    for message in (
        r".*does not have many workers.*",  # reading prepared rows is quicker than a process for it
        r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run's own
        r".*smaller than the logging interval.*",  # the last step of an epoch is always logged
        r".*callbacks used to create the checkpoint need to be provided.*",  # those of fit, when testing
        r".*sync_dist=True.* when logging on epoch level.*",  # torchmetrics has gathered the ranks already
        r".*torch.distributed.nn.functional.*is deprecated.*",
        r".*isinstance\(treespec, LeafSpec\)` is deprecated.*",  # torch, inside lightning
    ):
        warnings.filterwarnings("ignore", message=message)
    # else each worker process warns of having been forked after the tokenizer used its threads, which it does not use
    # any more (transformers #5486)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
