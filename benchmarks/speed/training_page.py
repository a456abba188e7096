"""The tables of `benchmarks.speed.training`."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.repeats import Row
from benchmarks.report import at_least, at_most, markdown_table, median_and_range, median_ratio


def figures(row: Row, flops: float, reviews: int) -> dict[str, float]:
    """Figures of one training process; `flops` are the operations that its real tokens need."""
    seconds = sum(step[0] for step in row["steps"])
    rates = {name: statistics.median(row[name] or [float("nan")]) for name in ("gemm", "gemm_bf16")}
    return {
        "train": reviews / seconds,
        "seconds": seconds,
        "before": row["before_s"],
        "evaluate": row["evaluated"] / row["evaluation_s"],
        "memory": row["max_rss_mib"],
        "faults": statistics.median(step[1] for step in row["steps"]),
        "share": flops / seconds / max(rates.values()),
        **{name: rate / 1e9 for name, rate in rates.items()},
    }


_ROWS = [
    ("training, reviews/s", "train", "{:.2f}"),
    ("share of the faster product rate", "share", "{:.0%}"),
    ("evaluation, reviews/s", "evaluate", "{:.2f}"),
    ("peak memory, MiB", "memory", "{:,.0f}"),
    ("page faults a step", "faults", "{:,.0f}"),
    ("fp32 product rate in these runs, GFLOP/s", "gemm", "{:.0f}"),
    ("bf16 product rate in these runs, GFLOP/s", "gemm_bf16", "{:.0f}"),
]


def render(
    titles: Mapping[str, str], training: Mapping[str, list[dict[str, float]]], rows: Mapping[int, list[Row]]
) -> str:
    """The tables, from the figures of each variant and of each number of rows, repeat by repeat."""
    values = {name: {key: [f[key] for f in found] for key in found[0]} for name, found in training.items()}
    table = [[title, *(median_and_range(values[name][key], form) for name in values)] for title, key, form in _ROWS]
    text = markdown_table(["median (lowest to highest)", *(titles[name] for name in values)], table)

    def ratio(key: str, mine: str, peer: str) -> float:
        return median_ratio(values[mine][key], values[peer][key])

    many, few = max(rows), min(rows)
    memory = median_ratio([r["max_rss_mib"] for r in rows[many]], [r["max_rss_mib"] for r in rows[few]])
    shares = {name: 100 * statistics.median(values[name]["share"]) for name in ("windows", "base")}
    whole = median_ratio(_whole(values["windows"], 2), _whole(values["A"], 3))
    prepare = statistics.median(sum(r["prepare_s"].values()) for r in rows[many])
    faster_b = max(("B", "B16"), key=lambda name: statistics.median(values[name]["train"]))
    goals = [
        _at_least("training, A's recipe, against A", ratio("train", "same", "A"), 8),
        _at_least(
            f"training, A's recipe, against the faster B ({titles[faster_b]})", ratio("train", "same", faster_b), 3
        ),
        _at_least("training, windows, against fp32", ratio("train", "windows", "windows32"), 1.8),
        _at_least("training, bert-base's size, against fp32", ratio("train", "base", "base32"), 1.9),
        ("training, windows, share of the faster product rate", *_share(shares["windows"], 60)),
        ("training, bert-base's size, share of the faster product rate", *_share(shares["base"], 80)),
        _at_most("the whole training, windows: the probe and 2 epochs, against A's 3 epochs", whole, 1),
        _at_least("evaluation, A's recipe, against A", ratio("evaluate", "same", "A"), 2.0),
        _at_most("peak memory, A's recipe, against A", ratio("memory", "same", "A"), 0.73),
        (f"preparing {many:,} reviews, second launch", f"{prepare:.2f} s", at_most(1, prepare, " s")),
        _at_most(f"peak memory, {many:,} reviews against {few:,}", memory, 1.1),
    ]
    text += "\n\n" + markdown_table(["ratio within a repeat, median", "measured", "goal"], goals)
    if first := [row["first_prepare_s"] for row in rows[many] if row["first_prepare_s"] is not None]:
        text += f"\n\nPreparing {many:,} reviews at the first launch took {statistics.median(first):.0f} s."
    return text


def _whole(found: Mapping[str, Sequence[float]], epochs: int) -> list[float]:
    """Seconds of a training of so many epochs, from the time of one."""
    return [before + epochs * seconds for before, seconds in zip(found["before"], found["seconds"], strict=True)]


def _share(measured: float, goal: float) -> tuple[str, str]:
    return f"{measured:.0f}%", at_least(goal, measured, "%")


def _at_least(what: str, ratio: float, goal: float) -> tuple[str, str, str]:
    return what, f"{ratio:.2f}×", at_least(goal, ratio, "×")


def _at_most(what: str, ratio: float, goal: float) -> tuple[str, str, str]:
    return what, f"{ratio:.2f}×", at_most(goal, ratio, "×")


DEFINITIONS = """\
All train on the same rows in batches of 8 for one epoch, from the same weights. *A's recipe* has A's dropout and keeps
the first 512 tokens. *256 tokens* keeps head and tail of a review, without attention dropout. *Windows* reads the whole
review and sets the head by a linear probe (configs/quickstart.yaml). *Training* is reviews over the time from the first
step's start to the last step's end. *The whole training* assumes epochs of equal length, and includes our probe.
*Evaluation* is the Trainer's own run time, and our validation loop. *Peak memory* is the kernel's figure for a process.
*Page faults* are the median over steps. *Share of the faster product rate* is the operations needed on real tokens,
without padding, over the faster of two products of 1,024 × 1,024 matrices in the same process, in fp32 and in bf16.
*bert-base's size* is A's recipe with random weights. Ours is in the precision that `fit` chooses by itself: bf16-mixed
on a processor with instructions for it. B sorts as many batches at a time as it does with 1,000 reviews."""
