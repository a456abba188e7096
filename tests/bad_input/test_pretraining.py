"""Mistakes in the options of pre-training."""

from collections.abc import Callable

import pytest

from tests.bad_input.world import MISTAKE, USAGE, Cases, World


def _pretrain(*options: str) -> Callable[[World], list[str]]:
    return lambda w: ["fit", *w.pretraining, *options]


def _held_out(text: str) -> Callable[[World], list[str]]:
    return lambda w: ["fit", *w.pretraining, f"--data.held_out=[{w.file('held_out.yaml', text)}]"]


CASES: Cases = {
    "a split that is not there": (_pretrain("--data.split=unsupervised"), MISTAKE, ["'unsupervised'", "data.split"]),
    "no room in a sequence": (_pretrain("--data.sequence_length=3"), MISTAKE, ["data.sequence_length is 3"]),
    "longer than the model": (_pretrain("--data.sequence_length=512"), MISTAKE, ["at most 128 tokens"]),
    "nothing to guess": (_pretrain("--data.mask_rate=0"), MISTAKE, ["data.mask_rate is 0.0"]),
    "no other review": (_pretrain("--data.val_size=1"), MISTAKE, ["two reviews at least for validation"]),
    "held out by nothing": (_pretrain("--data.held_out=[no.yaml]"), MISTAKE, ["data.held_out: no.yaml"]),
    "held out by no fine-tuning": (
        _held_out("data: {class_path: PretrainingDataModule}"),
        MISTAKE,
        ["held_out.yaml are not those of a fine-tuning"],
    ),
    "held out by no config": (_held_out("trainer: {}"), MISTAKE, ["is no configuration of a fine-tuning"]),
    "heads that cannot share": (
        _pretrain("--model.from_scratch={hidden_size: 16, layers: 1, heads: 3}"),
        MISTAKE,
        ["hidden_size is 16", "3 heads"],
    ),
    "no layers": (
        _pretrain("--model.from_scratch={hidden_size: 16, layers: 0, heads: 2}"),
        MISTAKE,
        ["layers is 0"],
    ),
    "too few words": (
        _pretrain("--model.from_scratch={hidden_size: 16, layers: 1, heads: 2, vocab_size: 9}"),
        MISTAKE,
        ["vocab_size is 9"],
    ),
    "sizes that say too little": (
        _pretrain("--model.from_scratch={hidden_size: 16, layers: 1}"),
        USAGE,
        ["from_scratch", "heads"],
    ),
    "a classifier on sequences": (_pretrain("--model=BertClassifier"), MISTAKE, ["learns from reviews", "sequences"]),
    "a pre-training on labels": (_pretrain("--data=ImdbDataModule"), MISTAKE, ["learns from sequences", "reviews"]),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(expect_one_line: Callable[..., None], name: str) -> None:
    expect_one_line(*CASES[name])
