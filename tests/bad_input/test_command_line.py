"""Command lines and configs that the parser refuses."""

from collections.abc import Callable

import pytest

from tests.bad_input.world import MISTAKE, USAGE, Cases, World


def _yaml(text: str) -> Callable[[World], list[str]]:
    return lambda w: ["fit", "--config", str(w.file("bad.yaml", text)), *w.tiny]


_PREDICT = ["predict", "--ckpt_path=best", "--input=in.txt", "--output=out.csv"]

CASES: Cases = {
    "unknown subcommand": (lambda w: ["train", *w.tiny], USAGE, ["no command 'train'", "fit, validate, test"]),
    "config before the subcommand": (
        lambda _: ["--config", "configs/imdb.yaml", "fit"],
        USAGE,
        ["--config comes after the subcommand: python -m src fit --config"],
    ),
    "config without a name": (lambda _: ["fit", "--config"], USAGE, ["--config needs a value"]),
    "no such config": (lambda _: ["fit", "--config", "nowhere.yaml"], USAGE, ["nowhere.yaml"]),
    "malformed YAML": (_yaml("model: [1, 2\ndata: {"), USAGE, ["bad.yaml"]),
    "config that is a folder": (lambda w: ["fit", "--config", str(w.here), *w.tiny], USAGE, ["is no file"]),
    "config of other bytes": (
        lambda w: ["fit", "--config", str(w.file("bad.yaml", bytes([0xFF, 0xFE, 0x00]))), *w.tiny],
        USAGE,
        ["bad.yaml is no YAML that can be read"],
    ),
    "YAML that is no mapping": (_yaml("just words"), USAGE, ["bad.yaml"]),
    "unknown key in YAML": (_yaml("trainer:\n  max_epoch: 3\n"), USAGE, ["max_epoch"]),
    "unknown option of ours in YAML": (
        _yaml("data:\n  class_path: ImdbDataModule\n  init_args:\n    max_len: 3\n"),
        USAGE,
        ["max_len"],
    ),
    "callback without what it needs": (
        _yaml("trainer:\n  callbacks: [EarlyStopping]\n"),
        USAGE,
        ["EarlyStopping': the following arguments are required: monitor ("],
    ),
    "unknown class": (_yaml("model:\n  class_path: BertClasifier\n"), USAGE, ["BertClasifier"]),
    "unknown option": (lambda w: w.fit("--data.max_len=3"), USAGE, ["max_len"]),
    "abbreviated option": (lambda w: w.fit("--trainer.max_epoch=3"), USAGE, ["max_epoch"]),
    "value of another type": (lambda w: w.fit("--data.max_length=long"), USAGE, ["max_length", "long"]),
    "number that is no integer": (
        lambda w: w.fit("--data.train_size=1e3"),
        USAGE,
        ["ImdbDataModule': Parser key \"train_size\": Expected a <class 'int'>. Got value: 1000.0 "],
    ),
    "truncation that is none": (lambda w: w.fit("--data.truncation=middle"), USAGE, ["truncation", "middle"]),
    "schedule that is none": (lambda w: w.fit("--model.schedule=wavy"), USAGE, ["schedule", "wavy"]),
    "score that is no probability": (lambda _: [*_PREDICT, "--min_score=90"], USAGE, ["--min_score is 90.0", "0 to 1"]),
    "score that is not a number": (lambda _: [*_PREDICT, "--min_score=nan"], USAGE, ["min_score", "nan"]),
    "score in words": (lambda _: [*_PREDICT, "--min_score=high"], USAGE, ["min_score", "high"]),
    "accelerator that is none": (lambda w: w.fit("--trainer.accelerator=abacus"), MISTAKE, ["abacus"]),
    "accelerator that is not there": (lambda w: w.fit("--trainer.accelerator=tpu"), MISTAKE, ["torch_xla"]),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(expect_one_line: Callable[..., None], name: str) -> None:
    expect_one_line(*CASES[name])
