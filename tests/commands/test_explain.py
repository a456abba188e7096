"""`explain` on real files with a tiny model."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from src.inference.classifier import load, probabilities

pytest.importorskip("captum")

Run = Callable[..., tuple[int, str, str]]
HOSTILE = '</script><img src=x onerror="document.title=1"><!-- great \u2028 film'


def test_each_text_gets_its_label_and_a_weight_for_each_word(tiny_checkpoint: Path, run_cli: Run) -> None:
    texts = ["the film was great", "", "great music\nand a charming end 🙂"]
    Path("in.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts) + "\n[1]\n")
    status, _, err = run_cli("explain", f"--ckpt_path={tiny_checkpoint}", "--input=in.jsonl", "--output=a/out.jsonl")
    assert status == 1
    assert "in.jsonl, line 4: is a JSON list" in err
    assert err.splitlines()[-1] == "error: 1 lines of in.jsonl could not be read and are left out"
    rows = [json.loads(line) for line in Path("a/out.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rows] == [1, 3]
    classifier = load(tiny_checkpoint)
    for row, text in zip(rows, texts[::2], strict=True):
        assert "".join(piece["text"] for piece in row["pieces"]) == row["text"] == text
        assert sum(piece["weight"] for piece in row["pieces"]) == pytest.approx(row["difference"], rel=0.021)
        assert row["gap"] <= 0.02
        assert row["score"] == pytest.approx(probabilities(classifier.logits([text]), classifier.task).max(), abs=2e-6)
    assert max(rows[0]["pieces"], key=lambda piece: piece["weight"])["text"] == "great"


def test_a_page_holds_texts_as_data(tiny_checkpoint: Path, run_cli: Run) -> None:
    Path("in.jsonl").write_text(json.dumps({"text": HOSTILE}) + "\n")
    command = ["explain", f"--ckpt_path={tiny_checkpoint}", "--input=in.jsonl", "--output=out.html"]
    assert run_cli(*command)[:2] == (0, "Written to out.html\n")
    page = Path("out.html").read_text("utf-8")
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "://" not in page
    data = page.partition('<script type="application/json">')[2].partition("</script>")[0]
    assert json.loads(data)["text"] == HOSTILE


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"--output": "out.csv"}, 2, "neither in .html nor in .jsonl"),
        ({"--output": "folder.html"}, 1, "a folder"),
        ({"--input": "nowhere.csv"}, 1, "no input file"),
        ({"--input": "in.jsonl", "--output": "in.jsonl"}, 1, "the input itself"),
        ({"--ckpt_path": "model.onnx"}, 1, "has no gradients"),
        ({"--ckpt_path": "nowhere.ckpt"}, 1, "no checkpoint nowhere.ckpt"),
        ({"--ckpt_path": "."}, 1, "no config.json"),
    ],
)
def test_mistakes_are_told_in_one_line(
    change: dict[str, str], status: int, words: str, run_cli: Run, tiny_checkpoint: Path
) -> None:
    Path("in.jsonl").write_text('{"text": "great"}\n')
    Path("folder.html").mkdir()
    options = {"--ckpt_path": str(tiny_checkpoint), "--input": "in.jsonl", "--output": "out.html"} | change
    before = sorted(Path().iterdir())
    found, _, err = run_cli("explain", *(f"{name}={value}" for name, value in options.items()))
    assert found == status
    assert len(err.splitlines()) == 1
    assert words in err
    assert sorted(Path().iterdir()) == before
    assert Path("in.jsonl").read_text() == '{"text": "great"}\n'


def test_a_missing_extra_is_named(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    status, _, err = run_cli("explain", "--ckpt_path=best", "--input=a.csv", "--output=b.html")
    assert status == 1
    assert err == "error: explain needs captum: pip install -c constraints.txt -e '.[explain]'\n"


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no Chromium here")
def test_the_page_shades_words_in_a_browser(tiny_checkpoint: Path, run_cli: Run) -> None:
    pytest.importorskip("selenium")
    from docs.screenshots import chromium

    Path("in.txt").write_text(f"{HOSTILE}\nthe awful plot was great\n")
    assert run_cli("explain", f"--ckpt_path={tiny_checkpoint}", "--input=in.txt", "--output=out.html")[0] == 0
    with chromium() as driver:
        driver.get(Path("out.html").absolute().as_uri())
        texts = [each.get_property("textContent") for each in driver.find_elements("css selector", ".text")]
        assert texts == [HOSTILE, "the awful plot was great"]
        assert not driver.find_elements("css selector", "img")
        assert driver.title == "Words that decide"
        kinds = {
            span.text.strip(): span.get_attribute("class")
            for span in driver.find_elements("css selector", "article:last-of-type .text span")
        }
        assert {kinds["awful"], kinds["great"]} == {"for", "against"}
        shade = driver.find_element("css selector", ".text .for").value_of_css_property("background-color")
        assert shade not in ("rgba(0, 0, 0, 0)", "transparent")
        assert driver.get_log("browser") == []
