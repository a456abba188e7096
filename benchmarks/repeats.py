"""Repeated measurements of several variants, alternating, kept on disk so that a stopped program continues."""

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, WORK
from benchmarks.report import versions

Row = dict[str, Any]


def arguments(doc: str | None, reviews: int, repeats: int = 3) -> argparse.ArgumentParser:
    """A parser with the options that all speed benchmarks share."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=reviews, help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=repeats, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="few reviews, once: a smoke run that writes no results")
    return parser


def measure_all(
    name: str,
    settings: Row,
    variants: Iterable[str],
    repeats: int,
    measure: Callable[[str, int], Row],
    brief: Callable[[Row], str],
    minutes: float = math.inf,
) -> dict[str, list[Row]]:
    """Measures each variant in each repeat; every second repeat in reverse order, against the machine's drift.

    Finished measurements are taken from build/bench/NAME.jsonl, if they were made with the same settings, versions and
    code. Delete that file to measure again.

    Args:
        name: of the benchmark.
        settings: all that changes what is measured, except the variant.
        variants: their names.
        repeats: how many.
        measure: measures a variant in a repeat.
        brief: what to print of a measurement.
        minutes: a repeat begins only if one as long as the longest before it would end within them.

    Returns:
        by variant, its rows, repeat by repeat; fewer repeats where time is up.
    """
    store, mark, variants = WORK / f"{name}.jsonl", signature(settings), list(variants)
    done = {(line["variant"], line["repeat"]): line["row"] for line in read_lines(store) if line["signature"] == mark}
    tasks = [(variant, r) for r in range(repeats) for variant in variants[:: 1 if r % 2 == 0 else -1]]
    started = begun = time.monotonic()
    longest = 0.0
    for i, (variant, repeat) in enumerate(tasks, start=1):
        if i > 1 and repeat > tasks[i - 2][1]:
            now = time.monotonic()
            longest, begun = max(longest, now - begun), now
            if now + longest > started + 60 * minutes:
                print(f"{repeat} of {repeats} repeats fit into {minutes:g} minutes", flush=True)
                repeats = repeat
                break
        if (variant, repeat) in done:
            continue
        print(f"[{i}/{len(tasks)}] {variant}, repeat {repeat + 1} of {repeats}", flush=True)
        row = done[variant, repeat] = measure(variant, repeat)
        append_line(store, {"signature": mark, "variant": variant, "repeat": repeat, "row": row})
        print(f"    {brief(row)}", flush=True)
    return {variant: [done[variant, r] for r in range(repeats)] for variant in variants}


def signature(settings: Row) -> str:
    """A hash of settings, versions and code."""
    digest = hashlib.sha256(json.dumps([settings, versions()], sort_keys=True, default=str).encode())
    for path in sorted(path for folder in ("src", "benchmarks", "configs") for path in (ROOT / folder).rglob("*")):
        if path.suffix in (".py", ".yaml"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def read_lines(path: Path) -> list[Row]:
    """The rows of a jsonl file, without a last one that was cut off by a kill; none if there is no file."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def append_line(path: Path, row: Row) -> None:
    """Adds a row to a jsonl file, on disk before it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with path.open("a") as stream:
        stream.write(("\n" if torn else "") + json.dumps(row) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
