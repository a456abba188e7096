"""A training on a CPU with instructions for bf16 uses them, unless the user says otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from src.commands import precision
from src.inference import classifier

Run = Callable[..., tuple[int, str, str]]
_FIT = ["--trainer.max_epochs=1", "--trainer.default_root_dir=here"]


@pytest.fixture(autouse=True)
def fast_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    monkeypatch.setattr(classifier, "multiplies_bf16", lambda: True)


def _stored(run: Path) -> object:
    return yaml.safe_load((run / "config.yaml").read_text())["trainer"]["precision"]


def test_it_is_chosen_said_and_kept(run_cli: Run, tiny_options: list[str]) -> None:
    status, out, err = run_cli("fit", *tiny_options, *_FIT)
    assert status == 0, err
    assert "Precision: bf16-mixed" in out
    run = next(Path("here").rglob("config.yaml")).parent
    assert _stored(run) == "bf16-mixed"
    last = run / "checkpoints" / "last.ckpt"
    status, out, err = run_cli(
        "fit", "--config", str(run / "config.yaml"), f"--ckpt_path={last}", "--trainer.max_epochs=2"
    )
    assert status == 0, err
    assert "Precision:" not in out
    assert _stored(run) == "bf16-mixed"


def test_a_look_at_the_data_has_no_precision(run_cli: Run, tiny_options: list[str]) -> None:
    status, out, err = run_cli("check", *tiny_options)
    assert status == 0, err
    assert "Precision:" not in out


@pytest.mark.parametrize(
    "option",
    [
        "--trainer.precision=32-true",
        "--trainer.precision=64-true",
        "--trainer.plugins=lightning.pytorch.plugins.precision.Precision",
    ],
)
def test_what_the_user_sets_stays(option: str, run_cli: Run, tiny_options: list[str]) -> None:
    status, out, err = run_cli("fit", *tiny_options, *_FIT, "--trainer.max_steps=1", option)
    assert status == 0, err
    assert "Precision:" not in out
    assert _stored(next(Path("here").rglob("config.yaml")).parent) != "bf16-mixed"


def test_a_run_of_before_is_resumed_as_it_was(
    run_cli: Run, tiny_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: False)
    assert run_cli("fit", *tiny_options, *_FIT)[0] == 0
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    last = next(Path("here").rglob("last.ckpt"))
    config = f"--config={last.parents[1] / 'config.yaml'}"
    status, out, err = run_cli("fit", config, f"--ckpt_path={last}", "--trainer.max_epochs=2")
    assert status == 0, err
    assert "Precision:" not in out
    assert _stored(last.parents[1]) is None


def test_predictions_in_bf16_are_those_of_fp32_to_its_rounding(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a great film " * n for n in range(1, 30)] + ["a bad film " * n for n in range(1, 30)]
    mine = classifier.load(tiny_checkpoint).logits(texts)
    monkeypatch.setattr(classifier, "multiplies_bf16", lambda: False)
    exact = classifier.load(tiny_checkpoint).logits(texts)
    assert abs(mine - exact).max() > 0
    torch.testing.assert_close(torch.from_numpy(mine), torch.from_numpy(exact), rtol=0.02, atol=0.05)
