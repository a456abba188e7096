"""Fixtures that check how a user's mistake ends: one line on stderr, the right exit status, no file left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.world import World


@pytest.fixture
def world(
    tmp_path: Path, tiny_options: list[str], tiny_pretraining: list[str], tiny_bert: Path, tiny_checkpoint: Path
) -> World:
    once = "--trainer.max_epochs=1"
    return World(tmp_path, [*tiny_options, once], [*tiny_pretraining, once], tiny_bert, tiny_checkpoint)


@pytest.fixture
def expect_one_line(
    run_cli: Callable[..., tuple[int, str, str]], world: World
) -> Callable[[Callable[[World], list[str]], int, list[str]], None]:
    """Runs a case's command line and checks how it ends."""

    def check(make: Callable[[World], list[str]], expected: int, words: list[str]) -> None:
        args = make(world)
        before = world.files()
        status, _, err = run_cli(*args)
        assert status == expected, err
        assert len(err.splitlines()) == 1, err
        assert err.startswith("error: ")
        for word in words:
            assert word in err
        assert "Traceback" not in err
        assert world.files() == before, "something was left behind"

    return check
