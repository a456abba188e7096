"""`predict` on real files with a tiny model: every format, the order, and bad lines."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from src.inference import prediction
from src.inference.classifier import load, probabilities
from src.models.checkpoint_format import Archive, network_in
from src.runs.checkpoint_reading import read_checkpoint
from tests.conftest import write_reviews
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]
ADDED = ["label", "score", "probability_neg", "probability_pos"]


@pytest.fixture
def reviews() -> pd.DataFrame:
    """40 reviews in a random order, with two more columns."""
    frame = synthetic_reviews(40, seed=5).sample(frac=1, random_state=0).reset_index(drop=True)
    return pd.DataFrame({"id": frame.index + 100, "text": frame.text, "truth": frame.label})


def stdin_of(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    Path("stdin").write_bytes(content)
    monkeypatch.setattr("sys.stdin", Path("stdin").open())  # noqa: SIM115


def expected_probabilities(checkpoint: Path, texts: list[str]) -> np.ndarray:
    """By the plain network of `transformers`, one window at a time, so with no padding."""
    opened = read_checkpoint(checkpoint)
    archive = Archive.of(opened)
    network = network_in(opened, archive)
    with torch.inference_mode():
        answers = [
            torch.cat([network(torch.tensor([window])).logits for window in windows]).mean(dim=0).softmax(-1)
            for windows in archive.encoder.encode(texts)
        ]
    return torch.stack(answers).numpy()


# ---- formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rows_keep_their_order_and_columns_and_get_the_probabilities_of_the_plain_network(
    suffix: str, reviews: pd.DataFrame, tiny_checkpoint: Path, tmp_path: Path, run_cli: Run
) -> None:
    source = write_reviews(tmp_path / f"in{suffix}", reviews)
    status, _, err = run_cli("predict", "--ckpt_path", str(tiny_checkpoint), "--input", str(source), "--output=out.csv")
    assert status == 0
    assert "40/40" in err
    out = pd.read_csv("out.csv")
    assert list(out.columns) == ["id", "text", "truth", *ADDED]
    pd.testing.assert_frame_equal(out[["id", "text", "truth"]], reviews, check_dtype=False)
    expected = expected_probabilities(tiny_checkpoint, list(reviews.text))
    np.testing.assert_allclose(out[["probability_neg", "probability_pos"]], expected, atol=2e-6)
    assert list(out.label) == [["neg", "pos"][i] for i in expected.argmax(1)]
    np.testing.assert_allclose(out.score, expected.max(1), atol=2e-6)
    # the tiny model has learnt its synthetic reviews, so that a mixed-up order would show
    assert (out.label == out.truth).mean() > 0.8
    assert not Path("out.csv.partial").exists()


def test_min_score_leaves_doubtful_labels_empty_and_counts_them_over_a_kill(
    reviews: pd.DataFrame, tiny_checkpoint: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "ROWS_A_CHUNK", 1)
    monkeypatch.setattr(prediction, "BATCHES_A_CHUNK", 1)
    reviews.loc[[3, 30], "text"] = ""
    reviews.to_csv("in.csv", index=False)
    command = ["predict", f"--ckpt_path={tiny_checkpoint}", "--input=in.csv", "--batch_size=8"]
    assert run_cli(*command, "--output=plain.csv")[0] == 0
    plain = pd.read_csv("plain.csv")
    middle = plain["score"].median()
    write, written = prediction.PredictionWriter.write, []

    def write_and_stop(*args: Any) -> int:
        written.append(args)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return write(*args)

    with monkeypatch.context() as stopping:
        stopping.setattr(prediction.PredictionWriter, "write", write_and_stop)
        assert run_cli(*command, "--output=out.csv", f"--min_score={middle}")[0] == 1
    status, _, err = run_cli(*command, "--output=out.csv", "--min_score=0.5")
    assert (status, "begun with other options" in err) == (1, True)
    status, _, err = run_cli(*command, "--output=out.csv", f"--min_score={middle}")
    assert (status, "resuming" in err) == (0, True)
    out = pd.read_csv("out.csv")
    n = int(out["label"].isna().sum()) - 2
    assert 15 < n < 23, "about half of 38"
    assert f"{n} of 38 reviews lack a label whose probability is below {middle:g}\n" in err
    assert "2 reviews are empty and have no label\n" in err
    there = out["label"].notna()
    assert (out["label"][there] == plain["label"][there]).all()
    assert out["score"][there].min() >= middle
    pd.testing.assert_frame_equal(out.drop(columns="label"), plain.drop(columns="label"))


def test_lines_of_text_from_stdin_to_stdout(
    reviews: pd.DataFrame, tiny_checkpoint: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin_of(monkeypatch, "\n".join(reviews.text).encode())
    status, out, _ = run_cli("predict", "--ckpt_path", str(tiny_checkpoint), "--input=-", "--output=-")
    assert status == 0
    table = pd.read_csv(io.StringIO(out))
    assert list(table.columns) == ["text", *ADDED]
    assert list(table.text) == list(reviews.text)


def test_json_keeps_types_and_nesting(
    tiny_checkpoint: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [{"text": "great", "tags": ["a", {"b": 1}], "n": 3, "é": None}, {"text": "awful, dull", "n": 1.5}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    base = ("predict", "--ckpt_path", str(tiny_checkpoint), "--input=in.jsonl")
    assert run_cli(*base, "--output=out.jsonl")[0] == 0
    found = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in row.items() if k not in ADDED} for row in found] == rows
    assert found[0]["score"] == pytest.approx(max(found[0]["probability_neg"], found[0]["probability_pos"]))
    # a table has all columns that any line has
    assert run_cli(*base, "--output=out.csv")[0] == 0
    table = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert json.loads(table[0]["tags"]) == rows[0]["tags"]
    assert table[1]["n"] == "1.5"
    assert table[1]["tags"] == ""
    # and the same from stdin, where the format is named
    stdin_of(monkeypatch, Path("in.jsonl").read_bytes())
    arguments = ["predict", "--ckpt_path", str(tiny_checkpoint), "--input=-", "--input_format=jsonl", "--output=-"]
    assert run_cli(*arguments, "--output_format=jsonl")[1] == Path("out.jsonl").read_text()


def test_a_column_with_a_name_of_ours_is_kept_under_another(
    reviews_csv: Path, tiny_checkpoint: Path, run_cli: Run
) -> None:
    _, _, err = run_cli("predict", "--ckpt_path", str(tiny_checkpoint), f"--input={reviews_csv}", "--output=o.csv")
    out = pd.read_csv("o.csv")
    assert list(out.columns) == ["text", "input_label", *ADDED]
    assert list(out.input_label) == list(pd.read_csv(reviews_csv).label)
    assert "'input_label'" in err


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_no_column_of_the_input_is_lost_whatever_its_name(
    suffix: str, reviews: pd.DataFrame, tiny_checkpoint: Path, run_cli: Run
) -> None:
    """As of labelled reviews that were labelled once before."""
    kept = {"input_label": "before", "label": "pos!", "input_input_label": "and before that"}
    write_reviews(Path(f"in{suffix}"), reviews.assign(**kept))
    arguments = ("--ckpt_path", str(tiny_checkpoint), f"--input=in{suffix}", f"--output=out{suffix}")
    assert run_cli("predict", *arguments)[0] == 0
    out = pd.read_csv("out.csv") if suffix == ".csv" else pd.read_json("out.jsonl", lines=True)
    assert (out["input_label"] == "before").all()
    assert (out["input_input_label"] == "and before that").all()
    assert (out["input_input_input_label"] == "pos!").all()
    assert set(out["label"]) <= {"neg", "pos"}


def test_a_text_with_any_line_ends_stays_one_row_of_a_csv(tiny_checkpoint: Path, run_cli: Run) -> None:
    texts = ["great\rawful", "great\nawful", "great\r\nawful", "great"]
    Path("in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    arguments = ("--ckpt_path", str(tiny_checkpoint), "--input=in.jsonl", "--output=out.csv")
    assert run_cli("predict", *arguments)[0] == 0
    with Path("out.csv").open(newline="") as stream:
        assert [row["text"] for row in csv.DictReader(stream)] == texts


def test_a_table_without_rows_keeps_its_columns(tiny_checkpoint: Path, run_cli: Run) -> None:
    Path("in.csv").write_text("id,text\n")
    assert run_cli("predict", "--ckpt_path", str(tiny_checkpoint), "--input=in.csv", "--output=out.csv")[0] == 0
    assert Path("out.csv").read_text() == f"id,text,{','.join(ADDED)}\n"


def test_a_field_that_standard_input_has_too_late_is_a_bad_line(
    tiny_checkpoint: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header of a csv is written with the first chunk of rows."""
    monkeypatch.setattr(prediction, "ROWS_A_CHUNK", 2)
    monkeypatch.setattr(prediction, "BATCHES_A_CHUNK", 1)
    lines = [{"text": "great", "id": 1}, {"text": "awful"}, {"text": "dull", "new": 1}, {"text": "great", "id": 4}]
    stdin_of(monkeypatch, "\n".join(map(json.dumps, lines)).encode())
    arguments = ["predict", "--ckpt_path", str(tiny_checkpoint), "--input=-", "--input_format=jsonl", "--output=-"]
    status, out, err = run_cli(*arguments, "--batch_size=1")
    assert status == 1
    assert "standard input, line 3: has the field 'new', for which the csv has no column" in err
    assert list(pd.read_csv(io.StringIO(out)).text) == ["great", "awful", "great"]


def test_another_text_column(tiny_checkpoint: Path, run_cli: Run) -> None:
    Path("in.csv").write_text("review,text\ngreat,1\nawful,2\n")
    base = ("predict", "--ckpt_path", str(tiny_checkpoint), "--input=in.csv", "--output=o.csv")
    assert run_cli(*base, "--text_column=review")[0] == 0
    given = pd.read_csv("o.csv")
    assert run_cli(*base)[0] == 0
    assert abs(given.probability_neg - pd.read_csv("o.csv").probability_neg).max() > 1e-3


# ---- odd texts -----------------------------------------------------------------------------------------------------


def test_empty_texts_have_no_label_and_long_ones_are_cut_as_in_training(tiny_checkpoint: Path, run_cli: Run) -> None:
    long = "great " * 61 + "dull " * 5000  # 64 tokens, with [CLS] and [SEP], are what the model takes
    texts = ["great", "", "  ", None, long, "great " * 61 + "the"]
    Path("in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    status, _, err = run_cli(
        "predict", "--ckpt_path", str(tiny_checkpoint), "--input=in.jsonl", "--output=out.jsonl", "--batch_size=1"
    )
    assert status == 0
    assert "3 reviews are empty" in err
    out = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["text"] for row in out] == texts
    assert [row["label"] is None for row in out] == [False, True, True, True, False, False]
    assert out[1] == {"text": "", **dict.fromkeys(ADDED)}
    cut = expected_probabilities(tiny_checkpoint, ["great " * 61 + "dull"])
    assert out[4]["probability_neg"] == pytest.approx(cut[0, 0], abs=2e-6)


def test_a_file_of_empty_texts_only(tiny_checkpoint: Path, run_cli: Run) -> None:
    Path("in.txt").write_text("\n\n")
    status, _, err = run_cli("predict", "--ckpt_path", str(tiny_checkpoint), "--input=in.txt", "--output=out.csv")
    assert status == 0
    assert "2 reviews are empty" in err
    assert Path("out.csv").read_text().splitlines()[1:] == [",,,,"] * 2


def test_bad_lines_are_named_and_the_rest_is_done(tiny_checkpoint: Path, run_cli: Run) -> None:
    lines = ['{"text": "great"}', "{", '{"txt": 1}', "[1]", '{"text": 3}', "", '{"text": "aw\\u00e9ful"}']
    Path("in.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    status, _, err = run_cli("predict", "--ckpt_path", str(tiny_checkpoint), "--input=in.jsonl", "--output=out.jsonl")
    assert status == 1
    assert err.splitlines()[-1].startswith("error: 6 lines of in.jsonl could not be read and are left out: 2, 3, 4, 5")
    assert "line 5: has int in 'text', not text" in err
    assert "line 8: is not UTF-8" in err
    assert len(Path("out.jsonl").read_text().splitlines()) == 2


def test_half_a_character_in_any_field_is_a_bad_line(tiny_checkpoint: Path, run_cli: Run) -> None:
    """JSON can spell half of a surrogate pair, which no file can hold; a whole one is a character."""
    lines = ['{"text": "great", "user": "\\ud83d"}', '{"text": "awful", "user": "\\ud83d\\ude00"}']
    Path("in.jsonl").write_text("\n".join(lines))
    status, _, err = run_cli("predict", "--ckpt_path", str(tiny_checkpoint), "--input=in.jsonl", "--output=out.jsonl")
    assert status == 1
    assert "line 1: is not UTF-8" in err
    assert [json.loads(line)["user"] for line in Path("out.jsonl").read_text().splitlines()] == ["😀"]


# ---- models and mistakes -------------------------------------------------------------------------------------------


def test_the_python_interface_gives_the_logits_of_the_plain_network(
    reviews: pd.DataFrame, tiny_checkpoint: Path
) -> None:
    classifier = load(tiny_checkpoint)
    logits = classifier.logits(list(reviews.text), batch_size=7)
    assert logits.shape == (40, 2)
    expected = expected_probabilities(tiny_checkpoint, list(reviews.text))
    np.testing.assert_allclose(probabilities(logits, classifier.task), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        (["--ckpt_path=nowhere.ckpt"], 1, "no checkpoint nowhere.ckpt"),
        (["--ckpt_path=."], 1, "no config.json"),
        (["--ckpt_path=model.onnx"], 1, "no ONNX file"),
        (["--ckpt_path=best"], 1, "no run has a best.ckpt yet"),
        (["--input=nowhere.csv"], 1, "no input file nowhere.csv"),
        (["--input=in.doc"], 1, "--input_format"),
        (["--input=in.csv", "--text_column=review"], 1, "--text_column"),
        (["--input=empty.csv"], 1, "is empty"),
        (["--output=in.csv"], 1, "is the input itself"),
        (["--output=out.xlsx"], 2, "--output_format"),
        (["--output=folder.csv"], 1, "is a folder"),
        (["--output=in.csv/out.csv"], 1, "cannot be made"),
        (["--batch_size=0"], 2, "1 or more"),
        (["--batch_size=many"], 2, "batch_size"),
        (["--nonsense=1"], 2, "nonsense"),
    ],
)
def test_mistakes_are_told_in_one_line(
    change: list[str], status: int, reason: str, run_cli: Run, tiny_checkpoint: Path
) -> None:
    Path("in.csv").write_text("text\ngreat\n")
    Path("in.doc").write_text("great\n")
    Path("empty.csv").write_text("")
    Path("folder.csv").mkdir()
    options = {"--ckpt_path": str(tiny_checkpoint), "--input": "in.csv", "--output": "out.csv"}
    options |= dict(item.split("=") for item in change)
    found, _, err = run_cli("predict", *(f"{name}={value}" for name, value in options.items()))
    assert found == status
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    assert reason in err


def test_a_full_disk_is_told_in_one_line(run_cli: Run, tiny_checkpoint: Path) -> None:
    Path("in.csv").write_text("text\ngreat\n")
    base = ("predict", "--ckpt_path", str(tiny_checkpoint), "--input=in.csv")
    status, _, err = run_cli(*base, "--output=/dev/full", "--output_format=csv")
    assert status == 1
    assert err.splitlines()[-1] == "error: /dev/full could not be written: no space left on the device"


def test_an_option_that_is_missing_is_told_in_one_line(run_cli: Run) -> None:
    status, _, err = run_cli("predict", "--input=in.csv")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "ckpt_path" in err


def test_lightning_is_not_imported(tiny_checkpoint: Path) -> None:
    Path("in.csv").write_text("text\ngreat\n")
    program = (
        "import sys; from src.__main__ import main\n"
        f"status = main(['predict', '--ckpt_path={tiny_checkpoint}', '--input=in.csv', '--output=out.csv'])\n"
        "heavy = {'lightning', 'torchmetrics', 'datasets', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else status)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
