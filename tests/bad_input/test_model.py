"""Invalid model folders and model options."""

import os
from collections.abc import Callable

import pytest

from tests.bad_input.world import MISTAKE, USAGE, Cases

CASES: Cases = {
    "no such model on the Hub": (
        lambda w: w.fit("--model.model_name_or_path=someone/no-such-bert"),
        MISTAKE,
        ["'someone/no-such-bert'", "configs/quickstart.yaml"],
    ),
    "no such model folder": (
        lambda w: w.fit("--model.model_name_or_path=./nowhere"),
        MISTAKE,
        ["the model './nowhere'"],
    ),
    "model folder without a configuration": (
        lambda w: w.fit(w.altered_model(lambda folder: (folder / "config.json").unlink())),
        MISTAKE,
        ["has no config.json"],
    ),
    "model folder with a broken configuration": (
        lambda w: w.fit(w.altered_model(lambda folder: (folder / "config.json").write_text("{"))),
        MISTAKE,
        ["the configuration of", "altered-model", "cannot be read"],
    ),
    "model folder without weights": (
        lambda w: w.fit(w.altered_model(lambda folder: (folder / "model.safetensors").unlink())),
        MISTAKE,
        ["the weights of", "altered-model", "cannot be read"],
    ),
    "truncated weights": (
        lambda w: w.fit(w.altered_model(lambda folder: os.truncate(folder / "model.safetensors", 5000))),
        MISTAKE,
        ["the weights of", "altered-model", "cannot be read"],
    ),
    "model folder without a tokenizer": (
        lambda w: w.fit(
            w.altered_model(
                lambda folder: [p.unlink() for p in folder.iterdir() if "token" in p.name or "vocab" in p.name]
            )
        ),
        MISTAKE,
        ["the tokenizer of", "altered-model", "there is no vocabulary in it"],
    ),
    "tokenizer of another model": (
        lambda w: w.fit(
            w.altered_model(
                lambda folder: (folder / "config.json").write_text(
                    (folder / "config.json").read_text().replace('"vocab_size": ', '"vocab_size": 1, "was": ')
                )
            )
        ),
        MISTAKE,
        ["tokens, but the network has embeddings for 1: "],
    ),
    "dropout over 1": (lambda w: w.fit("--model.hidden_dropout=1.5"), MISTAKE, ["model.hidden_dropout is 1.5"]),
    "a figure that no validation gives": (
        lambda w: w.fit("--model.monitor=val/macro_f1"),
        MISTAKE,
        ["model.monitor is 'val/macro_f1'", "val/balanced_accuracy", "val/f1"],
    ),
    "LoRA of rank 0": (
        lambda w: w.fit("--model.lora={rank: 0, alpha: 16}"),
        MISTAKE,
        ["model.lora: rank is 0; it must be 1 or more"],
    ),
    "LoRA with a negative alpha": (
        lambda w: w.fit("--model.lora={rank: 8, alpha: -1}"),
        MISTAKE,
        ["model.lora: alpha is -1.0; it must be positive"],
    ),
    "LoRA without alpha": (lambda w: w.fit("--model.lora={rank: 8}"), USAGE, ['"lora": ']),
    "LoRA with another option": (lambda w: w.fit("--model.lora={rank: 8, alpha: 1, r: 2}"), USAGE, ['"lora": ']),
    "LoRA that is a number": (lambda w: w.fit("--model.lora=8"), USAGE, ['"lora": ']),
    "class weights of no kind": (lambda w: w.fit("--model.class_weights=rare"), USAGE, ["class_weights"]),
    "a class without a weight": (
        lambda w: w.fit("--model.class_weights={pos: 2}"),
        MISTAKE,
        ["model.class_weights has no number for the label 'neg'"],
    ),
    "a weight for no class": (
        lambda w: w.fit("--model.class_weights={neg: 1, pos: 2, mixed: 3}"),
        MISTAKE,
        ["model.class_weights names what is no label: 'mixed'; the labels are neg, pos"],
    ),
    "a negative weight": (
        lambda w: w.fit("--model.class_weights={neg: 1, pos: -2}"),
        MISTAKE,
        ["the weight of 'pos' is -2.0"],
    ),
    "learning rate of 0": (lambda w: w.fit("--model.learning_rate=0"), MISTAKE, ["model.learning_rate is 0.0"]),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(expect_one_line: Callable[..., None], name: str) -> None:
    expect_one_line(*CASES[name])
