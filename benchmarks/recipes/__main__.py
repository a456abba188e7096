"""Accuracy of fine-tuning recipes, by number of labels, over several seeds.

    python -m benchmarks.recipes                                        # all of recipes.yaml: days on 2 cores
    python -m benchmarks.recipes --recipes tutorial windows --labels 1000 --seeds 5
    python -m benchmarks.recipes --config my.yaml --seeds 5             # your own config, unchanged, with five seeds
    python -m benchmarks.recipes --recipes tutorial windows --final     # on test rows: once, at the end
    python -m benchmarks.recipes --recipes tutorial windows --table     # trains nothing, shows what was measured

    make bench-equivalence                                              # accuracy and loss curves beside the Trainer's

Each run is `python -m src fit` with the recipe's options in its own process, then `validate`, or `test` with --final.
Validation rows are for development. The final weights are evaluated, so no checkpoint is chosen on the rows that judge.
runs.csv has one line per run, with the rows that were answered correctly. A stopped program continues, and more seeds
add only what is new. Checkpoints stay in build/bench/runs, 90 MB each, so --final does not train again. To
measure again, for example after a change of the code, delete the lines and that folder.
"""

import argparse
import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.processes import ROOT, WORK
from benchmarks.recipes.finetune import Outcome, append_row, evaluate, read_rows, run_peer, train
from benchmarks.recipes.page import DEFINITIONS, PLOTS, render
from benchmarks.recipes.stats import pack
from benchmarks.report import command_line, write_section

LIST = Path(__file__).with_name("recipes.yaml")
PAGE = ROOT / "docs" / "experiments" / "recipes.md"


@dataclass(frozen=True)
class Run:
    """One run: a recipe with a number of labels and a seed.

    Attributes:
        labels: number of training rows; None leaves the config's.
        options: of `fit`, all of them.
        peer: the module of a peer's script, in place of `fit`.
    """

    recipe: str
    labels: int | None
    seed: int
    options: tuple[str, ...]
    peer: str | None = None

    def key(self, split: str, eval_rows: int | None) -> str:
        """A hash of all that changes the result, except the code and the content of model folders.

        Args:
            split: on which the run is evaluated, or "fit" for the training alone.
            eval_rows: number of validation rows, and of test rows.
        """
        options = [
            yaml.safe_load(Path(ROOT, option.removeprefix("--config=")).read_text())
            if option.startswith("--config=")
            else option
            for option in self.options
        ]
        facts = [self.peer, options, self.labels, self.seed, split, eval_rows]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def plan(
    recipes: Mapping[str, Any],
    base: Sequence[str],
    labels: Sequence[int | None],
    seeds: Sequence[int],
    names: Sequence[str] | None = None,
) -> list[Run]:
    """All runs of `recipes`, or of those in `names`, seed by seed, so that each recipe has a first figure early."""
    runs = []
    for seed in seeds:
        for n in labels:
            for name in recipes if names is None else names:
                recipe = recipes[name]
                peer = recipe.get("peer") if isinstance(recipe, dict) else None
                runs.append(Run(name, n, seed, (*base, *_options(name, recipes, n)), peer))
    return runs


def _options(name: str, recipes: Mapping[str, Any], labels: int | None) -> list[str]:
    recipe = recipes[name]
    if isinstance(recipe, list):
        return recipe
    before = _options(recipe["like"], recipes, labels) if "like" in recipe else []
    return [*before, *recipe.get("options", []), *recipe.get("labels", {}).get(labels, [])]


def execute(run: Run, split: str, eval_rows: int | None) -> Outcome:
    """Trains and evaluates. `eval_rows` are the validation rows, and as many test rows; None leaves the config's."""
    name = f"{run.recipe}-{run.labels or 'own'}-{run.seed}"
    if run.peer:
        assert run.labels is not None
        assert eval_rows is not None
        held_back = eval_rows if split == "val" else 0
        return run_peer(run.peer, run.labels, run.seed, eval_rows, held_back, WORK / "runs" / f"{name}-{split}")
    options = list(run.options)
    if run.labels is not None:
        options.append(f"--data.train_size={run.labels}")
    if eval_rows is not None:
        options += [f"--data.val_size={eval_rows}", f"--data.test_size={eval_rows}"]
    # named by the training alone: its checkpoint is evaluated on the other split too, if that is asked for later
    directory = WORK / "runs" / f"{name}-{run.key('fit', eval_rows)}"
    return evaluate(train(options, run.seed, directory), split)


# ---- the program -----------------------------------------------------------------------------------------------------


def main(args: Sequence[str] | None = None) -> None:
    given = _parse(args)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    if given.config:
        listed = {path.stem: [f"--config={path.resolve()}"] for path in given.config}
        base, retired, names, eval_rows = [], set(), None, given.eval_rows
        labels, baseline, title = given.labels or [None], next(iter(listed)), "Your recipes"
    else:
        content = yaml.safe_load(given.list.read_text())
        listed, base, baseline, title = content["recipes"], content["base"], content["baseline"], "Recipes"
        labels, eval_rows = given.labels or [100, 1000, 5000], given.eval_rows or 2000
        retired = set(given.recipes or content.get("retired", [])) - listed.keys()
        names = given.recipes and [name for name in given.recipes if name in listed]
    baseline, title = given.baseline or baseline, given.title or title

    split = "test" if given.final else "val"
    runs = plan(listed, base, labels, seeds, names)
    if not given.table:
        _measure(runs, given.csv, split, eval_rows)

    planned = {run.key(split, eval_rows) for run in runs}
    scope = {(split, str(n), str(seed)) for n in labels for seed in seeds}
    rows = [
        row
        for row in read_rows(given.csv)
        if row["key"] in planned or (row["recipe"] in retired and (row["split"], row["labels"], row["seed"]) in scope)
    ]
    if not rows:
        sys.exit("error: nothing of that is measured yet")
    text = f"## {title}, on {'test' if given.final else 'validation'} rows\n\n{render(rows, baseline)}\n\n{DEFINITIONS}"
    if given.plot and given.section:
        picture = ROOT / "docs" / "pictures" / f"{given.section}.png"
        PLOTS[given.plot](rows, picture)
        text += f"\n\n![{given.plot}]({os.path.relpath(picture, given.page.parent)})"
    text += f"\n\n{command_line('benchmarks.recipes', args)}, from runs.csv."
    print("\n" + text)
    if given.section:
        write_section(given.page, given.section, text)
        print(f"\nWritten to {given.page}")


def _measure(runs: Sequence[Run], path: Path, split: str, eval_rows: int | None) -> None:
    """Executes the runs that have no line in the csv yet, and adds a line for each."""
    done = {row["key"] for row in read_rows(path)}
    todo = [run for run in runs if run.key(split, eval_rows) not in done]
    started = time.monotonic()
    for i, run in enumerate(todo):
        left = f", about {timedelta(seconds=int((time.monotonic() - started) / i * (len(todo) - i)))} left" if i else ""
        labels = run.labels or "its own"
        print(f"[{i + 1}/{len(todo)}] {run.recipe}, {labels} labels, seed {run.seed}{left}", flush=True)
        outcome = execute(run, split, eval_rows)
        row = {
            "key": run.key(split, eval_rows),
            "recipe": run.recipe,
            "labels": run.labels or "",
            "seed": run.seed,
            "split": split,
            "n": len(outcome.correct),
            "accuracy": f"{outcome.correct.mean():.6f}",
            "loss": "" if outcome.loss is None else f"{outcome.loss:.6f}",
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
            "correct": pack(outcome.correct),
            "curve": json.dumps([[step, round(loss, 4)] for step, loss in outcome.curve]),
            "options": run.peer or shlex.join(run.options),
        }
        append_row(path, row)
        print(f"    accuracy {outcome.correct.mean():.4f}", flush=True)


def _parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="of the list (default: all)")
    parser.add_argument("--list", type=Path, default=LIST, help="of recipes (default: that of this folder)")
    parser.add_argument("--config", type=Path, nargs="+", help="your own configs, in place of the list's recipes")
    parser.add_argument("--baseline", help="the recipe that the others are compared with (default: the list's)")
    parser.add_argument("--labels", type=int, nargs="+", help="default: 100 1000 5000; with --config, the config's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first_seed", type=int, default=42)
    parser.add_argument("--eval_rows", type=int, help="default: 2000; with --config, the config's")
    parser.add_argument("--final", action="store_true", help="evaluate on the test rows")
    parser.add_argument("--table", action="store_true", help="train nothing: show what was measured")
    parser.add_argument("--csv", type=Path, help="default: runs.csv of this folder; with --config, below build/")
    parser.add_argument("--section", metavar="NAME", help="write the table to this section of the page")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: docs/experiments/recipes.md")
    parser.add_argument("--title", help="of the section")
    parser.add_argument("--plot", choices=PLOTS, help="draw a picture for the section")
    given = parser.parse_args(args)
    given.csv = given.csv or (WORK / "runs.csv" if given.config else LIST.with_name("runs.csv"))
    if missing := [str(path) for path in given.config or [] if not path.is_file()]:
        parser.error(f"no such config: {', '.join(missing)}")
    if given.config and given.recipes:
        parser.error("--recipes are those of a list; --config takes a config unchanged")
    if not given.config:
        content = yaml.safe_load(given.list.read_text())
        known = {*content["recipes"], *content.get("retired", [])}
        if unknown := {*(given.recipes or []), *filter(None, [given.baseline])} - known:
            parser.error(f"no such recipe in {given.list}: {', '.join(sorted(unknown))}")
    return given


if __name__ == "__main__":
    main()
