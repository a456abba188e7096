"""Kills runs at random moments, resumes them until they are done, and compares each with a run that was never killed.

    python -m benchmarks.stress               # 200 kills over all variants: half an hour on 2 cores
    python -m benchmarks.stress --kills 16 --variants plain "2 ranks"

A tiny BERT on made-up reviews, dropout on, in processes forked from one with everything imported. Two thirds of the
signals are SIGKILL, the others SIGTERM and SIGINT. They come at a random moment of start-up or training, so they hit
steps, validation and checkpoint writes alike. Exits with 1 where a run ends otherwise: a weight, an optimizer state, a
logged figure or a result of `test` differs in one bit (lost bits), or it cannot be resumed or hangs (unfinished).
"""

import argparse
import json
import math
import multiprocessing.process
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from src.runs.directories import BEST, LAST, runs
from tests import processes
from tests.synthetic import synthetic_reviews, write_tiny_bert

# 24 batches an epoch, a checkpoint after every fifth step
_CONFIG = """
data:
  class_path: ImdbDataModule
  init_args: {{dataset: {work}/reviews.csv, train_size: 190, val_size: 40, test_size: 40, max_length: 64}}
model:
  class_path: BertClassifier
  init_args: {{model_name_or_path: {work}/model, learning_rate: 1e-3}}
trainer:
  accelerator: cpu
  max_epochs: 6
  log_every_n_steps: 1
  enable_progress_bar: false
  callbacks:
  - class_path: src.callbacks.last_checkpoint.LastCheckpoint
    init_args: {{every_n_train_steps: 5}}
"""
_TWO_RANKS = [
    "--trainer.devices=2",
    "--trainer.strategy=lightning.pytorch.strategies.DDPStrategy",
    "--trainer.strategy.process_group_backend=gloo",
    "--trainer.strategy.timeout=0:00:30",
]
_VARIANTS = {
    "plain": [],
    "validated every 7 steps": ["--trainer.val_check_interval=7"],
    "accumulated": ["--trainer.accumulate_grad_batches=3", "--data.batch_size=2", "--data.group_by_length=true"],
    "2 workers": ["--data.num_workers=2", "--trainer.val_check_interval=0.5"],
    "bf16-mixed": ["--trainer.precision=bf16-mixed"],
    "bf16-true": ["--trainer.precision=bf16-true"],
    "2 ranks": [*_TWO_RANKS, "--data.batch_size=4"],
    "2 ranks, accumulated": [*_TWO_RANKS, "--data.batch_size=2", "--trainer.accumulate_grad_batches=2"],
}
_KILLS_A_RUN = 6
_SIGNALS = [signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT]
_LIMIT = 180.0
_BEGUN = "effective batch"  # in the line that a run prints when training begins
_TIMES = ["train/reviews_per_s", "train/tokens_per_s"]


@dataclass
class Tally:
    """What became of the runs of a variant.

    Attributes:
        kills: how often a run was killed.
        resumed: how often a run went on from its last checkpoint.
        anew: how often a run began again, since nothing was saved yet.
        runs: that came to their end and were compared.
        lost_bits: runs that differ from the one never killed.
        unfinished: runs that could not be resumed or did not end.
    """

    kills: int = 0
    resumed: int = 0
    anew: int = 0
    runs: int = 0
    lost_bits: int = 0
    unfinished: int = 0


class Variant:
    """The runs with some options, below a folder of their own.

    Args:
        name: of the variant.
        work: folder with the configuration; logs and runs lie below it.
        moments: of the kills.
    """

    def __init__(self, name: str, work: Path, moments: random.Random) -> None:
        self.name = name
        self.work = work
        self.moments = moments
        self.options = [f"--config={work}/stress.yaml", *_VARIANTS[name]]
        self.n_ranks = 2 if _VARIANTS[name][: len(_TWO_RANKS)] == _TWO_RANKS else 1
        self.tally = Tally()

    def run(self, kills: int) -> None:
        """Kills runs so many times in all, and compares each with one that is left alone."""
        folder = self._folder("alone")
        ranks = self._start(folder)
        self._await_training(folder, ranks)
        started = time.monotonic()
        self._await_end(folder, ranks)
        self.seconds = time.monotonic() - started
        expected = self._result(folder)
        while self.tally.kills < kills:
            wanted = min(_KILLS_A_RUN, kills - self.tally.kills)
            folder = self._folder(f"killed_{self.tally.runs + self.tally.unfinished}")
            try:
                self._kill_and_resume(folder, wanted)
                different = differences(self._result(folder), expected)
            except _UnfinishedError as error:
                self.tally.unfinished += 1
                print(f"{self.name}: unfinished: {error}", flush=True)
                continue
            self.tally.runs += 1
            if different:
                self.tally.lost_bits += 1
                print(f"{self.name}: {folder} differs: {', '.join(different)[:1000]}", flush=True)
            else:
                shutil.rmtree(folder)

    def _folder(self, name: str) -> Path:
        folder = self.work / self.name.replace(" ", "_").replace(",", "") / name
        folder.mkdir(parents=True)
        return folder

    def _kill_and_resume(self, folder: Path, kills: int) -> None:
        for _ in range(kills):
            ranks = self._start(folder)
            if self.moments.random() < 0.9:  # the others are killed as they start
                self._await_training(folder, ranks)
            # together about as long as the run, so that most of them fall into it
            time.sleep(self.moments.uniform(0, 1.5 * self.seconds / _KILLS_A_RUN))
            victim = self.moments.choice(ranks)
            if not victim.is_alive():
                break  # it came to its end all the same
            assert victim.pid is not None
            signum = self.moments.choice(_SIGNALS)
            os.kill(victim.pid, signum)
            self.tally.kills += 1
            self._await_end(folder, ranks, killed=True)
            print(f"{self.name}: {folder.name}: {signum.name}, saved: {_step(folder)}", flush=True)
        for _ in range(2):  # the second time it says that it is finished
            self._await_end(folder, self._start(folder))

    def _start(self, folder: Path, command: str = "fit") -> list[multiprocessing.process.BaseProcess]:
        resume = []
        if runs(folder):
            if _step(folder) is not None:
                resume = ["--ckpt_path=last"]
                self.tally.resumed += command == "fit"
            else:  # nothing was saved yet: begin anew, in version_0
                shutil.rmtree(folder / "lightning_logs")
                self.tally.anew += 1
        args = [command, *self.options, f"--trainer.default_root_dir={folder}", *resume]
        if self.n_ranks > 1:
            return [*processes.ranks(args, self.n_ranks, folder)]
        return [processes.start(args, folder / "rank0.log")]

    def _await_training(self, folder: Path, ranks: list[multiprocessing.process.BaseProcess]) -> None:
        log = folder / "rank0.log"
        begun = log.read_text().count(_BEGUN) if log.exists() else 0
        while ranks[0].is_alive() and (not log.exists() or log.read_text().count(_BEGUN) == begun):
            time.sleep(0.02)

    def _await_end(self, folder: Path, ranks: list[multiprocessing.process.BaseProcess], killed: bool = False) -> None:
        """Waits until all ranks have ended, by themselves and well unless one was killed."""
        deadline = time.monotonic() + _LIMIT
        for rank in ranks:
            rank.join(max(0.0, deadline - time.monotonic()))
        hanging = [rank for rank in ranks if rank.is_alive()]
        for rank in hanging:
            rank.kill()
        statuses = [rank.exitcode for rank in ranks]
        if hanging or (not killed and any(statuses)):
            what = f"did not end within {_LIMIT:.0f} s" if hanging else f"ended with {statuses}"
            tail = (folder / "rank0.log").read_text()[-1500:]
            raise _UnfinishedError(f"{folder} {what}:\n{tail}")

    def _result(self, folder: Path) -> dict[str, Any]:
        """What a run left, and what `test` makes of its best checkpoint."""
        args = ["test", *self.options, f"--trainer.default_root_dir={folder}", "--ckpt_path=best"]
        log = folder / "test.log"
        status, output = processes.run([arg for arg in args if arg not in _TWO_RANKS], log)
        if status:
            raise _UnfinishedError(f"the test of {folder} ended with {status}:\n{output[-1500:]}")
        run = runs(folder)[0]
        tested = json.loads((run / "test.json").read_text())
        del tested["checkpoint_digest"], tested["digest"]  # of a file that holds paths, too
        best = torch.load(run / BEST, weights_only=True)
        return {**outcome(folder), "best": best["state_dict"], "best_step": best["global_step"], "test": tested}


class _UnfinishedError(Exception):
    """A run could not be resumed, did not end, or ended badly without having been killed."""


def main() -> int:
    """Returns 0 where all runs ended bit for bit like those that were left alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how often runs are killed, over all (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--variants", nargs="+", choices=_VARIANTS, default=list(_VARIANTS), help="(default: all)")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    work = Path(tempfile.mkdtemp(prefix="stress-"))
    os.environ.update(HF_HOME=str(work / "cache"), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    print(f"runs and logs: {work}", flush=True)
    (work / "stress.yaml").write_text(_CONFIG.format(work=work))
    write_tiny_bert(work / "model")
    synthetic_reviews(300).to_csv(work / "reviews.csv", index=False)
    started = time.monotonic()
    variants = [Variant(name, work, moments) for name in options.variants]
    for done, variant in enumerate(variants):
        left = options.kills - sum(v.tally.kills for v in variants)
        variant.run(math.ceil(left / (len(variants) - done)))
    tallies = [variant.tally for variant in variants]
    total = Tally(*(sum(getattr(tally, field.name) for tally in tallies) for field in fields(Tally)))
    table = pd.DataFrame([*tallies, total], index=[*options.variants, "all"])
    print(f"\n{table.to_string()}\n\n{(time.monotonic() - started) / 60:.0f} minutes")
    if total.lost_bits or total.unfinished:
        return 1
    shutil.rmtree(work)
    return 0


def _step(folder: Path) -> int | None:
    """The step that the newest run has saved, if it has saved any."""
    newest = runs(folder)
    if not newest or not (newest[0] / LAST).exists():
        return None
    return int(torch.load(newest[0] / LAST, weights_only=True)["global_step"])


def outcome(root: Path) -> dict[str, Any]:
    """What the newest run below `root` left: its last checkpoint's state and its log, without times."""
    run = runs(root)[0]
    checkpoint = torch.load(run / LAST, weights_only=True)
    outcome = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step")}
    log = pd.read_csv(run / "metrics.csv").drop(columns=_TIMES)
    return {**outcome, "metrics.csv": log.reindex(sorted(log.columns), axis=1)}


def _leaves(value: Any, where: str = "") -> dict[str, Any]:
    """Whatever a nested outcome holds, by its place."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {place: leaf for key, part in items for place, leaf in _leaves(part, f"{where}/{key}").items()}
    return {where: value}


def differences(ours: Any, theirs: Any) -> list[str]:
    """The places where anything differs in any bit."""
    left, right = _leaves(ours), _leaves(theirs)
    return sorted(left.keys() ^ right.keys()) + [
        place for place in left.keys() & right.keys() if not _equal(left[place], right[place])
    ]


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    return bool(ours.equals(theirs)) if isinstance(ours, pd.DataFrame) else bool(ours == theirs)


if __name__ == "__main__":
    sys.exit(main())
