"""AdamW's parameter groups, the schedule and the number of steps."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForSequenceClassification

from src.models.optimizer import Schedule, adamw_with_schedule, parameter_groups, total_steps
from tests.models.families import save_distilbert, save_roberta

Run = Callable[..., tuple[int, str, str]]


def _rates(scheduler: torch.optim.lr_scheduler.LRScheduler, optimizer: torch.optim.Optimizer, n: int) -> list[float]:
    rates = []
    for _ in range(n):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("warmup_ratio", [0.0, 0.1, 0.33])
@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        ("linear", transformers.get_linear_schedule_with_warmup),
        ("cosine", transformers.get_cosine_schedule_with_warmup),
        ("constant", lambda optimizer, warmup, _: transformers.get_constant_schedule_with_warmup(optimizer, warmup)),
    ],
)
def test_schedule_is_that_of_transformers(
    schedule: Schedule, theirs: Callable[..., object], warmup_ratio: float
) -> None:
    n = 37
    parameter = nn.Parameter(torch.zeros(3))
    made = adamw_with_schedule([{"params": [parameter], "lr": 5e-5}], schedule, warmup_ratio, n, fused=False)
    assert made["lr_scheduler"]["interval"] == "step"
    ours = _rates(made["lr_scheduler"]["scheduler"], made["optimizer"], n)
    optimizer = torch.optim.AdamW([parameter], lr=5e-5)
    assert ours == _rates(theirs(optimizer, math.ceil(n * warmup_ratio), n), optimizer, n)
    assert max(ours) == 5e-5
    if not warmup_ratio:
        assert ours[0] == 5e-5
    if schedule == "linear":
        assert ours[-1] == pytest.approx(5e-5 / (n - math.ceil(n * warmup_ratio)))  # one step before 0


def test_settings_are_those_of_the_hugging_face_trainer() -> None:
    theirs = transformers.TrainingArguments(report_to=[])
    made = adamw_with_schedule([{"params": [nn.Parameter(torch.zeros(3))], "lr": 5e-5}], "linear", 0.0, 10, fused=True)
    defaults = made["optimizer"].defaults
    assert defaults["betas"] == (theirs.adam_beta1, theirs.adam_beta2)
    assert defaults["eps"] == theirs.adam_epsilon


@pytest.mark.parametrize(
    ("n_batches", "limit", "accumulate", "max_epochs", "max_steps", "expected"),
    [
        (125, 1.0, 1, 3, -1, 375),
        (125, 1.0, 4, 3, -1, 96),  # the last step of an epoch takes what is left over
        (125, 1.0, 4, 3, 50, 50),
        (125, 1.0, 4, 3, 500, 96),
        (125, 1.0, 1, -1, 70, 70),
        (125, 1.0, 1, None, 70, 70),
        (1, 1.0, 8, 2, -1, 2),
        (125, 0.1, 1, 3, -1, 36),
        (125, 100, 4, 3, -1, 75),
        (125, 200, 1, 3, -1, 375),
        (125, 1, 1, 3, -1, 3),
    ],
)
def test_total_is_exact(
    n_batches: int, limit: float, accumulate: int, max_epochs: int | None, max_steps: int, expected: int
) -> None:
    assert total_steps(n_batches, limit, accumulate, max_epochs, max_steps) == expected


@pytest.mark.parametrize("limit", ["4", "0.7"])
def test_schedule_follows_limit_train_batches(
    run_cli: Run, tiny_options: list[str], tmp_path: Path, limit: str
) -> None:
    """4 of the 6 batches in an epoch."""
    options = ["--trainer.max_epochs=2", "--trainer.log_every_n_steps=1", f"--trainer.limit_train_batches={limit}"]
    status, _, err = run_cli("fit", *tiny_options, *options)
    assert status == 0, err
    rates = pd.read_csv(tmp_path / "lightning_logs/version_0/metrics.csv")["lr"].dropna().tolist()
    assert rates == pytest.approx([5e-5 * (8 - step) / 8 for step in range(8)], abs=1e-15)


def test_a_run_limited_by_time_only_needs_a_constant_learning_rate(
    run_cli: Run, tiny_options: list[str], tmp_path: Path
) -> None:
    options = ["--trainer.max_epochs=-1", "--trainer.max_time=00:00:00:01", "--trainer.log_every_n_steps=1"]
    status, _, err = run_cli("fit", *tiny_options, *options)
    assert status == 1
    assert err.splitlines()[-1].startswith(
        "error: model.schedule=linear with model.warmup_ratio=0.0 follows the number"
    )
    assert not Path("lightning_logs").exists()
    status, out, err = run_cli("fit", *tiny_options, *options, "--model.schedule=constant")
    assert status == 0, err
    assert re.search(r"^Ended early:     after step \d+, by trainer.max_time$", out, re.MULTILINE)
    assert set(pd.read_csv(tmp_path / "lightning_logs/version_0/metrics.csv")["lr"].dropna()) == {5e-5}


def test_last_step_is_one_before_a_learning_rate_of_zero(run_cli: Run, tiny_options: list[str], tmp_path: Path) -> None:
    """48 rows, batch size 5, 3 batches a step: 4 steps per epoch, the last one smaller; 8 steps in all."""
    options = ["--data.batch_size=5", "--trainer.accumulate_grad_batches=3", "--trainer.max_epochs=2"]
    status, _, err = run_cli("fit", *tiny_options, *options, "--trainer.log_every_n_steps=1")
    assert status == 0, err
    rates = pd.read_csv(tmp_path / "lightning_logs/version_0/metrics.csv")["lr"].dropna().tolist()
    assert rates == pytest.approx([5e-5 * (8 - step) / 8 for step in range(8)], abs=1e-15)


def _model(family: str, tiny_bert: Path, folder: Path) -> nn.Module:
    if family == "roberta":
        save_roberta(folder)
    elif family == "distilbert":
        save_distilbert(folder, tiny_bert / "vocab.txt")
    return AutoModelForSequenceClassification.from_pretrained(tiny_bert if family == "bert" else folder)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_layer_decay_and_weight_decay(family: str, tiny_bert: Path, tmp_path: Path) -> None:
    model = _model(family, tiny_bert, tmp_path)
    of_parameter = {
        parameter: (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, 1e-4, 0.01, 0.5)
        for parameter in group["params"]
    }
    assert len(of_parameter) == len(list(model.parameters())), "each parameter in one group"
    seen = set()
    for name, parameter in model.named_parameters():
        rate, decay = of_parameter[parameter]
        depth = 3 if "embeddings" in name else 2 if ".layer.0." in name else 1 if ".layer.1." in name else 0
        seen.add(depth)
        assert rate == pytest.approx(1e-4 * 0.5**depth), name
        assert decay == (0.01 if parameter.ndim == 2 else 0.0), name
    assert seen == {0, 1, 2, 3}


def test_head_learning_rate(tiny_bert: Path) -> None:
    model = _model("bert", tiny_bert, tiny_bert)
    head = set(model.classifier.parameters())
    for group in parameter_groups(model, 1e-4, 0.01, 1.0, head_learning_rate=1e-3):
        assert {parameter in head for parameter in group["params"]} == {group["lr"] == 1e-3}
        assert group["lr"] in (1e-3, 1e-4)


def test_one_group_without_decay(tiny_bert: Path) -> None:
    groups = parameter_groups(_model("bert", tiny_bert, tiny_bert), 5e-5, 0.0, 1.0)
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(5e-5, 0.0)]


def test_frozen_parameters_are_left_out(tiny_bert: Path) -> None:
    model = _model("bert", tiny_bert, tiny_bert)
    for parameter in model.bert.parameters():
        parameter.requires_grad = False
    held = {p for group in parameter_groups(model, 5e-5, 0.01, 0.95) for p in group["params"]}
    assert held == set(model.classifier.parameters())
