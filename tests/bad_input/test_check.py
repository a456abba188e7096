"""Mistakes in the command line of `check`."""

from collections.abc import Callable

import pytest

from tests.bad_input.world import MISTAKE, USAGE, Cases

CASES: Cases = {
    "misspelt option": (
        lambda w: ["check", *w.tiny, "--data.trian_size=3"],
        USAGE,
        ["did you mean --data.train_size?"],
    ),
    "a checkpoint": (lambda w: ["check", *w.tiny, "--ckpt_path=best"], USAGE, ["`check` takes no --ckpt_path"]),
    "output without a value": (lambda w: ["check", *w.tiny, "--output"], USAGE, ["--output needs a value"]),
    "output is a folder": (lambda w: ["check", *w.tiny, f"--output={w.here}"], USAGE, ["is a folder: name a file"]),
    "output below a file": (
        lambda w: ["check", *w.tiny, f"--output={w.file('there')}/check.json"],
        MISTAKE,
        ["check.json cannot be written: ", "there is no folder"],
    ),
    "a pre-training": (lambda w: ["check", *w.pretraining], USAGE, ["are those of a pre-training"]),
    "no such data set": (
        lambda w: ["check", *w.tiny, "--data.dataset=nowhere.csv"],
        MISTAKE,
        ["'nowhere.csv' does not exist"],
    ),
    "no such model": (
        lambda w: ["check", *w.tiny, "--model.model_name_or_path=./nowhere"],
        MISTAKE,
        ["'./nowhere' does not exist"],
    ),
    "several labels a text": (
        lambda w: [
            "check",
            *w.tiny,
            w.reviews(lambda f: f.insert(0, "tags", "a;b")),
            "--data.label_column=tags",
            "--data.label_separator=;",
        ],
        MISTAKE,
        ["`check` looks at texts with one label each"],
    ),
    "texts that are none": (
        lambda w: [
            "check",
            *w.tiny,
            w.reviews(lambda f: f.insert(0, "n", range(200)), ".parquet"),
            "--data.text_column=n",
        ],
        MISTAKE,
        ["holds no text but int"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(expect_one_line: Callable[..., None], name: str) -> None:
    expect_one_line(*CASES[name])
