"""Recipes × numbers of labels × seeds: the accuracy of each, its time, and whether it beats another.

    python -m benchmarks.recipes                                        # everything in benchmarks/recipes.yaml
    python -m benchmarks.recipes --recipes tutorial head_tail --labels 1000 --seeds 5
    python -m benchmarks.recipes --config my.yaml --seeds 5             # your own config, as it is, with five seeds
    python -m benchmarks.recipes --recipes tutorial short --final       # on the test rows: once, at the end
    python -m benchmarks.recipes --list benchmarks/pretrained.yaml      # what further pre-training brings

    make bench-equivalence                                              # the Trainer's accuracy and curves, and ours

Each run is `python -m src fit` with the recipe's options in a process of its own, then `validate`, or `test` with
--final. Validation rows are for development; the final weights are evaluated, so that nothing is chosen on the rows
that judge (`--checkpoint best` takes those that validated best, which is fair on test rows only). One line a run is
kept in benchmarks/runs.csv, with the rows that were right: a program that was stopped goes on, and a higher number of
seeds adds only what is new. The checkpoints stay in build/bench/runs, 90 MB each, so that --final need not train again
what validation rows have judged. To measure again, delete lines and that folder; so too after a change of the code.

Accuracies need no quiet machine. Two at once, each with a part of the recipes, `--untimed` and OMP_NUM_THREADS=1, take
less time than one after the other.
"""

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import RESULTS, ROOT, WORK, Progress, device, provenance, write_section
from benchmarks.finetune import (
    Outcome,
    Trained,
    append_row,
    evaluate,
    read_rows,
    run_peer,
    train,
)
from benchmarks.recipe_page import DEFINITIONS, plot_accuracies, plot_losses, render, with_several_labels
from benchmarks.stats import pack

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

    def key(self, split: str, checkpoint: str, eval_rows: int | None) -> str:
        """What makes it another run: all that changes its result but the code, and what folders of weights hold.

        `split` is what it is evaluated on, or "fit" for the training alone.
        """
        facts: list[Any] = [self.peer, self.options, self.labels, self.seed, split, checkpoint, eval_rows]
        for option in self.options:
            name, _, value = option.partition("=")
            if name == "--config":
                facts.append(yaml.safe_load(Path(ROOT, value).read_text()))
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def plan(
    recipes: Mapping[str, Any],
    base: Sequence[str],
    labels: Sequence[int | None],
    seeds: int,
    first_seed: int,
    names: Sequence[str] | None = None,
) -> list[Run]:
    """All runs of `recipes`, or of those in `names`, seed by seed, so that every recipe has a first figure early."""
    runs = []
    for seed in range(first_seed, first_seed + seeds):
        for n in labels:
            for name in names or recipes:
                runs.append(_run(name, recipes, base, n, seed))
    return runs


def _run(name: str, recipes: Mapping[str, Any], base: Sequence[str], labels: int | None, seed: int) -> Run:
    recipe = recipes[name] if isinstance(recipes[name], dict) else {}
    options = tuple(_options(name, recipes, base, labels))
    return Run(name, labels, seed, options, recipe.get("peer"))


def _options(name: str, recipes: Mapping[str, Any], base: Sequence[str], labels: int | None) -> list[str]:
    recipe = recipes[name]
    if not isinstance(recipe, dict):
        return [*base, *recipe]
    if "like" in recipe:
        assert "base" not in recipe, f"{name} is like another recipe, whose base it has"
        before: Sequence[str] = _options(recipe["like"], recipes, base, labels)
    else:
        before = recipe.get("base") or base
    return [*before, *(recipe.get("options") or []), *(recipe.get("labels") or {}).get(labels, [])]


def execute(run: Run, split: str, checkpoint: str, eval_rows: int | None, timed: bool) -> Outcome:
    """Runs one. `eval_rows` are the validation rows, and as many test rows; None leaves the config's."""
    if run.peer:
        assert run.labels is not None
        assert eval_rows is not None
        name = f"{run.recipe}-{run.labels}-{run.seed}-{split}"
        return run_peer(run.peer, run.labels, run.seed, (eval_rows, eval_rows if split == "val" else 0), name)
    return evaluate(_train(run, checkpoint, eval_rows, timed), split, checkpoint)


def _train(run: Run, checkpoint: str, eval_rows: int | None, timed: bool) -> Trained:
    options = list(run.options)
    if run.labels is not None:
        options.append(f"--data.train_size={run.labels}")
    if eval_rows is not None:
        options += [f"--data.val_size={eval_rows}", f"--data.test_size={eval_rows}"]
    # of the training alone: its checkpoint is evaluated on the other split too, if that is asked for later
    name = f"{run.recipe}-{run.labels or 'own'}-{run.seed}-{run.key('fit', checkpoint, eval_rows)}"
    return train(options, run.seed, checkpoint, name, timed)


# ---- the program -----------------------------------------------------------------------------------------------------


def main(args: Sequence[str] | None = None) -> None:
    given = _parse(args)
    labels: list[int | None] = list(given.labels or [None])
    eval_rows: int | None = given.eval_rows
    if given.config:
        listed = {path.stem: [f"--config={path.resolve()}"] for path in given.config}
        base, baseline, title = [], next(iter(listed)), "Your recipes"
    else:
        content = yaml.safe_load(given.list.read_text())
        listed, base, baseline, title = (content[key] for key in ("recipes", "base", "baseline", "title"))
        labels = given.labels or [100, 1000, 5000]
        eval_rows = eval_rows or 2000
    baseline, title = given.baseline or baseline, given.title or title

    split = "test" if given.final else "val"
    runs = plan(listed, base, labels, given.seeds, given.first_seed, given.recipes)
    todo = [] if given.table_only else _todo(runs, given.csv, split, given.checkpoint, eval_rows)
    progress = Progress(
        30 + 0.25 * (eval_rows or 500) * 0.4 + (run.labels or 1000) * _epochs(run) * 0.3 for run in todo
    )
    for run in todo:
        progress.start(f"{run.recipe}, {run.labels or 'its own'} labels, seed {run.seed}")
        outcome = execute(run, split, given.checkpoint, eval_rows, timed=not given.untimed)
        append_row(given.csv, _row(run, outcome, split, eval_rows, given))
        progress.end(f"accuracy {outcome.correct.mean():.4f}")

    # a run that another list has under another name is not made twice, and has this list's name here
    names = {run.key(split, given.checkpoint, eval_rows): run.recipe for run in runs}
    rows = [{**row, "recipe": names[row["key"]]} for row in read_rows(given.csv) if row["key"] in names]
    if not rows:
        sys.exit("error: nothing of that is measured yet")
    text = f"## {title}, on {'test' if given.final else 'validation'} rows\n\n{render(rows, baseline)}\n\n{DEFINITIONS}"
    page = not given.no_page and not given.config
    section = given.section or f"{given.list.stem}-{split}"
    if page and (given.curves or len(with_several_labels(rows)) > 1):
        picture = RESULTS.parent / "pictures" / f"{section}.png"
        (plot_losses if given.curves else plot_accuracies)(rows, picture)
        shown = "training loss by step" if given.curves else "accuracy by labels"
        text += f"\n\n![{shown}]({picture.relative_to(RESULTS.parent)})"
    command = shlex.join(["python", "-m", "benchmarks.recipes", *(sys.argv[1:] if args is None else args)])
    text += "\n\n" + provenance(command)
    print("\n" + text)
    if page:
        write_section(RESULTS, section, text)
        print(f"\nWritten to {RESULTS}")


def _parse(args: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="of the list (default: all)")
    parser.add_argument("--list", type=Path, default=LIST, help="of recipes (default: benchmarks/recipes.yaml)")
    parser.add_argument("--config", type=Path, nargs="+", help="your own configs, in place of the list's recipes")
    parser.add_argument("--baseline", help="the recipe that the others are compared with (default: the list's)")
    parser.add_argument("--labels", type=int, nargs="+", help="default: 100 1000 5000; with --config, what it says")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first_seed", type=int, default=42)
    parser.add_argument("--eval_rows", type=int, help="default: 2000; with --config, what it says")
    parser.add_argument("--checkpoint", choices=["last", "best"], default="last")
    parser.add_argument("--final", action="store_true", help="evaluate on the test rows")
    parser.add_argument("--table_only", action="store_true", help="run nothing: show what there is")
    parser.add_argument("--untimed", action="store_true", help="leave the time out: other programs run beside this one")
    parser.add_argument("--csv", type=Path, help="default: benchmarks/runs.csv; with --config, below build/")
    parser.add_argument("--curves", action="store_true", help="plot training losses, not accuracy by labels")
    parser.add_argument("--title", help="of the section (default: the list's)")
    parser.add_argument("--section", metavar="NAME", help="of docs/results.md to write (default: the list's)")
    parser.add_argument("--no_page", action="store_true", help="print the table, leave docs/results.md alone")
    given = parser.parse_args(args)
    given.csv = given.csv or (WORK / "runs.csv" if given.config else ROOT / "benchmarks" / "runs.csv")
    if missing := [str(path) for path in given.config or [] if not path.is_file()]:
        parser.error(f"no such config: {', '.join(missing)}")
    if given.config and given.recipes:
        parser.error("--recipes are those of a list; --config takes a config as it is")
    if not given.config:
        listed = yaml.safe_load(given.list.read_text())["recipes"]
        if unknown := {*(given.recipes or []), *filter(None, [given.baseline])} - listed.keys():
            parser.error(f"no such recipe in {given.list}: {', '.join(sorted(unknown))}")
    return given


def _row(run: Run, outcome: Outcome, split: str, eval_rows: int | None, given: argparse.Namespace) -> dict[str, Any]:
    return {
        "key": run.key(split, given.checkpoint, eval_rows),
        "recipe": run.recipe,
        "labels": "" if run.labels is None else run.labels,
        "seed": run.seed,
        "split": split,
        "n": len(outcome.correct),
        "accuracy": f"{outcome.correct.mean():.6f}",
        "loss": "" if outcome.loss is None else f"{outcome.loss:.6f}",
        "fit_s": "" if given.untimed or outcome.fit_s is None else f"{outcome.fit_s:.1f}",
        "device": device(),
        "correct": pack(outcome.correct),
        "curve": json.dumps([[step, round(loss, 4)] for step, loss in outcome.curve]),
        "options": run.peer or shlex.join(run.options),
    }


def _todo(runs: Sequence[Run], path: Path, split: str, checkpoint: str, eval_rows: int | None) -> list[Run]:
    done = {row["key"] for row in read_rows(path)}
    return [run for run in runs if run.key(split, checkpoint, eval_rows) not in done]


def _epochs(run: Run) -> int:
    given = [option.partition("=")[2] for option in run.options if option.startswith("--trainer.max_epochs=")]
    return int(given[-1]) if given else 3


if __name__ == "__main__":
    main()
