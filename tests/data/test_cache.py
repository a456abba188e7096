"""Prepared data on disk: found again by what it was made of, and never half-made."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import BertTokenizerFast

from src.data import cache
from src.data.cache import cache_dir, cache_key, prepare_once
from src.system.errors import UserError
from tests.conftest import write_reviews
from tests.data.conftest import Attach
from tests.loopback_hub import LoopbackHub, use
from tests.synthetic import synthetic_reviews

_ROOT = Path(__file__).parents[2]

_BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from typing import Any
from src.data.cache import prepare_once

def build(folder):
    for i in range(20):
        (folder / f"part-{i}").write_text("whole")
        Path(sys.argv[2]).touch()  # it has begun
        time.sleep(float(sys.argv[3]))

folder, found = prepare_once(sys.argv[1], build)
print(len(list(folder.iterdir())), found)
"""


def _start(key: str, begun: Path, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _BUILD_SLOWLY, key, str(begun), str(pause)]
    return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)


def _left_of(key: str) -> list[str]:
    return sorted(path.name for path in cache_dir().glob(f"*{key}*") if path.suffix != ".lock")


@pytest.mark.slow
def test_two_launches_at_once_build_once(tmp_path: Path) -> None:
    key = cache_key({"test": str(tmp_path)})
    launches = [_start(key, tmp_path / f"begun-{i}", 0.02) for i in range(2)]
    answers = sorted(launch.communicate(timeout=60)[0].strip() for launch in launches)
    assert answers == ["21 False", "21 True"]
    assert _left_of(key) == [key]


@pytest.mark.slow
def test_killed_build_is_begun_again(tmp_path: Path) -> None:
    key = cache_key({"test": str(tmp_path)})
    launch = _start(key, tmp_path / "begun", 10)
    end = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    launch.send_signal(signal.SIGKILL)
    launch.communicate()
    assert not (cache_dir() / key).exists(), "half-made data under the name of whole"

    folder, found = prepare_once(key, lambda folder: (folder / "part").touch())
    assert not found
    assert sorted(path.name for path in folder.iterdir()) == ["checksums.json", "part"]
    assert _left_of(key) == [key], "what the kill left is cleared away"


def test_failed_build_leaves_nothing(tmp_path: Path) -> None:
    key = cache_key({"test": str(tmp_path)})

    def build(folder: Path) -> None:
        (folder / "part").touch()
        raise UserError("no")

    with pytest.raises(UserError, match=r"^no$"):
        prepare_once(key, build)
    assert _left_of(key) == []


def test_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match=r"cannot be written to .*/file/below/prepared-reviews: Not a directory"):
        prepare_once("key", lambda _: None)


def test_same_facts_are_found(attach: Attach) -> None:
    first = attach(subset_seed=1)
    first.prepare_data()
    first.setup("fit")
    # using a tokenizer changes its state, and with it the key of `datasets.map` (datasets #3847)
    first.encoder.tokenizer(["a", "b c"], padding=True, truncation=True, max_length=8)
    second = attach(subset_seed=1)
    second.setup("fit")
    assert second.prepared.found
    assert (second.key, second.splits["train"][:]) == (first.key, first.splits["train"][:])
    # how rows are put into batches is no part of what is prepared
    assert attach(subset_seed=1, batch_size=3, padding="max_length", group_by_length=True).prepared.found


@pytest.mark.parametrize(
    "changed",
    [
        {"train_size": 47},
        {"val_size": 23},
        {"test_size": 23},
        {"subset_seed": 43},
        {"max_length": 63},
        {"truncation": "tail"},
        {"truncation": "head_tail"},
        {"where": {"label": "pos"}, "label_column": "half"},
        {"text_column": "other"},
        {"label_column": "half"},
    ],
    ids=str,
)
def test_change_of_a_fact_is_not_found(attach: Attach, tmp_path: Path, changed: dict[str, object]) -> None:
    frame = synthetic_reviews(240).assign(half=lambda f: f.index % 2, other=lambda f: f["text"].str[::-1])
    file = str(write_reviews(tmp_path / "reviews.csv", frame))
    before = attach(dataset=file).prepared
    after = attach(dataset=file, **changed).prepared
    assert not after.found
    assert after.key != before.key
    assert attach(dataset=file).prepared == type(before)(before.key, before.folder, found=True)


def test_change_of_the_file_is_not_found_and_a_copy_is(attach: Attach, tmp_path: Path) -> None:
    frame = synthetic_reviews(240, seed=7)
    file = write_reviews(tmp_path / "reviews.csv", frame)
    whole: dict[str, Any] = {"dataset": str(file), "train_size": None}
    first = attach(**whole).prepared
    copy = write_reviews(tmp_path / "elsewhere.csv", frame)
    assert attach(**whole | {"dataset": str(copy)}).prepared.found
    stamp = file.stat()
    frame.loc[0, "text"] = frame.loc[0, "text"][::-1]
    write_reviews(file, frame)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert file.stat().st_size == stamp.st_size
    changed = attach(**whole).prepared
    assert not changed.found
    assert changed.key != first.key
    texts = {text for name in ("train", "val", "test") for text in changed.rows(name)["text"]}
    assert texts == set(frame["text"]), "rows of the old file"


def test_change_of_the_tokenizer_is_not_found(attach: Attach, tiny_bert: Path, tmp_path: Path) -> None:
    attach().prepare_data()
    other = tmp_path / "other-bert"
    other.mkdir()
    for name in ("config.json", "vocab.txt"):
        (other / name).write_bytes((tiny_bert / name).read_bytes())
    BertTokenizerFast(str(other / "vocab.txt")).save_pretrained(other)
    assert attach(model=other).prepared.found, "the same tokenizer in another folder"
    words = (other / "vocab.txt").read_text().splitlines()
    (other / "vocab.txt").write_text("\n".join([*words[:11], *reversed(words[11:])]) + "\n")
    BertTokenizerFast(str(other / "vocab.txt")).save_pretrained(other)
    assert not attach(model=other).prepared.found


def test_key_knows_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_key({"a": 1, "b": 2}) == cache_key({"b": 2, "a": 1})
    before = cache_key({"a": 1})
    monkeypatch.setattr(cache, "_FORMAT", cache._FORMAT + 1)
    assert cache_key({"a": 1}) != before


def test_preparing_leaves_no_second_copy(attach: Attach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    prepared = attach(subset_seed=5).prepared
    assert sorted(path.parent.name for path in prepared.folder.rglob("*.arrow")) == ["test", "train", "val"]
    # other programs read them
    assert datasets.load_from_disk(str(prepared.folder / "train"))["text"][:] == prepared.rows("train")["text"][:]
    assert not list((tmp_path / "cache").rglob("cache-*.arrow"))


@pytest.mark.parametrize("offline", [False, True], ids=["unreachable", "offline"])
def test_hub_data_are_found_again_without_the_network(
    attach: Attach, loopback: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    """Of a branch too: the commit that it last pointed to is remembered (datasets #6837, #7551)."""
    (tmp_path / "reviews").mkdir()
    write_reviews(tmp_path / "reviews" / "train.csv", synthetic_reviews(240))
    commit = loopback.add("datasets/someone/reviews", tmp_path / "reviews")
    assert not attach(dataset="someone/reviews").prepared.found
    loopback.fail("drop")
    use(loopback.address, tmp_path / "hf-home", monkeypatch, offline=offline)
    data = attach(dataset="someone/reviews")
    assert data.prepared.found
    assert data.label_names == ["neg", "pos"]
    # and by the commit
    assert attach(dataset="someone/reviews", revision=commit).prepared.found
    # other rows of the same files
    assert not attach(dataset="someone/reviews", train_size=40).prepared.found
    with pytest.raises(UserError, match=r"configs/quickstart\.yaml"):
        attach(dataset="someone/reviews", revision="v2").prepare_data()
