"""A folder in which commands run while their writes fail, and what must hold in it afterwards."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from src.runs.checkpoint_reading import read_checkpoint
from src.system.checksums import CHECKSUMS, is_whole, verify_checksums


class Site(NamedTuple):
    """A kind of write: `open`, `write`, `truncate`, `fsync`, `rename` or `mkdir`, and a pattern of paths."""

    operation: str
    pattern: str


class Fault(NamedTuple):
    """The `nth` write of a kind fails with the error number `code`."""

    site: Site
    nth: int
    code: int


_NONE = Fault(Site("", ""), 0, 0)


@dataclass(frozen=True)
class World:
    """Everything that a command may write lies below `root`: its folder `work`, the caches `hf` and $TMPDIR `tmp`."""

    root: Path
    server: subprocess.Popen[str]

    @property
    def work(self) -> Path:
        return self.root / "work"

    def run(self, args: Sequence[str], fault: Fault = _NONE) -> tuple[int, str]:
        """The exit status and standard error of a command."""
        beside = self.root.parent
        (beside / "trace").unlink(missing_ok=True)
        numbers = [*fault.site, fault.nth, fault.code]
        order = {"args": args, "log": f"{beside}/log", "trace": f"{beside}/trace", "fault": numbers}
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline()), (beside / "log").read_text()

    def writes(self) -> list[Site]:
        """Those of the last command, in their order."""
        lines = (self.root.parent / "trace").read_text().splitlines()
        return [Site(operation, _pattern(path)) for operation, _, path in (line.partition(" ") for line in lines)]

    def keep(self) -> None:
        """Remembers everything, for `restore`."""
        shutil.copytree(self.root, self.root.with_name("kept"))

    def restore(self) -> None:
        """Puts everything back as it was."""
        for path in (self.root / "hf", self.root / "tmp", *self.work.iterdir()):  # the server stands in `work`
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.root.with_name("kept"), self.root, dirs_exist_ok=True)

    def leftovers(self) -> list[str]:
        """Files that nobody will look for: unfinished ones, locks of outputs, and those in $TMPDIR."""
        below = [path.relative_to(self.root) for path in self.root.rglob("*")]
        hidden = [str(path) for path in below if path.name[0] == "." and path.suffix in (".tmp", ".lock")]
        # ONNX Runtime leaves .ses
        return hidden + [str(path) for path in below if path.parts[0] == "tmp" and path.name not in ("tmp", ".ses")]

    def check_files(self) -> None:
        """Every file under its final name is whole."""
        for path in self.work.rglob("*"):
            if path.suffix == ".ckpt":
                read_checkpoint(path)
            elif path.name == CHECKSUMS:
                verify_checksums(path.parent, "*")
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.name == "config.yaml":
                assert yaml.safe_load(path.read_text()), path
        for folder in (self.root / "hf" / "datasets" / "prepared-reviews").glob("*/"):
            if folder.is_dir():
                assert is_whole(folder), folder


def _pattern(path: str) -> str:
    """The path, with `*` for what differs from run to run."""
    uuids = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8,}"
    random = r"(?<=/\.tmp)\w{6}|(?<=/tmp)\w{8}|(?<=quant\.)\w{8}|(?<=tfevents).*"
    return re.sub(f"{uuids}|{random}", "*", path)


@contextmanager
def started(folder: Path) -> Iterator[World]:
    """A world in `folder`, with its fork server."""
    library = folder / "failing_writes.so"
    source = Path(__file__).with_name("failing_writes.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    root = folder / "root"
    for name in ("work", "hf", "tmp"):
        (root / name).mkdir(parents=True)
    env = os.environ | {
        "LD_PRELOAD": str(library),
        "WRITES_BELOW": str(root),
        "HF_HOME": str(root / "hf"),
        "TMPDIR": str(root / "tmp"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "tests.faults.fork_server"]
    with subprocess.Popen(
        command, cwd=root / "work", env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        yield World(root, server)
        server.kill()
