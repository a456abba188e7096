"""The table and the pictures of `benchmarks.recipes`."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recipes.stats import paired_difference, unpack
from benchmarks.report import markdown_table

Rows = Sequence[Mapping[str, str]]

DEFINITIONS = """\
Accuracy is the mean over seeds, on the same n rows. A seed sets the head, the order and dropout. The difference is over
the seeds that both recipes have, with a 95% interval from 5,000 bootstrap draws of paired rows and seeds; p is
two-sided, from the same draws."""


def render(rows: Rows, baseline: str) -> str:
    """One table, by number of labels, the most accurate recipe first.

    Args:
        rows: of the csv: recipe, labels, seed, n, accuracy, device, correct.
        baseline: the recipe that the others are compared with, over the seeds that both have.
    """
    found: dict[tuple[int, str], list[Mapping[str, str]]] = {}
    for row in rows:
        found.setdefault((int(row["labels"] or 0), row["recipe"]), []).append(row)
    header = ["recipe", "labels", "accuracy", "each seed", "sd", f"against {baseline}, points", "p", "n", "on"]
    lines = [
        (labels, -_mean(runs), [name, f"{labels:,}" if labels else "own", *_cells(runs, base)])
        for (labels, name), runs in found.items()
        for base in [[] if name == baseline else found.get((labels, baseline), [])]
    ]
    return markdown_table(header, [cells for *_, cells in sorted(lines)])


def _mean(runs: Rows) -> float:
    return statistics.fmean(100 * float(row["accuracy"]) for row in runs)


def _cells(runs: Rows, base: Rows) -> list[str]:
    by_seed = {row["seed"]: f"{100 * float(row['accuracy']):.1f}" for row in sorted(runs, key=lambda row: row["seed"])}
    spread = f"{statistics.stdev(100 * float(row['accuracy']) for row in runs):.1f}" if len(runs) > 1 else "–"
    on = ", ".join(sorted({row["device"] for row in runs}))
    difference, p = "–", "–"
    if seeds := sorted(by_seed.keys() & {row["seed"] for row in base}):
        d = paired_difference(_correct(runs, seeds), _correct(base, seeds))
        difference = f"{100 * d.mean:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})"
        p = f"{d.p:.3f}" if d.p >= 0.001 else "<0.001"
    return [f"{_mean(runs):.1f}%", ", ".join(by_seed.values()), spread, difference, p, f"{int(runs[0]['n']):,}", on]


def _correct(runs: Rows, seeds: Sequence[str]) -> np.ndarray:
    by_seed = {row["seed"]: row for row in runs}
    return np.stack([unpack(by_seed[seed]["correct"], int(by_seed[seed]["n"])) for seed in seeds])


def plot_accuracies(rows: Rows, path: Path) -> None:
    """Mean accuracy by number of labels, one line per recipe, with the lowest and highest seed."""
    figure, axes = _axes()
    for name in dict.fromkeys(row["recipe"] for row in rows):
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


PLOTS = {"accuracy": plot_accuracies, "loss": plot_losses}


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
