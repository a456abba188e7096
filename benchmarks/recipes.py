"""Recipes × numbers of labels × seeds: the accuracy of each, its time, and whether it beats the tutorial's recipe.

    python -m benchmarks.recipes                                        # everything in benchmarks/recipes.yaml
    python -m benchmarks.recipes --recipes tutorial head_tail --labels 1000 --seeds 5
    python -m benchmarks.recipes --config my.yaml --seeds 5             # your own config, as it is, with five seeds
    python -m benchmarks.recipes --recipes tutorial together --final    # on the test rows: once, at the end
    python -m benchmarks.recipes --list benchmarks/pretrained.yaml      # what further pre-training brings

Each run is `python -m src fit` with the recipe's options in a process of its own, then `validate`, or `test` with
--final. Validation rows are for development; the final weights are evaluated, so that nothing is chosen on the rows
that judge (`--checkpoint best` takes those that validated best, which is fair on test rows only). One line a run is
kept in a csv, with the rows that were right: a program that was stopped goes on, and a higher number of seeds adds only
what is new.
"""

import argparse
import hashlib
import json
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.common import RESULTS, ROOT, WORK, Progress, markdown_table, provenance, write_section
from benchmarks.finetune import Outcome, append_row, read_rows, run_ours, run_peer
from benchmarks.stats import pack, paired_difference, unpack

LIST = ROOT / "benchmarks" / "recipes.yaml"


@dataclass(frozen=True)
class Run:
    """One run: a recipe with a number of labels (None: as the config says) and a seed.

    Attributes:
        options: of `fit`, all of them.
        peer: the module of a peer's script, in place of `fit`.
    """

    recipe: str
    labels: int | None
    seed: int
    options: tuple[str, ...]
    peer: str | None = None

    def key(self, split: str, checkpoint: str) -> str:
        """What makes it another run: everything that changes its result but the code."""
        facts = [self.peer, self.options, self.labels, self.seed, split, checkpoint]
        for option in self.options:
            name, _, value = option.partition("=")
            if name == "--config":
                facts.append(Path(ROOT, value).read_text())
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def plan(
    recipes: Mapping[str, Any], base: Sequence[str], labels: Sequence[int | None], seeds: int, first_seed: int
) -> list[Run]:
    """All runs, seed by seed, so that every recipe has a first figure early."""
    runs = []
    for seed in range(first_seed, first_seed + seeds):
        for n in labels:
            for name, recipe in recipes.items():
                recipe = recipe if isinstance(recipe, dict) else {"options": recipe}  # noqa: PLW2901
                options = [*base, *(recipe.get("options") or []), *(recipe.get("labels") or {}).get(n, [])]
                runs.append(Run(name, n, seed, tuple(options), recipe.get("peer")))
    return runs


def execute(run: Run, split: str, checkpoint: str, eval_rows: int | None) -> Outcome:
    """Runs one. `eval_rows` are the validation rows, and as many test rows; None leaves the config's."""
    name = f"{run.recipe}-{run.labels or 'own'}-{run.seed}-{split}"
    if run.peer:
        assert run.labels is not None
        assert eval_rows is not None
        return run_peer(run.peer, run.labels, run.seed, (eval_rows, eval_rows if split == "val" else 0), name)
    sizes = [] if run.labels is None else [f"--data.train_size={run.labels}"]
    if eval_rows is not None:
        sizes += [f"--data.val_size={eval_rows}", f"--data.test_size={eval_rows}"]
    return run_ours([*run.options, *sizes], run.seed, split, checkpoint, name)


# ---- the table -------------------------------------------------------------------------------------------------------


def render(rows: Sequence[Mapping[str, str]], baseline: str) -> str:
    """One table for each number of labels, the most accurate recipe first.

    Args:
        rows: of the csv: recipe, labels, seed, n, accuracy, fit_s, correct.
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
        header = ["recipe", "seeds", "accuracy, mean", "spread (sd)", f"against {baseline}, points", "p", "fit, s"]
        title = f"### {int(labels):,} labels" if labels else "### As configured"
        n = these[0]["n"]
        parts.append(f"{title}, {int(n):,} rows\n\n{markdown_table(header, [line[1:] for line in lines])}")
    return "\n\n".join(parts)


def _line(name: str, runs: list[Mapping[str, str]], base: list[Mapping[str, str]], baseline: str) -> list[Any]:
    accuracies = [float(row["accuracy"]) for row in runs]
    mean = statistics.fmean(accuracies)
    spread = f"{100 * statistics.stdev(accuracies):.1f}" if len(runs) > 1 else "–"
    seconds = statistics.median(float(row["fit_s"]) for row in runs)
    difference, p = "–", "–"
    seeds = sorted({row["seed"] for row in runs} & {row["seed"] for row in base})
    if name != baseline and seeds:
        d = paired_difference(_correct(runs, seeds), _correct(base, seeds))
        difference = f"{100 * d.mean:+.1f} ({100 * d.low:+.1f} to {100 * d.high:+.1f})"
        p = f"{d.p:.3f}" if d.p >= 0.001 else "<0.001"
    return [mean, name, len(runs), f"{100 * mean:.1f}%", spread, difference, p, f"{seconds:,.0f}"]


def _correct(runs: list[Mapping[str, str]], seeds: Sequence[str]) -> np.ndarray:
    by_seed = {row["seed"]: row for row in runs}
    return np.stack([unpack(by_seed[seed]["correct"], int(by_seed[seed]["n"])) for seed in seeds])


def plot(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Mean accuracy by number of labels, a line a recipe, with the lowest and highest seed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
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
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    figure.savefig(path, dpi=110)
    plt.close(figure)


# ---- the program -----------------------------------------------------------------------------------------------------


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="of the list (default: all)")
    parser.add_argument("--list", type=Path, default=LIST, help="of recipes (default: benchmarks/recipes.yaml)")
    parser.add_argument("--config", type=Path, nargs="+", help="your own configs, in place of the list's recipes")
    parser.add_argument("--labels", type=int, nargs="+", help="default: 100 1000 5000; with --config, what it says")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first_seed", type=int, default=42)
    parser.add_argument("--eval_rows", type=int, help="default: 2000; with --config, what it says")
    parser.add_argument("--checkpoint", choices=["last", "best"], default="last")
    parser.add_argument("--final", action="store_true", help="evaluate on the test rows")
    parser.add_argument("--csv", type=Path, default=WORK / "recipes.csv")
    parser.add_argument("--no_page", action="store_true", help="print the table, leave docs/results.md alone")
    given = parser.parse_args(args)

    labels: list[int | None] = list(given.labels or [None])
    eval_rows: int | None = given.eval_rows
    if given.config:
        listed = {path.stem: [f"--config={path.resolve()}"] for path in given.config}
        base, baseline, title = [], next(iter(listed)), "Your recipes"
    else:
        content = yaml.safe_load(given.list.read_text())
        listed, base, baseline, title = (content[key] for key in ("recipes", "base", "baseline", "title"))
        if unknown := set(given.recipes or []) - listed.keys():
            parser.error(f"no such recipe in {given.list}: {', '.join(sorted(unknown))}")
        listed = {name: listed[name] for name in given.recipes or listed}
        labels = given.labels or [100, 1000, 5000]
        eval_rows = eval_rows or 2000

    split = "test" if given.final else "val"
    runs = plan(listed, base, labels, given.seeds, given.first_seed)
    todo = _todo(runs, given.csv, split, given.checkpoint)
    progress = Progress(
        30 + 0.25 * (eval_rows or 500) * 0.4 + (run.labels or 1000) * _epochs(run) * 0.3 for run in todo
    )
    for run in todo:
        progress.start(f"{run.recipe}, {run.labels or 'its own'} labels, seed {run.seed}")
        outcome = execute(run, split, given.checkpoint, eval_rows)
        accuracy = float(outcome.correct.mean())
        row = {
            "key": run.key(split, given.checkpoint),
            "recipe": run.recipe,
            "labels": "" if run.labels is None else run.labels,
            "seed": run.seed,
            "split": split,
            "n": len(outcome.correct),
            "accuracy": f"{accuracy:.6f}",
            "loss": "" if outcome.loss is None else f"{outcome.loss:.6f}",
            "fit_s": f"{outcome.fit_s:.1f}",
            "correct": pack(outcome.correct),
            "options": run.peer or shlex.join(run.options),
        }
        append_row(given.csv, row)
        progress.end(f"accuracy {accuracy:.4f}, fit {outcome.fit_s:.0f} s")

    keys = {run.key(split, given.checkpoint) for run in runs}
    rows = [row for row in read_rows(given.csv) if row["key"] in keys]
    command = shlex.join(["python", "-m", "benchmarks.recipes", *(sys.argv[1:] if args is None else args)])
    text = (
        f"## {title}, on {'test' if given.final else 'validation'} rows\n\n{render(rows, baseline)}\n\n{_DEFINITIONS}"
    )
    page = not given.no_page and not given.config
    if page and len(labels) > 1:
        picture = RESULTS.with_name(f"{given.list.stem}_{split}.png")
        plot(rows, picture)
        text += f"\n\n![accuracy by labels]({picture.name})"
    text += "\n\n" + provenance(command)
    print("\n" + text)
    if page:
        write_section(RESULTS, f"{given.list.stem}-{split}", text)
        print(f"\nWritten to {RESULTS}")


_DEFINITIONS = """\
Accuracy is the mean over seeds (of the head, the order and dropout; the rows are the same). The difference, in points,
is over the same rows and seeds, with a 95% interval from 5,000 bootstrap draws of rows and seeds in pairs; p is
two-sided, from the same draws. Time is the median wall time of the training command, start-up
included, evaluation not."""


def _todo(runs: Sequence[Run], path: Path, split: str, checkpoint: str) -> list[Run]:
    done = {row["key"] for row in read_rows(path)}
    return [run for run in runs if run.key(split, checkpoint) not in done]


def _epochs(run: Run) -> int:
    given = [option.partition("=")[2] for option in run.options if option.startswith("--trainer.max_epochs=")]
    return int(given[-1]) if given else 3


if __name__ == "__main__":
    main()
