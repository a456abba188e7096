"""`classify.py` of an exported folder: the answers of `predict`, without PyTorch and without transformers."""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from src.__main__ import main
from src.exporting import classify_script
from src.inference.classifier import load
from src.system.checksums import CHECKSUMS
from tests.docs.pages import ROOT, blocks
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]

_STANDALONE = Path(classify_script.__file__).parent / "standalone"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Some long, some empty, some that mention special tokens, some of other writing."""
    return [
        *synthetic_reviews(20, seed=3)["text"],
        "",
        " ",
        "a [SEP] film [PAD]",
        "great\ttab \x85 \u2028 é 😀",
        "great",
    ]


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export(tiny_checkpoint, tmp_path_factory.mktemp("exported"), "windows", "--onnx", "--int8")


def _export(checkpoint: Path, parent: Path, truncation: str, *files: str) -> Path:
    """The folder of a model that reads texts so, 16 tokens at a time."""
    content = torch.load(checkpoint, weights_only=True)
    content["classifier"] |= {"truncation": truncation, "max_length": 16}
    torch.save(content, parent / "other.ckpt")
    folder = parent / truncation
    assert main(["export", f"--ckpt_path={parent / 'other.ckpt'}", f"--output={folder}", *files]) == 0
    return folder


def _run(folder: Path, given: bytes, *arguments: str, python: str = sys.executable) -> tuple[int, str, str]:
    """`classify.py` in a process that sees this project as little as a stranger's."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"LC_ALL": "C"}
    command = [python, "-I", str(folder / "classify.py"), *arguments]
    done = subprocess.run(command, input=given, capture_output=True, check=False, env=kept, cwd="/")
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def _same(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-5) -> bool:
    numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
    others = {name: value for name, value in expected.items() if name not in numbers}
    close = {name: pytest.approx(value, abs=tolerance) for name, value in numbers.items()}
    return bool(list(found) == list(expected) and found == others | close)


@pytest.mark.parametrize("model", ["model.onnx", "model_int8.onnx"])
def test_it_writes_what_predict_writes(model: str, folder: Path, texts: list[str], run_cli: Run) -> None:
    Path("in.txt").write_text("".join(f"{text}\n" for text in texts), "utf-8")
    arguments = ["--input=in.txt", "--output=out.jsonl"]
    assert run_cli("predict", f"--ckpt_path={folder / model}", *arguments)[0] == 0
    expected = [json.loads(line) for line in Path("out.jsonl").read_text("utf-8").split("\n")[:-1]]
    status, out, err = _run(folder, Path("in.txt").read_bytes(), *([model] if "int8" in model else []))
    assert (status, err) == (0, "")
    found = [json.loads(line) for line in out.split("\n")[:-1]]
    assert [row["text"] for row in found] == texts
    tolerance = 0.05 if "int8" in model else 1e-5  # which quantises a batch as a whole
    for row, wanted in zip(found, expected, strict=True):
        assert row["label"] == wanted["label"] or "int8" in model
        assert _same(row | {"label": wanted["label"]}, wanted, tolerance)


@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail"])
def test_it_reads_a_part_of_a_text_as_in_training(
    truncation: str, tiny_checkpoint: Path, texts: list[str], tmp_path: Path
) -> None:
    folder = _export(tiny_checkpoint, tmp_path, truncation, "--int8")
    assert "| classify.py | 100 |" in (folder / "README.md").read_text()
    classifier = runpy.run_path(str(folder / "classify.py"))["Classifier"](folder)
    assert classifier.encode(texts) == load(folder).encoder.encode(texts)
    assert "pos" in {row["label"] for row in classifier(texts)}
    with pytest.raises(TypeError, match="list of texts"):
        classifier("one text")


def test_it_loads_neither_torch_nor_transformers_nor_this_project(folder: Path) -> None:
    program = (
        f"import sys; sys.path[:0] = [{str(folder)!r}]; sys.dont_write_bytecode = True\n"
        f"from classify import Classifier\nprint(Classifier({str(folder)!r})(['great', ''])[0]['label'])\n"
        "assert not {'torch', 'transformers', 'src', 'lightning'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout) == (0, "pos\n"), done.stderr


def test_the_checksums_cover_it_and_nothing_else_is_left_in_the_folder(folder: Path) -> None:
    sums = json.loads((folder / CHECKSUMS).read_text())
    assert {"classify.py", "requirements.txt"} <= sums.keys()
    assert {path.name for path in folder.iterdir()} == {*sums, CHECKSUMS, "README.md"}
    assert len((folder / "classify.py").read_text().splitlines()) < 150


@pytest.mark.parametrize(
    ("name", "arguments", "given", "reason"),
    [
        ("an unknown model", ["other.onnx"], b"great\n", "other.onnx"),
        ("no model", [], b"great\n", "model.onnx"),
        ("no configuration", [], b"great\n", "config.json"),
        ("no UTF-8", [], b"great\n\xff\xfe\n", "not UTF-8"),
    ],
)
def test_mistakes_are_told_in_one_line(
    name: str, arguments: list[str], given: bytes, reason: str, folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    for file in {"no model": ["model.onnx", "model_int8.onnx"], "no configuration": ["config.json"]}.get(name, []):
        (copy / file).unlink()
    status, _, err = _run(copy, given, *arguments)
    assert (status, err.count("\n")) == (1, 1), err
    assert err.startswith("error: ")
    assert reason in err


def test_a_missing_package_is_told_with_what_to_install(folder: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    status, _, err = _run(folder, b"great\n", python=str(tmp_path / "bare/bin/python"))
    assert status == 1
    assert err == f"error: numpy is not installed: pip install -r {folder}/requirements.txt\n"


def test_an_export_that_the_script_reads_otherwise_is_none(
    tiny_checkpoint: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(_STANDALONE, "wrong")
    script = Path("wrong/classify.py")
    script.write_text(script.read_text().replace("body[:head]", "body[1:head]"))
    monkeypatch.setattr(classify_script, "_FILES", Path("wrong").absolute())
    status, _, err = run_cli("export", f"--ckpt_path={tiny_checkpoint}", "--output=out", "--onnx")
    assert status == 1
    assert "classify.py makes other tokens of the texts" in err
    assert not Path("out").exists()


def test_the_commands_of_the_how_to_run(folder: Path, tmp_path: Path) -> None:
    code = "\n".join(blocks(ROOT / "docs" / "how-to.md", "bash"))
    commands = [line for line in code.splitlines() if "classify.py" in line]
    assert commands
    shutil.copytree(folder, tmp_path / "my-model")
    (tmp_path / "reviews.txt").write_text("great\nawful, dull\n")
    for command in commands:
        line = command.replace("python ", f"{shlex.quote(sys.executable)} ")
        done = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    labels = [json.loads(line)["label"] for line in Path("labels.jsonl").read_text().splitlines()]
    assert labels == ["pos", "neg"]


@pytest.mark.slow
@pytest.mark.parametrize("versions", ["lowest", "newest"])
def test_it_runs_with_the_packages_of_its_requirements_alone(
    versions: str, folder: Path, texts: list[str], tmp_path: Path
) -> None:
    """The same probabilities on 100 texts, to rounding, with the oldest and with the newest packages."""
    given = "".join(f"{text}\n" for text in [*texts, *synthetic_reviews(100 - len(texts), seed=8)["text"]]).encode()
    lines = (folder / "requirements.txt").read_text().splitlines()[1:]
    if versions == "lowest":
        lines = [line.replace(">=", "==") for line in lines]
    venv.create(tmp_path / "alone", with_pip=True, symlinks=True)
    python = str(tmp_path / "alone/bin/python")
    install = [python, "-m", "pip", "install", "-q", "--only-binary=:all:", *lines]
    done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        pytest.skip(f"pip cannot install: {done.stderr[-300:]}")
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert not re.search(r"^(torch|transformers|lightning)\b", listed, flags=re.MULTILINE)
    for model in ("model.onnx", "model_int8.onnx"):
        status, out, err = _run(folder, given, model, python=python)
        assert (status, err) == (0, "")
        _, expected, _ = _run(folder, given, model)
        rows = [[json.loads(line) for line in each.split("\n")[:-1]] for each in (out, expected)]
        assert len(rows[0]) == 100
        for row, wanted in zip(*rows, strict=True):
            assert _same(row, wanted, 0.02 if "int8" in model else 1e-5)
