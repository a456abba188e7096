"""Each write of each command fails in turn, whichever library does it: one line, whole files, and it works again.

CI tries a few writes of each command; FAULTS=all, as `make stress` sets it, every one with every error.
"""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import Fault, World, started

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

_ERRORS = (errno.ENOSPC, errno.EIO, errno.ESTALE)
_ALL = os.environ.get("FAULTS") == "all"
_CASES_IN_CI = 3


@pytest.fixture(scope="module")
def options(tiny_options: list[str]) -> list[str]:
    return [*tiny_options, "--trainer.max_epochs=2", "--data.train_size=16", "--data.val_size=8", "--data.test_size=8"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, options: list[str]) -> Iterator[World]:
    """With a finished run, and its prepared data in the cache."""
    with started(tmp_path_factory.mktemp("faults")) as world:
        assert world.run(["fit", *options]) == (0, "")
        world.keep()
        yield world


def _fit(options: list[str], _: Path) -> list[str]:
    return ["fit", *options]


def _go_on(*_: object) -> list[str]:
    return ["fit", "--ckpt_path", "last", "--trainer.max_epochs=3"]


def _test(*_: object) -> list[str]:
    return ["test", "--ckpt_path", "best"]


def _predict(_: list[str], reviews: Path) -> list[str]:
    return ["predict", "--ckpt_path", "best", "--input", str(reviews), "--output", "out.csv"]


def _export(*_: object) -> list[str]:
    return ["export", "--ckpt_path", "best", "--output", "model"]


def _export_onnx(*_: object) -> list[str]:
    return [*_export(), "--onnx", "--int8"]


_COMMANDS = {
    "fit": _fit,
    "fit with an empty cache": _fit,
    "resume": _go_on,
    "test": _test,
    "predict": _predict,
    "export": _export,
    "export to ONNX": _export_onnx,
}


@pytest.mark.parametrize("name", _COMMANDS)
def test_a_write_that_fails_costs_nothing(world: World, options: list[str], reviews_csv: Path, name: str) -> None:
    args = _COMMANDS[name](options, reviews_csv)

    def begin() -> None:
        world.restore()
        if "empty cache" in name:
            shutil.rmtree(world.root / "hf" / "datasets")

    begin()
    status, err = world.run(args)
    assert status == 0, err
    expected = _output(world)
    problems = []
    for fault in _faults(world):
        begin()
        if said := "; ".join(_problems(world, args, fault, expected)):
            problems.append(f"{errno.errorcode[fault.code]} in {' '.join(fault.site)}, no. {fault.nth}: {said}")
    assert not problems, "\n".join(problems)


def _faults(world: World) -> list[Fault]:
    """Of the writes of the last command: all, with every error, at the first and the last; or a few of them."""
    counts = Counter(world.writes())
    if _ALL:
        return [Fault(site, nth, code) for site, n in counts.items() for nth in {1, n} for code in _ERRORS]
    sites = [list(counts)[i * len(counts) // _CASES_IN_CI] for i in range(_CASES_IN_CI)]
    return [Fault(site, 1 if i % 2 else counts[site], _ERRORS[i % 3]) for i, site in enumerate(sites)]


def _problems(world: World, args: list[str], fault: Fault, expected: bytes) -> Iterator[str]:
    """What is wrong after a command in which a write has failed. Libraries may do without the file (exit status 0)."""
    status, err = world.run(args, fault)
    if fault.site not in world.writes():
        yield "it was not written this time"
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    if status not in (0, 1) or len(lines) != status or "Traceback" in err:
        yield f"exit status {status}, and said was: {err[-500:]}"
    if left := world.leftovers():
        yield f"left behind: {left}"
    try:
        world.check_files()
    except Exception as error:  # whatever reading them says
        yield f"a file is damaged: {error!r}"
    if status == 0:
        shutil.rmtree(world.work / "model", ignore_errors=True)  # an export replaces nothing
    again, err = world.run(args)
    if again or _output(world) != expected or world.leftovers():
        yield f"the same command afterwards: exit status {again}, {world.leftovers()}, {err[-500:]}"


def _output(world: World) -> bytes:
    """What `predict` has written."""
    path = world.work / "out.csv"
    return path.read_bytes() if path.is_file() else b""
