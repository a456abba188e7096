"""Sections of docs/results.md: tables, goals, and the command, date, machine and versions below each."""

import importlib.metadata
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.processes import ROOT

RESULTS = ROOT / "docs" / "results.md"


def publish(title: str, body: str, program: str, args: Sequence[str] | None, section: str | None) -> None:
    """Prints a section of docs/results.md, and writes it there.

    Args:
        title: without the #.
        body: Markdown.
        program: the module to run with `python -m` to get this again.
        args: its arguments; None for those of this process.
        section: name of the marker comments around it; None writes nothing.
    """
    text = f"## {title}\n\n{body}\n\n{command_line(program, args)}. {provenance()}"
    print("\n" + text)
    if section:
        write_section(RESULTS, section, text)
        print(f"\nWritten to {RESULTS}")


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


# ---- tables ----------------------------------------------------------------------------------------------------------


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; all columns but the first are flush right."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def median_and_range(found: Sequence[float], form: str) -> str:
    """The median of several measurements with the lowest and highest; `form` formats one figure."""
    median = form.format(statistics.median(found))
    return median if len(found) == 1 else f"{median} ({form.format(min(found))} to {form.format(max(found))})"


def median_ratio(mine: Sequence[float], peers: Sequence[float]) -> float:
    """The median over repeats of the ratio within each repeat, which the machine's drift between repeats leaves out."""
    return statistics.median(m / p for m, p in zip(mine, peers, strict=True))


def at_least(goal: float, measured: float, unit: str = "") -> str:
    """A goal as a table shows it, with "missed" where the measurement is below it."""
    return f"at least {goal}{unit}" + ("" if measured >= goal else ", missed")


def at_most(goal: float, measured: float, unit: str = "") -> str:
    """A goal as a table shows it, with "missed" where the measurement is above it."""
    return f"at most {goal}{unit}" + ("" if measured <= goal else ", missed")


# ---- provenance ------------------------------------------------------------------------------------------------------


def command_line(program: str, args: Sequence[str] | None) -> str:
    """The command that prints a table; `args` are None for those of this process."""
    return f"Command: `{shlex.join(['python', '-m', program, *(sys.argv[1:] if args is None else args)])}`"


def provenance() -> str:
    """The date, the machine and the versions of a measurement."""
    listed = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{time.strftime('%Y-%m-%d')}, {machine()}; {listed}."


def versions() -> dict[str, str]:
    """Of Python and the libraries that matter for speed."""
    found = {"python": platform.python_version()}
    for name in ("torch", "lightning", "transformers", "accelerate", "datasets", "tokenizers", "onnxruntime"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """The processor, its cores that this process may use, the memory and the kernel."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (found := re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())):
        model = found[1].strip()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}"
