"""The same accuracy as the peers', and what grouping by length does to learning: over several seeds, so it takes hours.

    python -m benchmarks.equivalence                             # 1,000 reviews, 3 epochs, 3 seeds, all variants
    python -m benchmarks.equivalence --variants same random      # the loss curves with and without grouping alone

Every variant trains on the same rows and is evaluated on the same 2,000 others with its final weights. One line a run
is kept in a csv: a program that was stopped goes on.
"""

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import RESULTS, WORK, Progress, markdown_table, provenance, write_section
from benchmarks.finetune import append_row, read_rows, run_ours, run_peer
from benchmarks.stats import pack, paired_difference, unpack
from benchmarks.training import SAME_RECIPE

_OURS = ["--config=configs/quickstart.yaml", *SAME_RECIPE]
VARIANTS: dict[str, tuple[str, str | list[str], float]] = {
    # name → title, a peer's module or our options, seconds a review
    "A": ("A: Trainer, tutorial", "benchmarks.peers.tutorial", 1.1),
    "B": ("B: Trainer, expert", "benchmarks.peers.expert", 0.6),
    "same": ("ours, A's recipe, grouped by length", [*_OURS, "--data.group_by_length=true"], 0.3),
    "random": ("ours, A's recipe, random order", [*_OURS, "--data.group_by_length=false"], 0.4),
    "quickstart": ("ours, quickstart's recipe", ["--config=configs/quickstart.yaml"], 0.2),
}


def render(rows: Sequence[Mapping[str, str]]) -> str:
    """Accuracy by variant, and the difference from A (from B, or the first there is, where A has no run)."""
    found: dict[str, dict[str, Mapping[str, str]]] = {}
    for row in rows:
        found.setdefault(row["variant"], {})[row["seed"]] = row
    names = [name for name in VARIANTS if name in found]
    base = names[0]
    lines = []
    for name in names:
        runs = found[name]
        accuracies = [float(row["accuracy"]) for row in runs.values()]
        spread = f"{100 * statistics.stdev(accuracies):.1f}" if len(runs) > 1 else "–"
        seeds = sorted(runs.keys() & found[base].keys())
        difference = "–"
        if name != base and seeds:
            d = paired_difference(_correct(runs, seeds), _correct(found[base], seeds))
            difference = f"{100 * d.mean:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})"
        last = statistics.fmean(_last_third(json.loads(row["curve"])) for row in runs.values())
        mean = f"{100 * statistics.fmean(accuracies):.1f}%"
        each = ", ".join(f"{100 * float(runs[seed]['accuracy']):.1f}" for seed in sorted(runs))
        wall = statistics.median(float(row["fit_s"]) for row in runs.values())
        lines.append([VARIANTS[name][0], mean, each, spread, difference, f"{last:.3f}", f"{wall:,.0f}"])
    header = ["", "accuracy, mean", "each seed", "spread (sd)", f"against {base}, points (95%)"]
    return markdown_table([*header, "training loss, last third", "fit, s"], lines)


def _correct(runs: Mapping[str, Mapping[str, str]], seeds: Sequence[str]) -> np.ndarray:
    return np.stack([unpack(runs[seed]["correct"], int(runs[seed]["n"])) for seed in seeds])


def _last_third(curve: Sequence[tuple[int, float]]) -> float:
    if not curve:
        return float("nan")  # fewer steps than between two rows of the log
    end = curve[-1][0]
    return statistics.fmean(loss for step, loss in curve if step > 2 * end / 3)


def plot(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Training loss by step: the mean over seeds, and the lowest and highest as a band."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name in [name for name in VARIANTS if any(row["variant"] == name for row in rows)]:
        by_step: dict[int, list[float]] = {}
        for row in rows:
            if row["variant"] == name:
                for step, loss in json.loads(row["curve"]):
                    by_step.setdefault(step, []).append(loss)
        steps = sorted(by_step)
        (line,) = axes.plot(steps, [statistics.fmean(by_step[s]) for s in steps], label=VARIANTS[name][0])
        low, high = [min(by_step[s]) for s in steps], [max(by_step[s]) for s in steps]
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15)
    axes.set(xlabel="step", ylabel="training loss (mean over 10 steps)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--reviews", type=int, default=1000)
    parser.add_argument("--eval_rows", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--csv", type=Path, default=WORK / "equivalence.csv")
    parser.add_argument("--no_page", action="store_true", help="print the table, leave docs/results.md alone")
    given = parser.parse_args(args)

    setting = f"{given.reviews}/{given.eval_rows}/{given.epochs}"
    wanted = [(name, seed) for seed in range(42, 42 + given.seeds) for name in given.variants]
    done = {(row["variant"], int(row["seed"])) for row in read_rows(given.csv) if row["setting"] == setting}
    todo = [run for run in wanted if run not in done]
    progress = Progress(
        VARIANTS[name][2] * (given.reviews * given.epochs + given.eval_rows / 3) + 40 for name, _ in todo
    )
    for name, seed in todo:
        title, what, _ = VARIANTS[name]
        progress.start(f"{title}, seed {seed}")
        folder = f"equivalence-{name}-{seed}"
        if isinstance(what, str):
            rows = (given.eval_rows, 500)
            outcome = run_peer(what, given.reviews, seed, rows, folder, given.epochs)
        else:
            sizes = [f"--data.train_size={given.reviews}", f"--data.val_size={given.eval_rows}", "--data.test_size=500"]
            options = [*what, *sizes, f"--trainer.max_epochs={given.epochs}"]
            outcome = run_ours(options, seed, "val", "last", folder)
        accuracy = float(outcome.correct.mean())
        row = {
            "setting": setting,
            "variant": name,
            "seed": seed,
            "n": len(outcome.correct),
            "accuracy": f"{accuracy:.6f}",
            "fit_s": f"{outcome.fit_s:.1f}",
            "correct": pack(outcome.correct),
            "curve": json.dumps(outcome.curve),
        }
        append_row(given.csv, row)
        progress.end(f"accuracy {accuracy:.4f}, fit {outcome.fit_s:.0f} s")

    keep = {(name, str(seed)) for name, seed in wanted}
    found = [r for r in read_rows(given.csv) if r["setting"] == setting and (r["variant"], r["seed"]) in keep]
    command = shlex.join(["python", "-m", "benchmarks.equivalence", *(sys.argv[1:] if args is None else args)])
    text = f"""## The same accuracy, and the effect of grouping

{given.reviews:,} reviews, {given.epochs} epochs, {given.seeds} seeds, evaluated on the same {given.eval_rows:,} others.

{render(found)}

The difference is over the same rows and seeds, its interval from 5,000 bootstrap draws of both in pairs."""
    if not given.no_page:
        picture = RESULTS.with_name("loss_curves.png")
        plot(found, picture)
        text += f"\n\n![training loss by step]({picture.name})"
    text += "\n\n" + provenance(command)
    print("\n" + text)
    if not given.no_page:
        write_section(RESULTS, "equivalence", text)
        print(f"\nWritten to {RESULTS}")


if __name__ == "__main__":
    main()
