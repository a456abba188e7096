"""Mistakes end with one line that says what is wrong, the exit status that belongs to it, and nothing half-written."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import write_reviews
from tests.models.families import save_distilbert
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class World:
    """What a mistake is made with.

    Attributes:
        here: the folder that the command runs in.
        tiny: options of a command line that is right.
        pretraining: the same for a pre-training.
        model: the folder of the tiny model.
        checkpoint: the best.ckpt of a finished run.
    """

    here: Path
    tiny: list[str]
    pretraining: list[str]
    model: Path
    checkpoint: Path

    def fit(self, *options: str) -> list[str]:
        return ["fit", *self.tiny, *options]

    def reviews(self, change: Callable[[pd.DataFrame], object], suffix: str = ".csv") -> str:
        """An option for a file of 200 reviews to which `change` was done."""
        frame = synthetic_reviews(200)
        change(frame)
        return f"--data.dataset={write_reviews(self.here / f'changed{suffix}', frame)}"

    def file(self, name: str, content: str | bytes = "") -> Path:
        path = self.here / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def altered(self, name: str, change: Callable[[dict[str, Any]], object]) -> Path:
        """A checkpoint to whose content `change` was done."""
        content = torch.load(self.checkpoint, weights_only=True)
        change(content)
        torch.save(content, self.here / name)
        return self.here / name

    def altered_model(self, change: Callable[[Path], object]) -> str:
        """An option for a copy of the model's folder to which `change` was done."""
        folder = self.here / "altered-model"
        folder.mkdir()
        for file in self.model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        change(folder)
        return f"--model.model_name_or_path={folder}"


@pytest.fixture
def world(
    tmp_path: Path, tiny_options: list[str], tiny_pretraining: list[str], tiny_bert: Path, tiny_checkpoint: Path
) -> World:
    once = "--trainer.max_epochs=1"
    return World(tmp_path, [*tiny_options, once], [*tiny_pretraining, once], tiny_bert, tiny_checkpoint)


class _Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(Path.cwd() / "payload-ran"),)


def _blank(frame: pd.DataFrame) -> None:
    """Three texts of the training subset's, whose row numbers are known."""
    frame.loc[np.random.default_rng(42).permutation(200)[[0, 20, 40]], "text"] = ["", "   ", None]


_BLANK_ROWS = ", ".join(map(str, sorted(np.random.default_rng(42).permutation(200)[[0, 20, 40]].tolist())))


def _unknown_label_in_test(w: World) -> str:
    folder = w.here / "splits"
    folder.mkdir()
    write_reviews(folder / "train.csv", synthetic_reviews(200))
    write_reviews(folder / "test.csv", synthetic_reviews(40).assign(label="mixed"))
    return f"--data.dataset={folder}"


def _without_train(w: World) -> str:
    folder = w.here / "splits"
    folder.mkdir()
    write_reviews(folder / "test.csv", synthetic_reviews(40))
    return f"--data.dataset={folder}"


def _unlabelled(w: World) -> str:
    """As the Hub marks rows without a label: -1 in a ClassLabel column."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    frame = synthetic_reviews(200).assign(label=-1)
    saved = datasets.DatasetDict(train=datasets.Dataset.from_pandas(frame, features=features))
    saved.save_to_disk(str(w.here / "unlabelled"))
    return f"--data.dataset={w.here / 'unlabelled'}"


def _distilbert(w: World) -> Path:
    """A checkpoint whose weights belong to another network than it says."""
    folder = w.here / "distilbert"
    folder.mkdir()
    save_distilbert(folder, w.model / "vocab.txt")
    from transformers import AutoModel

    return w.altered(
        "other.ckpt", lambda content: content.update(state_dict=AutoModel.from_pretrained(folder).state_dict())
    )


def _pretrain(*options: str) -> Callable[[World], list[str]]:
    return lambda w: ["fit", *w.pretraining, *options]


def _held_out(text: str) -> Callable[[World], list[str]]:
    return lambda w: ["fit", *w.pretraining, f"--data.held_out=[{w.file('held_out.yaml', text)}]"]


def _yaml(text: str) -> Callable[[World], list[str]]:
    return lambda w: ["fit", "--config", str(w.file("bad.yaml", text)), *w.tiny]


def _ckpt(make: Callable[[World], object], *options: str, command: str = "test") -> Callable[[World], list[str]]:
    return lambda w: [
        command,
        "--config",
        str(w.checkpoint.parents[1] / "config.yaml"),
        *options,
        "--ckpt_path",
        str(make(w)),
    ]


USAGE, MISTAKE = 2, 1

CASES: dict[str, tuple[Callable[[World], list[str]], int, list[str]]] = {
    # ---- data
    "no such dataset": (
        lambda w: w.fit("--data.dataset=someone/no-such-reviews"),
        MISTAKE,
        ["'someone/no-such-reviews'", "configs/quickstart.yaml"],
    ),
    "no such file": (lambda w: w.fit("--data.dataset=nowhere/reviews.csv"), MISTAKE, ["'nowhere/reviews.csv'"]),
    "no such folder": (lambda w: w.fit("--data.dataset=./nowhere"), MISTAKE, ["'./nowhere' does not exist"]),
    "no such package": (
        lambda w: w.fit("--data.dataset=package://no_such_package/x.csv"),
        MISTAKE,
        ["'no_such_package' is not installed", "pip install"],
    ),
    "file of an unknown kind": (
        lambda w: w.fit(f"--data.dataset={w.file('reviews.xlsx')}"),
        MISTAKE,
        ["no file of a known kind", ".csv"],
    ),
    "empty file": (lambda w: w.fit(f"--data.dataset={w.file('empty.csv')}"), MISTAKE, ["empty.csv", "cannot be read"]),
    "a table that is none": (
        lambda w: w.fit(f"--data.dataset={w.file('broken.jsonl', '{')}"),
        MISTAKE,
        ["broken.jsonl", "cannot be read"],
    ),
    "bytes that are no text": (
        lambda w: w.fit(f"--data.dataset={w.file('latin.csv', b'text,label' + bytes([10, 0xE9, 0xFF, 44, 49, 10]))}"),
        MISTAKE,
        ["latin.csv", "cannot be read"],
    ),
    "truncated parquet": (
        lambda w: w.fit(f"--data.dataset={w.file('short.parquet', b'PAR1 and no more')}"),
        MISTAKE,
        ["short.parquet", "cannot be read"],
    ),
    "no such text column": (
        lambda w: w.fit("--data.text_column=review"),
        MISTAKE,
        ["has no column 'review' (its columns: text, label)"],
    ),
    "no such label column": (
        lambda w: w.fit("--data.label_column=stars"),
        MISTAKE,
        ["has no column 'stars' (its columns: text, label)"],
    ),
    "no such column in where": (lambda w: w.fit("--data.where={source: imdb}"), MISTAKE, ["has no column 'source'"]),
    "where that no row has": (
        lambda w: w.fit("--data.where={label: meh}"),
        MISTAKE,
        ["no row of the split 'train' has label = 'meh'"],
    ),
    "text column of numbers": (
        lambda w: w.fit(w.reviews(lambda f: f.insert(0, "n", range(200))), "--data.text_column=n"),
        MISTAKE,
        ["the column 'n' of the split 'train' holds no text but int"],
    ),
    "labels neither integer nor string": (
        lambda w: w.fit(
            w.reviews(lambda f: f.insert(0, "half", [i / 2 for i in range(200)])), "--data.label_column=half"
        ),
        MISTAKE,
        ["the label column 'half' holds", "must be integers or strings"],
    ),
    "missing labels": (
        lambda w: w.fit(w.reviews(lambda f: f.loc.__setitem__((3, "label"), None))),
        MISTAKE,
        ["the label column 'label' has no value in some rows"],
    ),
    "unlabelled rows of the Hub": (
        lambda w: w.fit(_unlabelled(w)),
        MISTAKE,
        ["48 rows for training have a label that is no class", "-1"],
    ),
    "missing texts": (
        lambda w: w.fit(w.reviews(_blank, ".parquet")),
        MISTAKE,
        ["no text in the column 'text' of 3 rows of the split 'train': " + _BLANK_ROWS],
    ),
    "one class": (
        lambda w: w.fit(w.reviews(lambda f: f.insert(0, "one", "pos")), "--data.label_column=one"),
        MISTAKE,
        ["all 48 training rows have the label 'pos'"],
    ),
    "unknown label in test": (
        lambda w: w.fit(_unknown_label_in_test(w)),
        MISTAKE,
        ["24 rows for testing have a label that is no class", "'mixed'"],
    ),
    "no training split": (lambda w: w.fit(_without_train(w)), MISTAKE, ["has no split 'train' (its splits: test)"]),
    "more training rows than there are": (
        lambda w: w.fit("--data.train_size=500"),
        MISTAKE,
        ["data.train_size is 500, but only 192"],
    ),
    "more test rows than there are": (lambda w: w.fit("--data.test_size=500"), MISTAKE, ["data.test_size is 500"]),
    "more validation rows than there are": (lambda w: w.fit("--data.val_size=500"), MISTAKE, ["data.val_size is 500"]),
    "negative size": (
        lambda w: w.fit("--data.train_size=-1"),
        MISTAKE,
        ["data.train_size is -1; it must be 1 or more"],
    ),
    "negative batch": (lambda w: w.fit("--data.batch_size=0"), MISTAKE, ["data.batch_size is 0; it must be 1 or more"]),
    "negative workers": (lambda w: w.fit("--data.num_workers=-2"), MISTAKE, ["data.num_workers is -2"]),
    "negative seed": (lambda w: w.fit("--data.subset_seed=-1"), MISTAKE, ["data.subset_seed is -1"]),
    "longer than the model takes": (
        lambda w: w.fit("--data.max_length=129"),
        MISTAKE,
        ["data.max_length is 129", "takes at most 128 tokens"],
    ),
    "too short": (lambda w: w.fit("--data.max_length=7"), MISTAKE, ["data.max_length is 7; it must be at least 8"]),
    # ---- model
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
        ["cannot be read from", "altered-model"],
    ),
    "model folder without weights": (
        lambda w: w.fit(w.altered_model(lambda folder: (folder / "model.safetensors").unlink())),
        MISTAKE,
        ["weights cannot be read from", "altered-model"],
    ),
    "truncated weights": (
        lambda w: w.fit(w.altered_model(lambda folder: os.truncate(folder / "model.safetensors", 5000))),
        MISTAKE,
        ["weights cannot be read from", "altered-model"],
    ),
    "model folder without a tokenizer": (
        lambda w: w.fit(
            w.altered_model(
                lambda folder: [p.unlink() for p in folder.iterdir() if "token" in p.name or "vocab" in p.name]
            )
        ),
        MISTAKE,
        ["tokenizer cannot be read from", "altered-model"],
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
        ["tokens, but the network knows 1"],
    ),
    "dropout over 1": (lambda w: w.fit("--model.hidden_dropout=1.5"), MISTAKE, ["model.hidden_dropout is 1.5"]),
    "learning rate of 0": (lambda w: w.fit("--model.learning_rate=0"), MISTAKE, ["model.learning_rate is 0.0"]),
    # ---- the parser
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
    "unknown class": (_yaml("model:\n  class_path: BertClasifier\n"), USAGE, ["BertClasifier"]),
    "unknown option": (lambda w: w.fit("--data.max_len=3"), USAGE, ["max_len"]),
    "abbreviated option": (lambda w: w.fit("--trainer.max_epoch=3"), USAGE, ["max_epoch"]),
    "value of another type": (lambda w: w.fit("--data.max_length=long"), USAGE, ["max_length", "long"]),
    "truncation that is none": (lambda w: w.fit("--data.truncation=middle"), USAGE, ["truncation", "middle"]),
    "schedule that is none": (lambda w: w.fit("--model.schedule=wavy"), USAGE, ["schedule", "wavy"]),
    "accelerator that is none": (lambda w: w.fit("--trainer.accelerator=abacus"), MISTAKE, ["abacus"]),
    "accelerator that is not there": (lambda w: w.fit("--trainer.accelerator=tpu"), MISTAKE, ["torch_xla"]),
    # ---- checkpoints
    "test without a checkpoint": (
        lambda w: ["test", *w.tiny],
        MISTAKE,
        ["`test` needs --ckpt_path best, last or a file"],
    ),
    "no such checkpoint": (
        lambda _: ["test", "--ckpt_path", "gone.ckpt"],
        MISTAKE,
        ["there is no checkpoint 'gone.ckpt'"],
    ),
    "no run to resume": (lambda w: w.fit("--ckpt_path", "last"), MISTAKE, ["no run has a last.ckpt yet"]),
    "no best checkpoint": (lambda _: ["test", "--ckpt_path", "best"], MISTAKE, ["no run has a best.ckpt yet"]),
    "checkpoint outside a run": (
        lambda w: ["test", "--ckpt_path", str(w.altered("moved.ckpt", lambda _: None))],
        MISTAKE,
        ["moved.ckpt lies in no run's directory", "give its --config"],
    ),
    "truncated checkpoint": (
        _ckpt(lambda w: w.file("short.ckpt", w.checkpoint.read_bytes()[:20_000])),
        MISTAKE,
        ["short.ckpt is damaged, or no checkpoint"],
    ),
    "checkpoint of other bytes": (
        _ckpt(lambda w: w.file("noise.ckpt", np.random.default_rng(0).bytes(5000))),
        MISTAKE,
        ["noise.ckpt is damaged, or no checkpoint"],
    ),
    "empty checkpoint": (_ckpt(lambda w: w.file("empty.ckpt")), MISTAKE, ["empty.ckpt is damaged, or no checkpoint"]),
    "truncated checkpoint to resume": (
        _ckpt(lambda w: w.file("short.ckpt", w.checkpoint.read_bytes()[:20_000]), command="fit"),
        MISTAKE,
        ["short.ckpt is damaged, or no checkpoint"],
    ),
    "hostile checkpoint": (
        _ckpt(lambda w: w.file("hostile.ckpt", pickle.dumps({"state_dict": _Payload()}))),
        MISTAKE,
        ["hostile.ckpt is damaged, or no checkpoint"],
    ),
    "hostile checkpoint in torch's format": (
        _ckpt(lambda w: torch.save({"state_dict": _Payload()}, w.here / "hostile.ckpt") or w.here / "hostile.ckpt"),
        MISTAKE,
        ["hostile.ckpt holds more than tensors and plain values, which could run code: it is not read"],
    ),
    "checkpoint of another program": (
        _ckpt(lambda w: torch.save({"weights": torch.ones(2)}, w.here / "other.ckpt") or w.here / "other.ckpt"),
        MISTAKE,
        ["other.ckpt is no checkpoint of this program"],
    ),
    "checkpoint of another Lightning module": (
        _ckpt(lambda w: w.altered("other.ckpt", lambda content: content.pop("classifier"))),
        MISTAKE,
        ["other.ckpt is no checkpoint of a BertClassifier"],
    ),
    "weights of another network": (_ckpt(_distilbert), MISTAKE, ["other.ckpt"]),
    "checkpoint with other labels": (
        _ckpt(lambda w: w.altered("other.ckpt", lambda content: content["classifier"].update(labels=["bad", "good"]))),
        MISTAKE,
        ["the checkpoint knows the labels bad, good, but the data have neg, pos"],
    ),
    # ---- pre-training
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
        ["hidden_size 16", "3 heads"],
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
    # ---- the surroundings
    "a root below a file": (
        lambda w: w.fit(f"--trainer.default_root_dir={w.file('file') / 'below'}"),
        MISTAKE,
        ["file/below"],
    ),
    "a root that cannot be written": (
        lambda w: w.fit("--trainer.default_root_dir=/proc/nowhere"),
        MISTAKE,
        ["/proc/nowhere"],
    ),
}


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(run_cli: Run, world: World, name: str) -> None:
    make, expected, words = CASES[name]
    args = make(world)
    before = _files(world.here), _files(world.checkpoint.parents[1])
    status, _, err = run_cli(*args)
    assert status == expected, err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    for word in words:
        assert word in err
    assert "Traceback" not in err
    assert (_files(world.here), _files(world.checkpoint.parents[1])) == before, "something was left behind"


_LIMITED = """
import resource, sys
from pathlib import Path
from src.__main__ import main

limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "options", "words"),
    [
        (3_000, [], ["no space left on the device", "to read"]),
        (85_000, ["--data.train_size=180", "--data.max_length=128"], ["no space left on the device", "prepared"]),
        (150_000, [], ["best.ckpt could not be written: no space left on the device"]),
    ],
    ids=["reading", "preparing", "saving"],
)
def test_no_space_left_is_said(world: World, limit: int, options: list[str], words: list[str]) -> None:
    """By a limit on the size of files, which the system reports as it does a full disk."""
    environment = os.environ | {"HF_HOME": str(world.here / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(limit), *world.fit(*options)],
        cwd=world.here,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("error: ")
    for word in words:
        assert word in ended.stderr
    left = _files(world.here)
    assert not [path for path in left if path.endswith((".tmp", ".ckpt"))], "something half-written"
