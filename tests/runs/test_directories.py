"""Run directories: which is the newest, which is next, and which is resumed."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from src.runs.checkpoint_reading import FINISHED_KEY
from src.runs.directories import (
    BEST,
    CONFIG,
    LAST,
    LOGS,
    chosen,
    claim_run,
    find_checkpoint,
    find_interrupted,
    next_run,
    run_of,
    runs,
    shown,
)
from src.system.errors import UserError


def _make_run(root: Path, number: int, finished: bool | None = None) -> Path:
    """A run with a last.ckpt, unless `finished` is None: it was stopped before."""
    run = root / LOGS / f"version_{number}"
    (run / LAST).parent.mkdir(parents=True)
    (run / CONFIG).touch()
    if finished is not None:
        torch.save({"state_dict": {}, FINISHED_KEY: finished}, run / LAST)
    return run


def test_each_run_claims_a_directory_of_its_own(tmp_path: Path) -> None:
    _make_run(tmp_path, 0)
    with ThreadPoolExecutor(8) as pool, ExitStack() as locks:
        claimed = list(pool.map(lambda _: claim_run(tmp_path, locks), range(8)))
        assert sorted(claimed) == [tmp_path / LOGS / f"version_{number}" for number in range(1, 9)]
        (claimed[0] / CONFIG).touch()
    assert sorted(runs(tmp_path)) == sorted([tmp_path / LOGS / "version_0", claimed[0]]), "empty ones stay"


def test_claim_without_a_run_leaves_what_was_there(tmp_path: Path) -> None:
    with ExitStack() as locks:
        assert claim_run(tmp_path / "new" / "root", locks).is_dir()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / LOGS).symlink_to("nowhere")
    with pytest.raises(FileExistsError), ExitStack() as locks:
        claim_run(tmp_path, locks)


def test_runs_are_ordered_by_number(tmp_path: Path) -> None:
    assert runs(tmp_path) == []
    assert next_run(tmp_path).name == "version_0"
    made = {number: _make_run(tmp_path, number) for number in (2, 10, 9)}
    (tmp_path / LOGS / "version_old").mkdir()
    assert runs(tmp_path) == [made[10], made[9], made[2]]
    assert next_run(tmp_path) == tmp_path / LOGS / "version_11"


@pytest.mark.parametrize(
    ("finished", "resumed"),
    [
        ([False], 0),
        ([True, False, True, True], 1),
        ([False, True, False, True], 2),
        ([None, False, True], 1),
        ([True, True, True], 2),
    ],
)
def test_newest_unfinished_run_is_resumed_or_else_the_newest(
    tmp_path: Path, finished: list[bool | None], resumed: int
) -> None:
    made = [_make_run(tmp_path, number, done) for number, done in enumerate(finished)]
    assert find_interrupted(tmp_path).path == made[resumed] / LAST


def test_a_run_without_a_checkpoint_is_named_and_no_older_one_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run has a last\.ckpt yet"):
        find_interrupted(tmp_path)
    _make_run(tmp_path, 0, finished=False)
    _make_run(tmp_path, 1)
    with pytest.raises(UserError, match=r"version_1 was stopped before its first checkpoint"):
        find_interrupted(tmp_path)


def test_best_and_last_are_those_of_the_newest_run_that_has_one(tmp_path: Path) -> None:
    older, newer = _make_run(tmp_path, 0, finished=True), _make_run(tmp_path, 1, finished=True)
    (older / BEST).touch()
    assert find_checkpoint("last", tmp_path) == newer / LAST
    assert find_checkpoint("best", tmp_path) == older / BEST
    assert find_checkpoint(str(older / LAST), tmp_path) == older / LAST
    with pytest.raises(UserError, match=r"there is no checkpoint 'none\.ckpt'"):
        find_checkpoint("none.ckpt", tmp_path)


def test_a_checkpoint_knows_its_run_even_outside_of_one(tmp_path: Path) -> None:
    run = _make_run(tmp_path, 0)
    assert run_of(run / BEST) == run
    assert run_of(tmp_path / "moved.ckpt") == tmp_path


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        ("runs/a.ckpt", "runs/a.ckpt"),
        ("my runs/a.ckpt", "'my runs/a.ckpt'"),
        ("[1].ckpt", "'[1].ckpt'"),
        ("-a.ckpt", "./-a.ckpt"),
        ("~/a.ckpt", "'./~/a.ckpt'"),
        ("last", "./last"),
        ("it's $HOME", "'it'\"'\"'s $HOME'"),
    ],
)
def test_a_path_is_shown_as_a_shell_takes_it(path: str, typed: str, tmp_path: Path) -> None:
    assert shown(tmp_path / path) == shown(path) == typed


def test_a_run_elsewhere_is_given_with_its_configuration(tmp_path: Path) -> None:
    assert chosen(_make_run(tmp_path, 0) / BEST) == "--ckpt_path lightning_logs/version_0/checkpoints/best.ckpt"
    run = "'my runs/lightning_logs/version_0"
    given = f"--config {run}/config.yaml' --ckpt_path {run}/checkpoints/best.ckpt'"
    assert chosen(_make_run(tmp_path / "my runs", 0) / BEST) == given
