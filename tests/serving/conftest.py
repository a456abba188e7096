"""A server of the tiny model, which reads long texts in windows, in a process of its own, on a free port."""

import multiprocessing
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.processes import start


@contextmanager
def serving(model: Path, log: Path) -> Iterator[tuple[int, multiprocessing.Process]]:
    """Its port, and its process, which is gone afterwards."""
    process = start(["serve", "--ckpt_path", str(model), "--port=0"], log)
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r" on http://127\.0\.0\.1:(\d+)\n", log.read_text() if log.exists() else "")):
            assert process.is_alive(), log.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield int(found[1]), process
    finally:
        process.kill()
        process.join()


@pytest.fixture(scope="session")
def model(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = torch.load(tiny_checkpoint, weights_only=True)
    content["classifier"]["truncation"] = "windows"
    path = tmp_path_factory.mktemp("windows") / "model.ckpt"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def port(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving(model, tmp_path_factory.mktemp("serving") / "log") as (port, _):
        yield port
