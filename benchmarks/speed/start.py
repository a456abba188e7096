"""Start-up: from the command to the first training step, beside the tutorial's script with the Hugging Face Trainer.

    python -m benchmarks.speed.start                 # ten pairs: about 4 minutes on 2 cores
    python -m benchmarks.speed.start --quick         # one pair, which writes no results

The programs are those of `benchmarks.speed.training`, A and ours with A's recipe, stopped after one step. Nearly all of
it is imports, whose time varies by a quarter from one process to the next: hence the many pairs.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from benchmarks.common import RESULTS, WORK, Progress, at_most, markdown_table, provenance, run_process, write_section
from benchmarks.speed.training import measure, train_command
from benchmarks.speed.training_page import median_and_range, median_ratio
from benchmarks.speed.training_variants import VARIANTS

_COMPARED = ["A", "same"]


def start_seconds(name: str, warm: bool) -> float:
    """One process: the time from its command to the beginning of its first step; `warm` fills the caches before."""
    log = WORK / "logs" / f"start-{name}.log"
    command = train_command(VARIANTS[name], 16, 8, WORK / "runs" / f"start-{name}") + VARIANTS[name].one_step
    if warm:
        run_process(command, log)
    report, process = measure(command, log)
    return float(report["first_step_at"]) - process.started


def render(found: dict[str, list[float]]) -> str:
    """The table, from the seconds of each variant, pair by pair."""
    ratio = median_ratio(found["same"], found["A"])
    rows = [[VARIANTS[name].name, median_and_range(found[name], "{:.1f}"), "", ""] for name in _COMPARED]
    rows[1][2:] = [f"{ratio:.2f}×", at_most(1, ratio, "×")]
    return markdown_table(["command to first step", "seconds", "ratio within a pair, median", "goal"], rows)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="one pair: shows that it works, writes no results")
    settings = parser.parse_args(args)
    pairs = 1 if settings.quick else settings.pairs
    found: dict[str, list[float]] = {name: [] for name in _COMPARED}
    progress = Progress([10.0] * pairs * len(_COMPARED))
    for pair in range(pairs):
        for name in _COMPARED[:: 1 if pair % 2 == 0 else -1]:
            progress.start(f"{VARIANTS[name].name}, {pair + 1} of {pairs}")
            found[name].append(start_seconds(name, warm=pair == 0 and not settings.quick))
            progress.end(f"first step after {found[name][-1]:.1f} s")
    command = shlex.join(["python", "-m", "benchmarks.speed.start", *(sys.argv[1:] if args is None else args)])
    text = f"""## Start-up, beside the Hugging Face Trainer

From the command to the beginning of the first training step, the data cached by an earlier run, {pairs} pairs.

{render(found)}

{provenance(command)}"""
    print("\n" + text)
    if not settings.quick:
        write_section(RESULTS, "start", text)
        print(f"\nWritten to {RESULTS}")


if __name__ == "__main__":
    main()
