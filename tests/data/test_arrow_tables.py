"""Local tables as Arrow files: the same values in each format, and types where the format has them."""

from pathlib import Path

import datasets
import pytest

from src.data.arrow_tables import write_arrow
from src.system.errors import UserError


def _written(tmp_path: Path, *files: Path) -> datasets.Dataset:
    write_arrow(tmp_path / "out.arrow", files, ["text", "label"], "reviews")
    return datasets.Dataset.from_file(str(tmp_path / "out.arrow"))


def _file(tmp_path: Path, name: str, content: str) -> Path:
    (tmp_path / name).write_text(content)
    return tmp_path / name


def test_files_follow_one_another_and_other_columns_are_left_out(tmp_path: Path) -> None:
    first = _file(tmp_path, "a.csv", "id,label,text\n7,01,n/a\n8,1,good\n")
    second = _file(tmp_path, "b.csv", "text,label\nbad,None\n")
    rows = _written(tmp_path, first, second)
    assert rows[:] == {"text": ["n/a", "good", "bad"], "label": ["01", "1", "None"]}


def test_json_values_become_text_and_null_stays_missing(tmp_path: Path) -> None:
    lines = '{"text": "a", "label": 1}\n{"text": null, "label": true}\n{"text": "c"}\n'
    assert _written(tmp_path, _file(tmp_path, "a.jsonl", lines))["label"][:] == ["1", "True", None]
    nested = _file(tmp_path, "b.jsonl", '{"text": "a", "label": {"x": 1}}')
    with pytest.raises(UserError, match=r"b\.jsonl, line 1: has a dict where a text, a label"):
        _written(tmp_path, nested)


def test_json_lists_stay_lists_if_the_first_row_has_one(tmp_path: Path) -> None:
    lines = '{"text": "a", "label": ["x", 2]}\n{"text": "b", "label": []}\n{"text": "c", "label": null}\n'
    assert _written(tmp_path, _file(tmp_path, "a.jsonl", lines))["label"][:] == [["x", "2"], [], None]
    for first, second, found in (('["x"]', '"x"', "str where the first row"), ('"x"', '["x"]', "list where a text")):
        mixed = _file(tmp_path, "b.jsonl", f'{{"text": "a", "label": {first}}}\n{{"text": "b", "label": {second}}}\n')
        with pytest.raises(UserError, match=rf"b\.jsonl, line 2: has a {found}"):
            _written(tmp_path, mixed)


def test_parquet_keeps_types_and_class_names(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"id": datasets.Value("int8"), "label": label, "text": datasets.Value("string")})
    for name in ("a", "b"):
        rows = datasets.Dataset.from_dict({"id": [1, 2], "label": [0, 1], "text": ["x", name]}, features=features)
        rows.to_parquet(str(tmp_path / f"{name}.parquet"))
    found = _written(tmp_path, tmp_path / "a.parquet", tmp_path / "b.parquet")
    assert found.features["label"] == label
    assert found["text"][:] == ["x", "a", "x", "b"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_missing_column_is_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    rows = datasets.Dataset.from_dict({"text": ["a"], "stars": ["5"]})
    {".csv": rows.to_csv, ".jsonl": rows.to_json, ".parquet": rows.to_parquet}[file.suffix](str(file))
    with pytest.raises(UserError, match=r"no column 'label' \(its columns: text, stars\): name another by data"):
        _written(tmp_path, file)


def test_bad_row_is_named_as_in_prediction(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.csv, line 3: has 1 fields, but the header has 2"):
        _written(tmp_path, _file(tmp_path, "a.csv", "text,label\na,b\nc\n"))
