"""Damaged files of a run end in one line or in the right result, through the real commands."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from src.callbacks.metrics_csv import RunCSVLogger
from src.commands.arguments import read_command
from src.runs.checkpoint_reading import Checkpoint, read_checkpoint
from src.runs.results import read_results, write_results
from src.system.errors import UsageError, UserError
from src.system.yaml_reading import parse_yaml
from tests.faults.damaged_bytes import DAMAGE, Damage

Run = Callable[..., tuple[int, str, str]]

_LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
_MERGES = _LAUGHS.replace("[x,x,x,x,x,x,x,x,x]", "{x: 1}").replace(" [*", " {<<: [*").replace("]\n", "]}\n")
BAD_YAML = {
    "holds itself": b"a: &a [*a]\n",
    "explodes": _LAUGHS.encode(),
    "explodes by merging": _MERGES.encode(),
    "is long": b"a: b\n" * 60_000,
    "is deep": b"a: " + b"[" * 5000,
    "is not UTF-8": "model: ä".encode("latin-1"),
    "is UTF-16": "model: a".encode("utf-16"),
    "has a NUL": b"model:\0",
    "is of NULs": bytes(5000),
    "is empty": b"",
    "is a list": b"- 1",
    "has no such day": b"a: 2001-99-99",
    "has no such truth": b"a: !!bool maybe",
    "has a Python object": b"a: !!python/object/apply:os.getcwd []",
    "has a list for the Trainer": b"trainer: [1]",
}


# ---- metrics.csv ---------------------------------------------------------------------------------------------------


def _log(folder: Path, steps: range, resume_step: int | None = None) -> Path:
    logger = RunCSVLogger(folder, "", "run", resume_step=resume_step)
    for step in steps:
        logger.log_metrics(
            {"train/loss": step / 8, "lr": 1e-5} if step % 2 else {"val/accuracy": 0.5, "epoch": 1}, step
        )
    logger.save()
    return folder / "run" / "metrics.csv"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _log(tmp_path_factory.mktemp("log"), range(12))


@settings(deadline=None)
@given(damage=DAMAGE)
def test_whole_rows_of_the_log_go_on_and_nothing_is_lost(log: Path, damage: Damage) -> None:
    whole = log.read_bytes()
    damaged, kept = damage.of(whole), log.with_name("metrics.damaged.csv")
    if any(
        old in b"0123456789" and new in b"0123456789" for old, new in zip(whole, damaged, strict=False) if old != new
    ):
        return  # another number cannot be told from the right one
    log.write_bytes(damaged)
    try:
        _log(log.parents[1], range(8, 12), resume_step=8)
        table = pd.read_csv(log)
        assert table["step"].tolist()[-4:] == [8, 9, 10, 11]
        assert b"\0" not in log.read_bytes()
        assert not kept.exists() or kept.read_bytes() == damaged
        header, *rows = whole.splitlines(keepends=True)
        if damaged.startswith(header):
            found = {tuple(row) for row in table.astype("string").fillna("").itertuples(index=False)}
            untouched = pd.read_csv(
                io.BytesIO(b"".join([header, *(row for row in rows[:8] if row in damaged.splitlines(keepends=True))]))
            )
            untouched = untouched.astype(table.dtypes.to_dict()).astype("string").fillna("")
            assert {tuple(row) for row in untouched.itertuples(index=False)} <= found
    finally:
        log.write_bytes(whole)
        kept.unlink(missing_ok=True)


# ---- test.json -----------------------------------------------------------------------------------------------------

_FIGURES = {"accuracy": 0.875, "accuracy_low": 0.69, "accuracy_high": 0.9566, "loss": 0.25, "f1": None, "n": 24}
_CHECKPOINT = Checkpoint(Path("best.ckpt"), {}, "0123456789abcdef" * 2)
_NEEDED = ("accuracy", "accuracy_low", "accuracy_high")
_RESULTS: dict[str, Any] = {**_FIGURES, "checkpoint": "checkpoints/best.ckpt", "checkpoint_digest": _CHECKPOINT.digest}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "test.json"
    write_results(path, _RESULTS)
    return path


def _read(path: Path) -> dict[str, Any] | None:
    """What is read; None where nothing is, with or without an error."""
    try:
        return read_results(path, _CHECKPOINT, *_NEEDED)
    except UserError:
        return None


@settings(deadline=None)
@given(damage=DAMAGE)
def test_no_figure_is_read_from_damaged_bytes(results: Path, damage: Damage) -> None:
    path = results.with_name("damaged.json")
    path.write_bytes(damage.of(results.read_bytes()))
    found = _read(path)
    assert found is None or {name: found[name] for name in _RESULTS} == _RESULTS


@settings(deadline=None)
@given(
    name=st.sampled_from([*_RESULTS, "digest", "more"]),
    value=st.none()
    | st.booleans()
    | st.text(max_size=3)
    | st.integers(max_value=-1)
    | st.just(10**400)
    | st.floats(allow_nan=True)
    | st.lists(st.none(), max_size=1)
    | st.just(...),
)
def test_no_figure_is_read_where_a_key_is_missing_or_mistyped(results: Path, name: str, value: Any) -> None:
    content = json.loads(results.read_text())
    if value is ...:
        content.pop(name, None)
    else:
        content[name] = value
    path = results.with_name("mistyped.json")
    path.write_text(json.dumps(content))
    found = _read(path)
    assert found is None or {key: found[key] for key in _RESULTS} == _RESULTS


# ---- config.yaml ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("here") / "lightning_logs" / "version_0"
    shutil.copytree(tiny_checkpoint.parents[1], run)
    return run


@settings(deadline=None)
@given(damage=DAMAGE)
def test_damaged_config_is_read_or_refused(run: Path, damage: Damage) -> None:
    config = run / "config.yaml"
    whole = config.read_bytes()
    config.write_bytes(damage.of(whole))
    try:
        root = f"--trainer.default_root_dir={run.parents[1]}"
        content = read_command(["test", "--ckpt_path", str(run / "checkpoints/best.ckpt"), root]).configs[0].content
        assert yaml.safe_load(config.read_text()) == content
    except UsageError:
        pass
    finally:
        config.write_bytes(whole)


@pytest.mark.parametrize("command", ["resume", "test", "fit", "export"])
def test_bad_yaml_is_one_line(
    command: str, run: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(run.parents[1])
    config = run / "config.yaml"
    whole = config.read_bytes()
    args = {
        "resume": ["fit", "--ckpt_path", "last", "--trainer.max_epochs=7"],
        "test": ["test", "--ckpt_path", "best"],
        "fit": ["fit", "--config", str(config)],
        "export": ["export", "--ckpt_path", "best", f"--output={tmp_path / 'out'}"],
    }[command]
    try:
        for name, content in BAD_YAML.items():
            if command == "export" and name in ("is empty", "is a list", "has a list for the Trainer"):
                continue  # no options, so the card has none
            config.write_bytes(content)
            status, _, err = run_cli(*args)
            lines = [line for line in err.splitlines() if not line.startswith("The training data are not")]
            assert status == (1 if command == "export" else 2), name
            assert len(lines) == 1, (name, lines)
            assert "config.yaml" in lines[0], name
    finally:
        config.write_bytes(whole)


def test_aliases_that_stay_small_are_read() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": [{"x": 1}, {"x": 1}]},
    }


# ---- the real commands ---------------------------------------------------------------------------------------------


def test_run_with_a_tail_of_nuls_in_its_log_resumes(
    run: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "again"
    shutil.copytree(run.parents[1], root)
    monkeypatch.chdir(root)
    log = Path("lightning_logs/version_0/metrics.csv")
    before = pd.read_csv(log)
    log.write_bytes(log.read_bytes() + bytes(4096) + b"\n")
    assert read_checkpoint(log.parent / "checkpoints/last.ckpt").step == before["step"].max() + 1
    status, _, err = run_cli("fit", "--ckpt_path=last", "--trainer.max_epochs=7", f"--trainer.default_root_dir={root}")
    assert status == 0, err
    assert [line for line in err.splitlines() if "is damaged: what is left of it goes on" in line]
    after = pd.read_csv(log)
    assert after.head(len(before))["step"].tolist() == before["step"].tolist()
    assert after["step"].max() > before["step"].max()


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"\0" * 300, b'{"accuracy": NaN, "n": 3}', b"[" * 9000, "ä".encode("latin-1")]
)
def test_export_with_damaged_results_is_one_line(
    content: bytes, run: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(run.parents[1])
    (run / "test.json").write_bytes(content)
    try:
        status, _, err = run_cli("export", "--ckpt_path=best", f"--output={tmp_path / 'out'}")
    finally:
        (run / "test.json").unlink()
    assert status == 1
    assert "test.json is damaged: delete it, and evaluate the checkpoint again" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
