"""Every command of docs/your-own-reviews.md, as it is written there, on a small file."""

import ast
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.docs.pages import ROOT, blocks
from tests.synthetic import synthetic_reviews

PAGE = ROOT / "docs" / "your-own-reviews.md"


def test_every_command_of_the_page_runs(
    run_cli: Callable[..., tuple[int, str, str]], tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("configs").symlink_to(ROOT / "configs")
    synthetic_reviews(200).to_csv("reviews.csv", index=False)
    new = synthetic_reviews(20, seed=3)
    new[["text"]].to_csv("new.csv", index=False)
    # the tiny model in place of a real one; it takes 128 tokens
    tiny = [f"--model.model_name_or_path={tiny_bert}", "--data.max_length=64", "--trainer.accelerator=cpu"]
    tiny += ["--model.learning_rate=3e-3", "--trainer.max_epochs=5"]
    commands = [shlex.split(line) for block in blocks(PAGE, "bash") for line in block.splitlines()]
    for command in commands:
        assert command[:3] == ["python", "-m", "src"]
        status, out, err = run_cli(*command[3:], *(tiny if command[3] == "fit" else []))
        assert status == 0, (command, err)
        if command[3] == "test":
            assert "n=40)" in out
    assert [command[3] for command in commands] == ["fit", "fit", "test", "export", "predict", "predict"]
    assert "- Test on reviews.csv (split train, content " in Path("my-classifier/README.md").read_text()
    for table in (pd.read_csv("predictions.csv"), pd.read_json("predictions.jsonl", lines=True)):
        assert list(table.text) == list(new.text)
        assert (table.label == new.label).mean() > 0.8

    theirs, ours = blocks(PAGE, "python")
    capsys.readouterr()
    exec(theirs, {})
    (found,) = ast.literal_eval(capsys.readouterr().out)
    exec(ours, {})
    ((neg, pos),) = ast.literal_eval(re.sub(r"\s+", ",", capsys.readouterr().out.strip()).replace("[,", "["))
    assert found["label"] == ("pos" if pos > neg else "neg")
    assert found["score"] == pytest.approx(1 / (1 + math.exp(-abs(pos - neg))), abs=1e-4)
