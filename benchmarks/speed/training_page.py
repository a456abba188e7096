"""What the processes of `benchmarks.speed.training` came to: figures of each, and the tables."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common import at_least, at_most, markdown_table


def figures(row: dict[str, Any], flops: float, reviews: int) -> dict[str, float]:
    """What one training process shows, `flops` being the operations that its real tokens need."""
    seconds = sum(step[0] for step in row["steps"])
    rate = statistics.median(row["gemm"]) if row["gemm"] else float("nan")
    return {
        "train": reviews / seconds,
        "seconds": seconds,
        "before": row["before_s"],
        "evaluate": row["evaluated"] / row["evaluation_s"],
        "memory": row["max_rss_mib"],
        "faults": statistics.median(step[1] for step in row["steps"]),
        "share": flops / seconds / rate,
        "gemm": rate / 1e9,
    }


def median_ratio(mine: Sequence[float], peers: Sequence[float]) -> float:
    """The median over repeats of the ratio within each repeat: the machine's drift between repeats falls out."""
    return statistics.median(m / p for m, p in zip(mine, peers, strict=True))


_ROWS = [
    ("training, reviews/s", "train", "{:.2f}"),
    ("share of the GEMM rate", "share", "{:.0%}"),
    ("evaluation, reviews/s", "evaluate", "{:.2f}"),
    ("peak memory, MiB", "memory", "{:,.0f}"),
    ("page faults a step", "faults", "{:,.0f}"),
    ("GEMM rate in these runs, GFLOP/s", "gemm", "{:.0f}"),
]


def render(
    titles: Mapping[str, str], training: dict[str, list[dict[str, float]]], rows: dict[int, list[dict[str, Any]]]
) -> str:
    """The tables, from the figures of each variant and of each number of rows, repeat by repeat."""
    values = {name: {key: [f[key] for f in found] for key in found[0]} for name, found in training.items()}
    table = [[title, *(median_and_range(values[name][key], shown) for name in values)] for title, key, shown in _ROWS]
    text = markdown_table(["median (lowest to highest)", *(titles[name] for name in values)], table)

    many, few = max(rows), min(rows)
    prepare = [sum(row["prepare_s"].values()) for row in rows[many]]
    first = [row["first_prepare_s"] for row in rows[many] if row["first_prepare_s"] is not None]

    def ratio(key: str, mine: str, peer: str) -> float:
        return median_ratio(values[mine][key], values[peer][key])

    memory = median_ratio([r["max_rss_mib"] for r in rows[many]], [r["max_rss_mib"] for r in rows[few]])
    goals = [
        _at_least("training, A's recipe, against A", ratio("train", "same", "A"), 3.4),
        _at_least("training, A's recipe, against B", ratio("train", "same", "B"), 1.4),
        _at_least("training, 256 tokens, against A", ratio("train", "short", "A"), 5.5),
        (
            "training, 256 tokens, share of the GEMM rate",
            f"{(share := 100 * statistics.median(values['short']['share'])):.0f}%",
            at_least(70, share, "%"),
        ),
        (
            "the whole training, windows: the probe and 2 epochs, against A's 3 epochs",
            f"{(whole := median_ratio(_whole(values['windows'], 2), _whole(values['A'], 3))):.2f}×",
            at_most(1, whole, "×"),
        ),
        _at_least("evaluation, A's recipe, against A", ratio("evaluate", "same", "A"), 2.0),
        _at_most("peak memory, A's recipe, against A", ratio("memory", "same", "A"), 1),
        (
            f"preparing {many:,} reviews, second launch",
            f"{(seconds := statistics.median(prepare)):.2f} s",
            at_most(1, seconds, " s"),
        ),
        _at_most(f"peak memory, {many:,} reviews against {few:,}", memory, 1.1),
    ]
    text += "\n\n" + markdown_table(["ratio within a repeat, median", "measured", "goal"], goals)
    if first:
        text += f"\n\nPreparing {many:,} reviews at the first launch took {statistics.median(first):.0f} s."
    return text


def _whole(found: Mapping[str, Sequence[float]], epochs: int) -> list[float]:
    """Seconds of a training of so many epochs, from the time of one."""
    return [before + epochs * seconds for before, seconds in zip(found["before"], found["seconds"], strict=True)]


def _at_least(what: str, ratio: float, goal: float) -> tuple[str, str, str]:
    return what, f"{ratio:.2f}×", at_least(goal, ratio, "×")


def _at_most(what: str, ratio: float, goal: float) -> tuple[str, str, str]:
    return what, f"{ratio:.2f}×", at_most(goal, ratio, "×")


def median_and_range(found: Sequence[float], shown: str) -> str:
    """As a table shows what was measured several times; `shown` is the format of one figure."""
    median = shown.format(statistics.median(found))
    return median if len(found) == 1 else f"{median} ({shown.format(min(found))} to {shown.format(max(found))})"


DEFINITIONS = """\
All read the same rows, in batches of 8, for one epoch, with the same pretrained weights. "A's recipe" has A's dropout
and keeps the first 512 tokens as A does; "256 tokens" keeps the head and the tail of a review, without attention
dropout (`short` in recipes.yaml); "windows" reads all of it and sets the head by a linear probe first
(configs/quickstart.yaml). *Training* is reviews over the time from the first step's start to the last step's end, the
batches' loading included and evaluation excluded; the time of *the whole training* takes the epochs to be alike, and
has, for ours alone, what lies before the first step, the probe included. *Evaluation* is what `trainer.evaluate()`
reports as its run time, and for ours the whole validation loop of `python -m src validate`. *Peak memory* is the
kernel's figure for the whole process. *Page faults* are the median over steps. The *share of the GEMM rate* is the
operations that the plain model needs on the real tokens, without padding (three times the forward pass), a second, over
the fastest fp32 product of two 1,024 × 1,024 matrices, taken between steps all through the same process, the median.
For a small sample B sorts as many batches at a time as it does with 1,000 reviews."""
