"""Checkpoints are read without running code from them, and their content is handed over once."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from src.runs.checkpoint_reading import FINISHED_KEY, changed_options, read_checkpoint
from src.system.errors import UserError


class _Code:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.mkdir, (Path("made-by-the-checkpoint"),)


def _save(path: Path, **content: object) -> Path:
    torch.save({"state_dict": {"weight": torch.arange(6.0)}} | content, path)
    return path


def test_content_is_what_was_saved(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(_save(tmp_path / "some.ckpt", global_step=7, labels=["neg", "pos"]))
    assert (checkpoint.path, checkpoint.step, checkpoint.finished) == (tmp_path / "some.ckpt", 7, False)
    assert checkpoint.content["labels"] == ["neg", "pos"]
    assert checkpoint.content["state_dict"]["weight"].tolist() == [0, 1, 2, 3, 4, 5]
    assert read_checkpoint(_save(tmp_path / "some.ckpt", **{FINISHED_KEY: True})).finished


def test_content_that_was_handed_over_is_forgotten(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(_save(tmp_path / "some.ckpt", global_step=7))
    assert checkpoint.hand_over()["global_step"] == 7
    assert checkpoint.content == {}
    assert checkpoint.step == 7, "what is said of it stays"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {}, "more": _Code()}, "which could run code"),
        ({"weights": {}}, "has no 'state_dict'"),
        ([1, 2], "has no 'state_dict'"),
    ],
    ids=["code", "other", "list"],
)
def test_other_content_is_refused(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "some.ckpt")
    with pytest.raises(UserError, match=words):
        read_checkpoint(tmp_path / "some.ckpt")
    assert not Path("made-by-the-checkpoint").exists()


def test_no_flipped_bit_changes_what_is_read(tmp_path: Path) -> None:
    """Over the whole file: each flip is refused, or changes nothing (in a time stamp or the padding, say)."""
    weights = {f"layer{i}": torch.randn(16, 8, generator=torch.Generator().manual_seed(i)) for i in range(4)}
    whole = _save(tmp_path / "whole.ckpt", state_dict=weights, names=["a", "b"]).read_bytes()
    expected = read_checkpoint(tmp_path / "whole.ckpt").content
    draw = np.random.default_rng(0)
    refused = 0
    for position, bit in zip(draw.integers(len(whole), size=400), draw.integers(8, size=400), strict=True):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << bit
        (tmp_path / "flipped.ckpt").write_bytes(flipped)
        try:
            found = read_checkpoint(tmp_path / "flipped.ckpt").content
        except UserError:
            refused += 1
            continue
        assert found["names"] == expected["names"]
        assert found["state_dict"].keys() == expected["state_dict"].keys()
        for name, weight in found["state_dict"].items():
            assert torch.equal(weight, expected["state_dict"][name])
    assert refused > 100


def test_a_compressed_file_is_refused(tmp_path: Path) -> None:
    """Memory-mapped, its compressed bytes would be the weights."""
    _save(tmp_path / "some.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "some.ckpt") as plain,
        zipfile.ZipFile(tmp_path / "deflated.ckpt", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for entry in plain.namelist():
            deflated.writestr(entry, plain.read(entry))
    with pytest.raises(UserError, match="is damaged, or no checkpoint"):
        read_checkpoint(tmp_path / "deflated.ckpt")


def test_a_small_file_whose_entries_overlap_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """So that no file of 3 MB is read as one of many GB."""
    path = _save(tmp_path / "some.ckpt", more=torch.zeros(100_000))
    with zipfile.ZipFile(path, "a") as bomb:
        bomb.filelist += bomb.filelist * 1000
        bomb.comment = b"changed, so that the list is written again"
    with pytest.raises(UserError, match="is damaged, or no checkpoint") as refusal:
        read_checkpoint(path)
    assert "overlap" in str(refusal.value.__cause__)


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "some.ckpt")
    (tmp_path / "some.ckpt").write_bytes(content)
    with pytest.raises(UserError, match="is damaged, or no checkpoint"):
        read_checkpoint(tmp_path / "some.ckpt")


def test_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "some.ckpt")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint(path)


def test_changed_options_are_named_with_both_values() -> None:
    before = {"a": 1, "b": "x", "gone": 3}
    assert changed_options(before, {"a": 1, "b": "x"}) == ""
    assert changed_options(before, {"a": 2, "b": "x", "new": [4]}) == "a was 1 and is 2; new was None and is [4]"
