"""Peak memory of a classifier's metrics over many classes and rows: random logits through the real objects.

python -m benchmarks.evaluation_memory           # as an evaluation of so many rows computes them
python -m benchmarks.evaluation_memory --exact   # with all probabilities kept until the end
"""

import argparse
import resource
import time

import torch

from src.models.metrics import AT_ONCE, classification_metrics
from src.system.allocator import keep_freed_memory

_BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--exact", action="store_true")
    args = parser.parse_args()
    keep_freed_memory()  # as every command does
    metrics = classification_metrics(args.classes, 0 if args.exact else args.rows)
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    random = torch.Generator().manual_seed(0)
    before, start = _peak(), time.monotonic()
    for first in range(0, args.rows, _BATCH):
        n = min(_BATCH, args.rows - first)
        labels = torch.randint(args.classes, (n,), generator=random)
        logits = 3 * torch.randn(n, args.classes, generator=random)
        logits[torch.arange(n), labels] += 3
        kept.append((logits.softmax(dim=-1), labels))
        last = first + n == args.rows
        if last or (not args.exact and len(kept) * logits.numel() > AT_ONCE):
            probabilities, of_rows = map(torch.cat, zip(*kept, strict=True))
            kept.clear()
            metrics.update(probabilities, of_rows)
    results = metrics.compute()
    seconds = time.monotonic() - start
    figures = ", ".join(f"{name} {float(results[name]):.6f}" for name in ("accuracy", "f1", "auroc", "mcc", "ece"))
    print(f"{args.rows:,} rows of {args.classes:,} classes: {_peak() - before:,.0f} MiB more at most, {seconds:.0f} s")
    print(figures)


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
