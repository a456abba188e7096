"""Checkpoints that are missing, damaged, malicious or of another model."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.bad_input.world import MISTAKE, Cases, World
from tests.models.families import save_distilbert


class _Payload:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(Path.cwd() / "payload-ran"),)


def _distilbert(w: World) -> Path:
    """A checkpoint with the weights of another network than its configuration says."""
    folder = w.here / "distilbert"
    folder.mkdir()
    save_distilbert(folder, w.model / "vocab.txt")
    from transformers import AutoModel

    return w.altered(
        "other.ckpt", lambda content: content.update(state_dict=AutoModel.from_pretrained(folder).state_dict())
    )


def _rename(section: dict[str, Any], labels: list[str]) -> None:
    section["labels"] = labels
    section["config"] |= {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


def _ckpt(make: Callable[[World], object], *options: str, command: str = "test") -> Callable[[World], list[str]]:
    return lambda w: [
        command,
        "--config",
        str(w.checkpoint.parents[1] / "config.yaml"),
        *options,
        "--ckpt_path",
        str(make(w)),
    ]


CASES: Cases = {
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
        _ckpt(lambda w: w.altered("other.ckpt", lambda content: _rename(content["classifier"], ["bad", "good"]))),
        MISTAKE,
        ["the checkpoint has the labels bad, good, but the data have neg, pos"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(expect_one_line: Callable[..., None], name: str) -> None:
    expect_one_line(*CASES[name])
