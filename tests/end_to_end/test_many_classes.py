"""An evaluation that is too large to be kept in memory gives the figures of one that is not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]


def _tested(run_cli: Run, options: list[str], run: Path) -> dict[str, Any]:
    status, _, err = run_cli("test", *options, f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}")
    assert (status, err) == (0, "")
    return dict(json.loads((run / "test.json").read_text()))


def test_metrics_in_parts_and_from_bins(
    run_cli: Run, tiny_options: list[str], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "lightning_logs" / "version_0"
    shutil.copytree(tiny_checkpoint.parents[1], run)
    kept = _tested(run_cli, tiny_options, run)
    monkeypatch.setattr("src.models.metrics.MOST_PROBABILITIES", 0)
    monkeypatch.setattr("src.models.classifier.AT_ONCE", 1)
    binned = _tested(run_cli, tiny_options, run)
    for name in ("auroc", "ece"):
        assert binned.pop(name) == pytest.approx(kept.pop(name), abs=1e-4)
    for figures in (kept, binned):
        del figures["digest"]
    assert binned == kept
