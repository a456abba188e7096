"""The page of `benchmarks.recipes`: a table for each number of labels, and pictures."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import markdown_table
from benchmarks.recipes.stats import paired_difference, unpack

Rows = Sequence[Mapping[str, str]]

_CPU = "CPU"  # in the column `device`, where a GPU would have its name

DEFINITIONS = """\
Accuracy is the mean over seeds. A seed sets the head, the order and dropout; the rows stay the same. The difference is
in points, over the rows and seeds that both recipes have, with a 95% interval from 5,000 bootstrap draws of paired rows
and seeds; p is two-sided, from the same draws."""


def render(rows: Rows, baseline: str) -> str:
    """One table for each number of labels, the most accurate recipe first.

    Args:
        rows: of the csv: recipe, labels, seed, n, accuracy, device, correct.
        baseline: the recipe that the others are compared with, over the seeds that both have.
    """
    parts = []
    for labels in sorted({row["labels"] for row in rows}, key=lambda n: int(n or 0)):
        these = [row for row in rows if row["labels"] == labels]
        found: dict[str, list[Mapping[str, str]]] = {}
        for row in these:
            found.setdefault(row["recipe"], []).append(row)
        lines = [_line(name, runs, found.get(baseline, []), baseline) for name, runs in found.items()]
        lines.sort(key=lambda line: -line[0])
        header = ["recipe", "accuracy, mean", "each seed", "sd", f"against {baseline}, points", "p", "on"]
        title = f"### {int(labels):,} labels" if labels else "### As configured"
        n = these[0]["n"]
        parts.append(f"{title}, {int(n):,} rows\n\n{markdown_table(header, [line[1:] for line in lines])}")
    if gpus := sorted({row["device"] for row in rows} - {_CPU}):
        parts.append(f"GPU: {', '.join(gpus)}.")
    return "\n\n".join(parts)


def _line(name: str, runs: Rows, base: Rows, baseline: str) -> list[Any]:
    by_seed = {row["seed"]: 100 * float(row["accuracy"]) for row in sorted(runs, key=lambda row: row["seed"])}
    mean = statistics.fmean(by_seed.values())
    each = ", ".join(f"{accuracy:.1f}" for accuracy in by_seed.values())
    spread = f"{statistics.stdev(by_seed.values()):.1f}" if len(runs) > 1 else "–"
    on = ", ".join(sorted({"CPU" if row["device"] == _CPU else "GPU" for row in runs}))
    difference, p = "–", "–"
    seeds = sorted(by_seed.keys() & {row["seed"] for row in base})
    if name != baseline and seeds:
        d = paired_difference(_correct(runs, seeds), _correct(base, seeds))
        difference = f"{100 * d.mean:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})"
        p = f"{d.p:.3f}" if d.p >= 0.001 else "<0.001"
    return [mean, name, f"{mean:.1f}%", each, spread, difference, p, on]


def _correct(runs: Rows, seeds: Sequence[str]) -> np.ndarray:
    by_seed = {row["seed"]: row for row in runs}
    return np.stack([unpack(by_seed[seed]["correct"], int(by_seed[seed]["n"])) for seed in seeds])


_MOST_CURVES = 10  # more cannot be told apart


def with_several_labels(rows: Rows) -> list[str]:
    """The recipes that a curve is drawn of: those with several numbers of labels, the ten with the most of them."""
    numbers = Counter(recipe for recipe, _ in {(row["recipe"], row["labels"]) for row in rows})
    several = [name for name in dict.fromkeys(row["recipe"] for row in rows) if numbers[name] > 1]
    return sorted(several, key=lambda name: -numbers[name])[:_MOST_CURVES]


def plot_accuracies(rows: Rows, path: Path) -> None:
    """Mean accuracy by number of labels, a line a recipe `with_several_labels`, with the lowest and highest seed."""
    figure, axes = _axes()
    for name in with_several_labels(rows):
        points: dict[int, list[float]] = {}
        for row in rows:
            if row["recipe"] == name and row["labels"]:
                points.setdefault(int(row["labels"]), []).append(100 * float(row["accuracy"]))
        counts = sorted(points)
        means = [statistics.fmean(points[n]) for n in counts]
        below = [m - min(points[n]) for n, m in zip(counts, means, strict=True)]
        above = [max(points[n]) - m for n, m in zip(counts, means, strict=True)]
        axes.errorbar(counts, means, yerr=[below, above], marker="o", capsize=3, label=name)
    axes.set(xscale="log", xlabel="labelled reviews", ylabel="accuracy, %")
    given = sorted({int(row["labels"]) for row in rows if row["labels"]})
    axes.set_xticks(given, [f"{n:,}" for n in given])
    axes.minorticks_off()
    _save(figure, axes, path)


def plot_losses(rows: Rows, path: Path) -> None:
    """Training loss by step: the mean over seeds, and the lowest and highest as a band."""
    figure, axes = _axes()
    for name in dict.fromkeys(row["recipe"] for row in rows):
        by_step: dict[int, list[float]] = {}
        for row in rows:
            for step, loss in json.loads(row["curve"]) if row["recipe"] == name else []:
                by_step.setdefault(step, []).append(loss)
        steps = sorted(by_step)
        (line,) = axes.plot(steps, [statistics.fmean(by_step[s]) for s in steps], label=name)
        low, high = [min(by_step[s]) for s in steps], [max(by_step[s]) for s in steps]
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15)
    axes.set(xlabel="step", ylabel="training loss (mean over 10 steps)")
    _save(figure, axes, path)


def _axes() -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(8, 5), layout="constrained")


def _save(figure: Any, axes: Any, path: Path) -> None:
    from matplotlib import pyplot as plt

    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)
