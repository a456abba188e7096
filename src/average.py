"""`python -m src average`: one classifier from several runs, the mean of their weights.

Fine-tuned from the same pretrained weights, networks lie in one basin, and the mean of their weights errs less than
each does (Wortsman et al. 2022, "Model soups", arXiv 2203.05482). It costs the trainings, and nothing in prediction.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser

from src import runs
from src.checkpoint_reading import read_checkpoint
from src.errors import Interrupted, UsageError, UserError, tell
from src.signals import interrupted_by_signals

_DESCRIPTION = """\
Averages the weights of runs that were fine-tuned from the same pretrained weights, with several seeds, say. The result
is a new run: `test --ckpt_path best` tests it, `predict` and `export` take it as any other. With few labels it is
better than the runs are: docs/results.md.
"""

_SAME = ("config", "tokenizer", "max_length", "truncation", "labels")
_WEIGHTS = "model."  # beside them, a state has the sums of metrics
_LEFT_OUT = ("optimizer_states", "lr_schedulers", "callbacks", "loops", "step_means", "epoch_means")


def main(args: list[str]) -> int:
    """Runs `average ARGS` and returns its exit status."""
    try:
        options = _parse(args)
        with interrupted_by_signals():
            _average(options)
    except (UserError, Interrupted) as error:
        return tell(error)
    return 0


def _parse(args: list[str]) -> Any:
    parser = ArgumentParser(
        prog="python -m src average", description=_DESCRIPTION, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("runs", nargs="+", help="directories of runs, as lightning_logs/version_0, or checkpoint files")
    parser.add_argument(
        "--checkpoint",
        choices=["best", "last"],
        default="best",
        help="of each run; `best` takes the last of a run that validated nothing",
    )
    parser.add_argument("--default_root_dir", default=".", help="where lightning_logs/ gets the new run")
    try:
        options = parser.parse_args(args)
    except ArgumentError as error:
        raise UsageError(str(error)) from error
    if len(options.runs) < 2:
        raise UsageError("average takes two runs or more")
    return options


def _average(options: Any) -> None:
    paths = [_checkpoint(name, options.checkpoint) for name in options.runs]
    if twice := {path for path in paths if paths.count(path) > 1}:
        raise UserError(f"{runs.shown(twice.pop())} is named twice")
    checkpoints = [read_checkpoint(path) for path in paths]
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        _check_alike(checkpoints[0], checkpoint, paths[0], path)
    run = runs.next_run(Path(options.default_root_dir).expanduser().absolute())
    target = run / runs.BEST
    _write(run, averaged(checkpoints, [runs.shown(path) for path in paths]), runs.run_of(paths[0]) / runs.CONFIG)
    print(f"The mean of {len(paths)} checkpoints: {runs.shown(target)}")
    print(f"Evaluate it:     python -m src validate --ckpt_path {runs.shown(target)}")
    print(f"Test it:         python -m src test --ckpt_path {runs.shown(target)}")


def _checkpoint(name: str, kind: str) -> Path:
    """The file that a run's directory stands for, or the file itself."""
    path = Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    wanted = [runs.BEST, runs.LAST] if kind == "best" else [runs.LAST]
    if found := next((path / file for file in wanted if (path / file).is_file()), None):
        return found.resolve()
    if path.is_dir():
        raise UserError(f"{name} has no {' or '.join(map(str, wanted))}")
    raise UserError(f"there is no run {name!r}")


def _check_alike(first: Mapping[str, Any], other: Mapping[str, Any], first_path: Path, path: Path) -> None:
    """Raises UserError where the mean of the two would mean nothing."""
    if "classifier" not in other:
        raise UserError(f"{runs.shown(path)} is no checkpoint of a BertClassifier")
    pair = f"{runs.shown(first_path)} and {runs.shown(path)}"
    ours, theirs = first["classifier"], other["classifier"]
    if different := [name for name in _SAME if ours[name] != theirs[name]]:
        raise UserError(f"{pair} cannot be averaged: they differ in {', '.join(different)}")
    if _shapes(first) != _shapes(other):
        raise UserError(f"{pair} cannot be averaged: their weights differ in name or shape")
    for name in ("model_name_or_path", "pooling"):
        before, now = (content["hyper_parameters"].get(name) for content in (first, other))
        if before != now:
            raise UserError(f"{pair} cannot be averaged: model.{name} was {before} and {now}, so they began apart")


def _shapes(checkpoint: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in checkpoint["state_dict"].items() if name.startswith(_WEIGHTS)}


def averaged(checkpoints: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The first checkpoint with the mean of all their weights, without what training would go on from.

    Args:
        checkpoints: of the same architecture.
        names: of them, to be kept on record.
    """
    weights = dict(checkpoints[0]["state_dict"])
    for name, value in weights.items():
        if name.startswith(_WEIGHTS) and value.is_floating_point():
            each = torch.stack([checkpoint["state_dict"][name].double() for checkpoint in checkpoints])
            weights[name] = each.mean(dim=0).to(value.dtype)
    none = torch.empty(0, dtype=torch.int64)
    read = torch.cat([checkpoint["classifier"].get("texts", none) for checkpoint in checkpoints]).unique()
    kept = {name: value for name, value in checkpoints[0].items() if name not in _LEFT_OUT}
    return kept | {
        "state_dict": weights,
        "classifier": checkpoints[0]["classifier"] | {"texts": read},
        "callbacks": {},
        runs.FINISHED_KEY: True,
        runs.AVERAGE_OF_KEY: list(names),
    }


def _write(run: Path, checkpoint: dict[str, Any], config: Path) -> None:
    """Makes the run: the checkpoint, and the config of the first of those averaged, without which `test` needs one."""
    from src.checkpoints import DurableCheckpointIO

    try:
        run.mkdir(parents=True)
        if config.is_file():
            said = "".join(f"# {name}\n" for name in checkpoint[runs.AVERAGE_OF_KEY])
            unfinished = run / f".{runs.CONFIG}.tmp"
            unfinished.write_text(f"# the mean of the weights of these, the first of which was trained so:\n{said}\n")
            with unfinished.open("a") as stream:
                stream.write(config.read_text("utf-8"))
            os.replace(unfinished, run / runs.CONFIG)
    except FileExistsError:
        raise UserError(f"another run, started at the same time, has taken {run}: start again") from None
    except OSError as error:
        raise UserError(f"{run} could not be written: {error.strerror or error}") from error
    DurableCheckpointIO().save_checkpoint(checkpoint, run / runs.BEST)
