"""Damaged prepared data never train: they are prepared again, or the command says that it cannot."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.cache import Prepared, prepare_once
from src.data.imdb import ImdbDataModule
from src.system.errors import UserError
from tests.faults.damaged_bytes import DAMAGE, Damage

_DATA = [f"{name}/data-00000-of-00001.arrow" for name in ("train", "val", "test")]
_TRAIN, _VAL, _ = _DATA
_FILES = (*_DATA, "train/state.json", "checksums.json")


@pytest.fixture(scope="module")
def make(tiny_bert: Path, reviews_csv: Path) -> Callable[[], ImdbDataModule]:
    sizes = {"train_size": 8, "val_size": 4, "test_size": 4, "max_length": 16, "subset_seed": 20}
    return lambda: ImdbDataModule(dataset=str(reviews_csv), tokenizer=str(tiny_bert), **sizes)


@pytest.fixture(scope="module")
def whole(make: Callable[[], ImdbDataModule], tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Path]:
    """What was prepared, and a copy of its folder."""
    prepared = make().prepared
    copy = tmp_path_factory.mktemp("whole") / "copy"
    shutil.copytree(prepared.folder, copy)
    return prepared, copy


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(deadline=None)
@given(file=st.sampled_from(_FILES), damage=st.none() | DAMAGE)
def test_a_damaged_or_missing_file_is_prepared_again(
    whole: tuple[Prepared, Path], file: str, damage: Damage | None
) -> None:
    key, folder, copy = whole[0].key, whole[0].folder, whole[1]
    path, before = folder / file, (copy / file).read_bytes()
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage.of(before))
        if path.read_bytes() == before or (file == "checksums.json" and _json(path.read_bytes()) == _json(before)):
            path.write_bytes(before)  # zeros where zeros were, or another space in JSON
            return

    def build(unfinished: Path) -> None:
        shutil.copytree(copy, unfinished, dirs_exist_ok=True)

    assert prepare_once(key, build) == (folder, False)
    assert _content(folder) == _content(copy)
    assert prepare_once(key, lambda _: pytest.fail("it is whole")) == (folder, True)


@pytest.mark.parametrize("change", ["{}", "[]", "null", '{"train.arrow": 1}', "[" * 5000, ""])
def test_checksums_that_say_nothing_are_no_checksums(whole: tuple[Prepared, Path], change: str) -> None:
    folder, copy = whole[0].folder, whole[1]
    (folder / "checksums.json").write_text(change)
    assert not prepare_once(whole[0].key, lambda new: shutil.copytree(copy, new, dirs_exist_ok=True) and None)[1]
    assert _content(folder) == _content(copy)


def test_flipped_label_is_mended_from_the_source_in_one_line(
    make: Callable[[], ImdbDataModule], whole: tuple[Prepared, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    prepared, copy = whole
    labels, file = prepared.rows("train")["label"][:], prepared.folder / _TRAIN
    table = file.read_bytes()
    pattern = b"".join(label.to_bytes(8, "little") for label in labels)
    assert table.count(pattern) == 1
    at = table.index(pattern)
    file.write_bytes(table[:at] + bytes([table[at] ^ 1]) + table[at + 1 :])
    assert prepared.rows("train")["label"][:] != labels, "the damage is not where it should be"

    data = make()
    assert not data.prepared.found
    assert data.prepared.key == prepared.key
    assert data.prepared.rows("train")["label"][:] == labels
    lines = [line for line in capfd.readouterr().err.splitlines() if "damaged" in line]
    reason = "are damaged or have no checksums: preparing them again"
    assert lines == [f"the prepared data in {prepared.folder} {reason}"]
    rows = [{name: content[name] for name in _DATA} for content in map(_content, (prepared.folder, copy))]
    assert rows[0] == rows[1]


def test_without_the_source_the_damage_stays_an_error(whole: tuple[Prepared, Path]) -> None:
    key, folder, copy = whole[0].key, whole[0].folder, whole[1]
    before = _content(folder)
    (folder / _VAL).unlink()

    def build(_: Path) -> None:
        raise UserError("the source is gone")

    for _ in range(2):
        with pytest.raises(UserError, match=r"^the source is gone$"):
            prepare_once(key, build)
    assert _content(folder) == {name: content for name, content in before.items() if name != _VAL}
    shutil.copyfile(copy / _VAL, folder / _VAL)
    assert prepare_once(key, build) == (folder, True)
