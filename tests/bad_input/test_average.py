"""Runs whose weights cannot be averaged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bad_input.world import MISTAKE, USAGE, Cases, World


def _with(change: Callable[[dict[str, Any]], object]) -> Callable[[World], list[str]]:
    """The mean of the checkpoint and of one like it to which `change` was done."""
    return lambda w: ["average", str(w.checkpoint), str(w.altered("other.ckpt", change))]


CASES: Cases = {
    "one run": (lambda w: ["average", str(w.checkpoint)], USAGE, ["average takes two runs or more"]),
    "no run": (lambda _: ["average"], USAGE, ["runs"]),
    "an option that is none": (
        lambda w: ["average", str(w.checkpoint), str(w.checkpoint), "--seed=1"],
        USAGE,
        ["--seed"],
    ),
    "the same run twice": (
        lambda w: ["average", str(w.checkpoint), str(w.checkpoint.parents[1])],
        MISTAKE,
        ["best.ckpt is named twice"],
    ),
    "a run that is not there": (
        lambda w: ["average", str(w.checkpoint), "version_9"],
        MISTAKE,
        ["there is no run 'version_9'"],
    ),
    "a folder without checkpoints": (
        lambda w: ["average", str(w.checkpoint), str(w.model)],
        MISTAKE,
        ["has no checkpoints/best.ckpt or checkpoints/last.ckpt"],
    ),
    "a file that is no checkpoint": (
        lambda w: ["average", str(w.checkpoint), str(w.file("a.ckpt", "text"))],
        MISTAKE,
        ["a.ckpt is damaged, or no checkpoint"],
    ),
    "a pre-training": (
        _with(lambda content: content.update(pretrainer=content.pop("classifier"))),
        MISTAKE,
        ["other.ckpt is no checkpoint of a BertClassifier"],
    ),
    "other labels and another length": (
        _with(lambda content: content["classifier"].update(labels=["bad", "good"], max_length=32)),
        MISTAKE,
        ["cannot be averaged: they differ in max_length, labels"],
    ),
    "other rows to judge it by": (
        _with(lambda content: content["datamodule_hyper_parameters"].update(subset_seed=7, val_size=30)),
        MISTAKE,
        ["cannot be averaged: data.val_size was 24 and is 30; data.subset_seed was 42 and is 7"],
    ),
    "another network": (
        _with(lambda content: content["classifier"]["config"].update(num_hidden_layers=3)),
        MISTAKE,
        ["cannot be averaged: num_hidden_layers was 2 and is 3"],
    ),
    "a mean": (
        _with(lambda content: content.update(average_of=["a", "b"])),
        MISTAKE,
        ["other.ckpt is a mean itself: name the runs that it is of"],
    ),
    "a name that no file can have": (
        lambda w: ["average", str(w.checkpoint), "x" * 300],
        MISTAKE,
        ["the runs cannot be read: "],
    ),
    "files that lie in no run": (
        lambda w: ["average", *(str(w.altered(f"{name}.ckpt", lambda _: None)) for name in "ab")],
        MISTAKE,
        ["a.ckpt lies in no run's directory, whose config.yaml would tell its data"],
    ),
    "other pretrained weights": (
        _with(lambda content: content["hyper_parameters"].update(model_name_or_path="another-bert")),
        MISTAKE,
        ["cannot be averaged: model.model_name_or_path was ", " and is 'another-bert'"],
    ),
    "another top layer to begin with": (
        _with(lambda content: content["hyper_parameters"].update(pooling="mean")),
        MISTAKE,
        ["cannot be averaged: model.pooling was 'cls' and is 'mean'"],
    ),
    "weights that are missing": (
        _with(lambda content: content["state_dict"].pop("model.classifier.bias")),
        MISTAKE,
        ["cannot be averaged: their weights differ in name or shape"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(expect_one_line: Callable[..., None], name: str) -> None:
    expect_one_line(*CASES[name])


def test_a_place_that_cannot_be_written_is_named(
    world: World, run_cli: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    other = world.altered("other.ckpt", lambda _: None)
    status, _, err = run_cli("average", str(world.checkpoint), str(other), f"--default_root_dir={tmp_path / 'file'}")
    assert status == MISTAKE
    assert "could not be written: Not a directory" in err
