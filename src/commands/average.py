"""`python -m src average`: one classifier from several runs, the mean of their weights.

Fine-tuned from the same pretrained weights, networks lie in one basin, and the mean of their weights errs less than
each does (Wortsman et al. 2022, "Model soups", arXiv 2203.05482). It costs the trainings, and nothing in prediction.
"""

import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentError, ArgumentParser

from src.data.base import differences
from src.runs import folders
from src.runs.reading import read_checkpoint
from src.runs.writing import DurableCheckpointIO
from src.system.errors import Interrupted, UsageError, UserError, one_line, tell
from src.system.signals import interrupted_by_signals

_DESCRIPTION = """\
Averages the weights of runs that were fine-tuned from the same pretrained weights, with several seeds, say. The result
is a new run: `test --ckpt_path best` tests it, `predict` and `export` take it as any other. With 100 labels it is
better than the runs are: docs/results.md.
"""

# what must be the same in all: how a text is read, what the weights were, and which rows judge them
_READING = ("tokenizer", "max_length", "truncation", "labels")
_BEGINNING = ("model_name_or_path", "pooling")
_ROWS = ("dataset", "revision", "where", "text_column", "label_column", "val_size", "test_size", "subset_seed")
_CHANGES_NO_WEIGHT = ("dropout", "transformers_version")  # in the name of an entry of the configuration

_WEIGHTS = "model."  # beside them, a state has the sums of metrics
_LEFT_OUT = ("optimizer_states", "lr_schedulers", "loops", "step_means", "epoch_means")


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
    try:
        paths = [_checkpoint(name, options.checkpoint) for name in options.runs]
    except (OSError, RuntimeError) as error:  # a name that is too long, a home that is nobody's
        raise UserError(f"the runs cannot be read: {one_line(error)}") from error
    if twice := {path for path in paths if paths.count(path) > 1}:
        raise UserError(f"{folders.shown(twice.pop())} is named twice")
    checkpoints = [read_checkpoint(path) for path in paths]
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        _check_alike(checkpoints[0], checkpoint, paths[0], path)
    config = next((file for path in paths if (file := folders.run_of(path) / folders.CONFIG).is_file()), None)
    if config is None:
        raise UserError(
            f"{folders.shown(paths[0])} lies in no run's directory, whose {folders.CONFIG} would tell its data"
        )
    names = [folders.shown(path) for path in paths]
    run = folders.next_run(Path(options.default_root_dir).expanduser().absolute())
    _write(run, averaged(checkpoints, names), config)
    made = folders.shown(run / folders.BEST)
    print(f"The mean of {len(paths)} checkpoints: {made}")
    print(f"Evaluate it:     python -m src validate --ckpt_path {made}")
    print(f"Test it:         python -m src test --ckpt_path {made}")


def _checkpoint(name: str, kind: str) -> Path:
    """The file that a run's directory stands for, or the file itself."""
    path = Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    wanted = [folders.BEST, folders.LAST] if kind == "best" else [folders.LAST]
    if found := next((path / file for file in wanted if (path / file).is_file()), None):
        return found.resolve()
    if path.is_dir():
        raise UserError(f"{name} has no {' or '.join(map(str, wanted))}")
    raise UserError(f"there is no run {name!r}")


def _check_alike(first: Mapping[str, Any], other: Mapping[str, Any], first_path: Path, path: Path) -> None:
    """Raises UserError where the mean of the two would mean nothing, or be judged by rows that one has learned from."""
    if "classifier" not in other:
        raise UserError(f"{folders.shown(path)} is no checkpoint of a BertClassifier")
    if folders.AVERAGE_OF_KEY in other:
        raise UserError(f"{folders.shown(path)} is a mean itself: name the runs that it is of")
    pair = f"{folders.shown(first_path)} and {folders.shown(path)} cannot be averaged"
    if changed := [name for name in _READING if first["classifier"][name] != other["classifier"][name]]:
        raise UserError(f"{pair}: they differ in {', '.join(changed)}")
    if changed_words := differences(_facts(first), _facts(other)):
        raise UserError(f"{pair}: {changed_words}")
    if _shapes(first) != _shapes(other):
        raise UserError(f"{pair}: their weights differ in name or shape")


def _facts(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same, by the option's name."""
    model = checkpoint.get("hyper_parameters", {})
    data = checkpoint.get("datamodule_hyper_parameters", {})
    network = checkpoint["classifier"]["config"]
    return (
        {f"model.{name}": model.get(name) for name in _BEGINNING}
        | {f"data.{name}": data.get(name) for name in _ROWS}
        | {name: value for name, value in network.items() if not any(word in name for word in _CHANGES_NO_WEIGHT)}
    )


def _shapes(checkpoint: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in checkpoint["state_dict"].items() if name.startswith(_WEIGHTS)}


def averaged(checkpoints: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The first checkpoint with the mean of all their weights, in fp32, without what training would go on from.

    Args:
        checkpoints: of the same architecture.
        names: of them, to be kept on record.
    """
    weights = dict(checkpoints[0]["state_dict"])
    for name, value in weights.items():
        if name.startswith(_WEIGHTS) and value.is_floating_point():
            each = torch.stack([checkpoint["state_dict"][name].double() for checkpoint in checkpoints])
            weights[name] = each.mean(dim=0).float()
    none = torch.empty(0, dtype=torch.int64)
    read = np.concatenate([checkpoint["classifier"].get("texts", none).numpy() for checkpoint in checkpoints])
    texts = torch.from_numpy(np.unique(read.view(np.uint64)).view(np.int64))
    kept = {name: value for name, value in checkpoints[0].items() if name not in _LEFT_OUT}
    return kept | {
        "state_dict": weights,
        "classifier": checkpoints[0]["classifier"] | {"texts": texts},
        "callbacks": {},
        folders.FINISHED_KEY: True,
        folders.AVERAGE_OF_KEY: list(names),
    }


def _write(run: Path, checkpoint: dict[str, Any], config: Path) -> None:
    """Makes the run, whole or not at all: the checkpoint, and the config of a run that it is of."""
    unfinished = run.with_name(f".{run.name}.{uuid.uuid4().hex[:8]}.tmp")
    said = "".join(f"#   {name}\n" for name in checkpoint[folders.AVERAGE_OF_KEY])
    try:
        unfinished.mkdir(parents=True)
        text = f"# The mean of the weights of these runs, one of which was trained with what follows:\n{said}\n"
        (unfinished / folders.CONFIG).write_text(text + config.read_text("utf-8"), "utf-8")
        DurableCheckpointIO().save_checkpoint(checkpoint, unfinished / folders.BEST)
        unfinished.rename(run)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{run} could not be written: {getattr(error, 'strerror', None) or one_line(error)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
