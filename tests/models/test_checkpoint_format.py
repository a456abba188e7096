"""The checkpoint's section: round trip, and the error for another format."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src.data.tokenization import tokenizer_facts
from src.models.checkpoint_format import FORMAT, Archive
from src.runs.checkpoint_reading import Checkpoint, read_checkpoint

Run = Callable[..., tuple[int, str, str]]


def test_section_round_trip(tiny_checkpoint: Path) -> None:
    content = read_checkpoint(tiny_checkpoint).content
    once = Archive.of(Checkpoint(tiny_checkpoint, content))
    again = Archive.of(Checkpoint(tiny_checkpoint, content | {Archive.SECTION: once.section}))
    assert tokenizer_facts(again.tokenizer) == tokenizer_facts(once.tokenizer)
    assert again.config.to_dict() == once.config.to_dict()
    assert (again.labels, again.prepared) == (once.labels, once.prepared)
    assert (again.encoder.max_length, again.encoder.truncation) == (once.encoder.max_length, once.encoder.truncation)
    assert torch.equal(again.texts, once.texts)


@pytest.mark.parametrize("found", [None, FORMAT + 1])
def test_another_format_is_refused_by_every_command(found: int | None, tiny_checkpoint: Path, run_cli: Run) -> None:
    """`None` is a checkpoint from before there was a format number."""
    content = torch.load(tiny_checkpoint, weights_only=True)
    del content[Archive.SECTION]["format"]
    content[Archive.SECTION] |= {"format": found} if found else {}
    torch.save(content, "old.ckpt")
    config = f"--config={tiny_checkpoint.parents[1] / 'config.yaml'}"
    Path("in.csv").write_text("text\ngreat\n")
    for command in (
        ["predict", "--input=in.csv", "--output=out.csv"],
        ["export", "--output=model"],
        ["test", config],
        ["fit", config],
    ):
        status, _, err = run_cli(command[0], "--ckpt_path=old.ckpt", *command[1:])
        assert status == 1
        assert f"old.ckpt was written by another version of this program (format {found or 1}; " in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("with_code", [True, False], ids=["code", "auto_map alone"])
def test_code_of_a_stranger_is_not_run(with_code: bool, tiny_checkpoint: Path, run_cli: Run) -> None:
    """A tokenizer may name a class of its own (auto_map); no question is asked, and none of its code is written."""
    content = torch.load(tiny_checkpoint, weights_only=True)
    files = content[Archive.SECTION]["tokenizer"]
    settings = json.loads(files["tokenizer_config.json"]) | {"auto_map": {"AutoTokenizer": [None, "mine.Mine"]}}
    files["tokenizer_config.json"] = json.dumps(settings)
    if with_code:
        files["mine.py"] = "from pathlib import Path\nPath('ran').touch()\nclass Mine: pass\n"
    torch.save(content, "stranger.ckpt")
    Path("in.csv").write_text("text\nyes\n")
    status, out, err = run_cli("predict", "--ckpt_path=stranger.ckpt", "--input=in.csv", "--output=out.csv")
    assert not Path("ran").exists()
    assert "[y/N]" not in out + err
    if with_code:
        assert (status, err.count("\n")) == (1, 1)
        assert "has the file 'mine.py', which is none of a tokenizer's files" in err
    else:
        assert status == 0, err


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        *((name, None) for name in ("config", "tokenizer", "texts", "max_length", "truncation", "labels")),
        ("config", {"model_type": "no such model"}),
        ("config", {"hidden_size": 32}),
        ("tokenizer", {"tokenizer.json": "{", "tokenizer_config.json": "{}"}),
        ("tokenizer", {}),
        ("texts", [1, 2]),
        ("max_length", "64"),
        ("max_length", -1),
        ("truncation", "middle"),
        ("labels", ["only"]),
        ("labels", [1, 2]),
        ("labels", "ab"),
    ],
    ids=str,
)
@pytest.mark.parametrize("missing", [False, True])
def test_stored_settings_are_input(
    entry: str, value: object, missing: bool, tiny_checkpoint: Path, run_cli: Run
) -> None:
    """What is missing or no such value is refused in one line, as an option would be."""
    content = torch.load(tiny_checkpoint, weights_only=True)
    content[Archive.SECTION][entry] = value
    if missing:
        del content[Archive.SECTION][entry]
    torch.save(content, "damaged.ckpt")
    Path("in.csv").write_text("text\ngreat\n")
    status, _, err = run_cli("predict", "--ckpt_path=damaged.ckpt", "--input=in.csv", "--output=out.csv")
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("error: ")
    assert not Path("out.csv").exists()
