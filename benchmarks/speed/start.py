"""Start-up time, from the command to the first training step, beside the tutorial's script.

    python -m benchmarks.speed.start                 # ten pairs: about 4 minutes on 2 cores
    python -m benchmarks.speed.start --quick         # one pair, which writes no results

The programs are A and ours with A's recipe of `benchmarks.speed.training`, stopped after one step. Nearly all of the
time is imports, which vary by a quarter from one process to the next: hence the many pairs.
"""

from collections.abc import Mapping, Sequence

from benchmarks.processes import WORK, run_process, run_recorded
from benchmarks.repeats import Row, arguments, measure_all
from benchmarks.report import at_most, markdown_table, median_and_range, median_ratio, publish
from benchmarks.speed.training import VARIANTS, train_command

_COMPARED = ["A", "same"]


def measure(name: str, warm: bool, reviews: int) -> Row:
    """One process: the time from its command to the start of its first step; `warm` fills the caches before."""
    log = WORK / "logs" / f"start-{name}.log"
    command = train_command(name, reviews, 8, WORK / "runs" / f"start-{name}", one_step=True)
    if warm:
        run_process(command, log)
    report, process = run_recorded(command, log)
    return {"seconds": report["first_step_at"] - process.started}


def render(found: Mapping[str, Sequence[Row]]) -> str:
    """The table, from the rows of each variant, pair by pair."""
    seconds = {name: [row["seconds"] for row in found[name]] for name in _COMPARED}
    ratio = median_ratio(seconds["same"], seconds["A"])
    rows = [[VARIANTS[name].title, median_and_range(seconds[name], "{:.1f}"), "", ""] for name in _COMPARED]
    rows[1][2:] = [f"{ratio:.2f}×", at_most(1, ratio, "×")]
    return markdown_table(["command to first step", "seconds", "ratio within a pair, median", "goal"], rows)


def main(args: Sequence[str] | None = None) -> None:
    given = arguments(__doc__, reviews=16, repeats=10).parse_args(args)
    if given.quick:
        given.repeats = 1
    found = measure_all(
        "start",
        {"reviews": given.reviews},
        _COMPARED,
        given.repeats,
        lambda name, repeat: measure(name, repeat == 0 and not given.quick, given.reviews),
        lambda row: f"first step after {row['seconds']:.1f} s",
    )
    body = f"From the command to the start of the first training step. The data are cached. {given.repeats} pairs."
    body += f"\n\n{render(found)}"
    title = "Start-up, beside the Hugging Face Trainer"
    publish(title, body, "benchmarks.speed.start", args, None if given.quick else "start")


if __name__ == "__main__":
    main()
