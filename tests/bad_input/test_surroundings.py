"""Folders that cannot be written and full disks."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.world import MISTAKE, USAGE, Cases, World

CASES: Cases = {
    "a root below a file": (
        lambda w: w.fit(f"--trainer.default_root_dir={w.file('file') / 'below'}"),
        MISTAKE,
        ["file/below"],
    ),
    "a root that cannot be written": (
        lambda w: w.fit("--trainer.default_root_dir=/proc/nowhere"),
        MISTAKE,
        ["/proc/nowhere"],
    ),
}

_LONG = {"a long name": "n" * 256, "a long path": "/".join(["n" * 200] * 21)}
_PATHS = {**_LONG, "a home of nobody": "~no-such-user/x", "a path below a file": "file/x"}
_OPTIONS: dict[str, Callable[[World, str], list[str]]] = {
    "--trainer.default_root_dir": lambda w, path: w.fit(f"--trainer.default_root_dir={path}"),
    "--data.dataset": lambda w, path: w.fit(f"--data.dataset={path}"),
    "--config": lambda w, path: w.fit(f"--config={path}"),
    "fit --ckpt_path": lambda w, path: w.fit(f"--ckpt_path={path}"),
    "predict --ckpt_path": lambda w, path: _predict(w, f"--ckpt_path={path}"),
    "predict --input": lambda w, path: _predict(w, f"--input={path}"),
    "predict --output": lambda w, path: _predict(w, f"--output={path}"),
    "export --ckpt_path": lambda w, path: ["export", f"--ckpt_path={path}", f"--output={w.here / 'out'}"],
    "export --output": lambda w, path: ["export", f"--ckpt_path={w.checkpoint}", f"--output={path}"],
}


def _predict(world: World, option: str) -> list[str]:
    ordinary = [f"--ckpt_path={world.checkpoint}", f"--input={world.file('in.txt', 'good')}", "--output=out.csv"]
    return ["predict", *ordinary, "--input_format=txt", "--output_format=csv", option]


CASES |= {
    f"{path} in {option}": (
        lambda w, make=make, value=value: (w.file("file"), make(w, value))[1],  # type: ignore[misc]
        USAGE if option == "--config" else MISTAKE,
        [],
    )
    for option, make in _OPTIONS.items()
    for path, value in _PATHS.items()
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(expect_one_line: Callable[..., None], name: str) -> None:
    expect_one_line(*CASES[name])


_LIMITED = """
import resource, sys
from pathlib import Path
from src.__main__ import main

limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "options", "words"),
    [
        (3_000, [], ["no space left on the device", "prepared"]),
        (85_000, ["--data.train_size=180", "--data.max_length=128"], ["no space left on the device", "prepared"]),
        (150_000, [], ["best.ckpt could not be written: no space left on the device"]),
    ],
    ids=["reading", "preparing", "saving"],
)
def test_no_space_left_is_said(world: World, limit: int, options: list[str], words: list[str]) -> None:
    """A limit on the size of files stands for a full disk; programs see the same kind of error."""
    environment = os.environ | {"HF_HOME": str(world.here / "cache")}
    ended = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(limit), *world.fit(*options)],
        cwd=world.here,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("error: ")
    for word in words:
        assert word in ended.stderr
    left = [path for path in world.here.rglob("*") if path.suffix in (".tmp", ".ckpt")]
    assert not left, "something half-written"
