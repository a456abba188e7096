"""What each rank of the evaluation test computes: metrics of its share, for every number of rows."""

import os

import numpy as np
import torch

from src.data.batches import FILLER_ROW, EvalBatches
from src.data.labels import IGNORED_LABEL
from src.models.metrics import classification_metrics
from src.models.running_means import WeightedMean

MOST_ROWS = 40
LABELS = 3


def rows(n: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Logits, labels and lengths of `n` rows."""
    generator = torch.Generator().manual_seed(n)
    logits = torch.randn(n, LABELS, generator=generator)
    labels = torch.randint(LABELS, (n,), generator=generator)
    return logits, labels, torch.randint(5, 60, (n,), generator=generator).numpy()


def evaluate(n: int, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Every metric and the loss over `n` rows, of which this rank sees its share."""
    logits, labels, lengths = rows(n)
    metrics, loss = classification_metrics(LABELS), WeightedMean()
    for batch in EvalBatches(lengths, batch_size=4, rank=rank, world_size=world_size):
        masked = batch == [FILLER_ROW]
        batch_logits = logits[:1] if masked else logits[batch]
        batch_labels = torch.tensor([IGNORED_LABEL]) if masked else labels[batch]
        losses = torch.nn.functional.cross_entropy(batch_logits, batch_labels, reduction="none")
        loss.update(losses, weight=(batch_labels != IGNORED_LABEL).float())
        metrics.update(batch_logits.softmax(dim=-1), batch_labels)
    return {**metrics.compute(), "loss": loss.compute()}


def main(rank: int, world_size: int, port: int, output: str) -> None:
    """Evaluates all numbers of rows; rank 0 saves what came out."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    results = [evaluate(n, rank, world_size) for n in range(1, MOST_ROWS + 1)]
    if rank == 0:
        torch.save(results, output)
    torch.distributed.destroy_process_group()
