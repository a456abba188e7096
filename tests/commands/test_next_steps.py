"""What `fit` and `test` print at their end."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]


def test_a_pretraining_is_to_be_exported_and_fine_tuned(run_cli: Run, tiny_pretraining: list[str]) -> None:
    status, out, err = run_cli("fit", *tiny_pretraining, "--trainer.max_epochs=1")
    assert status == 0, err
    best = "lightning_logs/version_0/checkpoints/best.ckpt"
    assert "Best validation MLM loss: " in out
    assert f"Export it:       python -m src export --ckpt_path {best} --output my-bert\n" in out
    command = "python -m src fit --config configs/imdb.yaml --model.model_name_or_path my-bert"
    assert f"Fine-tune it:    {command}\n" in out
    assert "See the curves:  tensorboard --logdir lightning_logs\n" in out


@pytest.mark.parametrize("name", ["-a [b] 'c' \"d\"", "~$HOME", "a::b;c&d"])
def test_what_is_printed_works_when_it_is_pasted(
    name: str, run_cli: Run, tiny_options: list[str], tmp_path: Path
) -> None:
    """Also where the names are not those that a shell, Lightning or YAML takes as they are."""
    root = Path(name)
    root.mkdir()
    table = root / f"{name}.csv"
    synthetic_reviews(120).to_csv(table, index=False)
    options = [*tiny_options, f"--data.dataset=./{table}", "--trainer.max_epochs=1"]
    printed = []
    for where in ([f"--trainer.default_root_dir=./{name}"], []):
        status, out, err = run_cli("fit", *options, *where)
        assert status == 0, err
        (test,) = pasted(out, "Test it")
        status, out, err = run_cli(*test)
        assert status == 0, err
        printed += pasted(out, "Label your own") + pasted(out, "Export it")
        (logs,) = re.findall("tensorboard --logdir (.*)", out)
        assert (Path(*shlex.split(logs)) / "version_0" / "test.json").is_file()
    for i, command in enumerate(printed):
        own = {"reviews.csv": f"./{table}", "labels.csv": f"./{name}/{i}.csv", "my-model": f"./{name}/{i}"}
        status, _, err = run_cli(*(own.get(part, part) for part in command))
        assert status == 0, err
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [table.name, "lightning_logs", "0.csv", "1", "2.csv", "3"]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "lightning_logs"])
    for version in tmp_path.rglob("version_0"):
        assert len(list(version.glob("events*"))) == 2


def pasted(out: str, purpose: str) -> list[list[str]]:
    """The arguments of the commands that are printed for a purpose, as a shell would give them."""
    return [shlex.split(line)[3:] for line in re.findall(f"{purpose}: +(python -m src .*)", out)]
