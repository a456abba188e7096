"""Every shipped configuration parses, and trains for two steps with a tiny model and data in place of the real ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

Run = Callable[..., tuple[int, str, str]]

CONFIGS = Path(__file__).parents[1] / "configs"
EXPERIMENTS = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted(CONFIGS.glob("trainer/*.yaml"))
_EACH = [pytest.param([path], id=path.stem) for path in EXPERIMENTS] + [
    pytest.param([CONFIGS / "imdb.yaml", path], id=f"imdb + {path.stem}") for path in OVERLAYS
]


def _flags(configs: list[Path]) -> list[str]:
    return [part for config in configs for part in ("--config", str(config))]


def _merged(configs: list[Path]) -> dict[str, Any]:
    """The files' content; later files override earlier ones."""

    def merge(below: Any, above: Any) -> Any:
        if not isinstance(below, dict) or not isinstance(above, dict):
            return above
        return below | {key: merge(below.get(key), value) for key, value in above.items()}

    content: dict[str, Any] = {}
    for config in configs:
        content = merge(content, yaml.safe_load(config.read_text()))
    return content


def _tiny(configs: list[Path], model: Path, reviews: Path) -> list[str]:
    """Options that cut an experiment down to two steps on a CPU; all other values stay as in the file."""
    data = [f"--data.dataset={reviews}", "--data.revision=null", "--data.where=null", "--data.train_size=32"]
    data += ["--data.val_size=8"]
    if _merged(configs)["data"]["class_path"] == "PretrainingDataModule":
        data += ["--data.split=train", "--data.sequence_length=64", "--data.held_out=null"]
    else:
        data += ["--data.test_size=8", "--data.max_length=64"]
    trainer = {"max_steps": 2, "accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    trainer |= {"log_every_n_steps": 1}
    options = [f"--trainer.{name}={value}" for name, value in trainer.items()]
    return [f"--model.model_name_or_path={model}", *data, *options]


def test_there_are_configs() -> None:
    assert {"imdb", "imdb_best", "imdb_best_gpu", "quickstart", "pretrain", "pretrain_quickstart"} <= {
        path.stem for path in EXPERIMENTS
    }
    assert {"ddp", "gpu", "multinode"} <= {path.stem for path in OVERLAYS}


@pytest.mark.parametrize("configs", _EACH)
def test_config_parses_and_every_value_is_used(run_cli: Run, configs: list[Path]) -> None:
    status, out, err = run_cli("fit", *_flags(configs), "--print_config")
    assert status == 0, err
    printed = yaml.safe_load(out)

    def compare(said: Any, taken: Any, place: str) -> None:
        if isinstance(said, dict) and place.rpartition(".")[2] != "where":
            for key, value in said.items():
                if key.endswith("+"):  # appended to the list
                    compare(value, taken[key[:-1]][-len(value) :], f"{place}.{key}")
                else:
                    compare(value, taken[key], f"{place}.{key}")
        elif place.endswith("class_path"):
            assert taken.endswith(said), place
        else:
            assert taken == said, place

    compare(_merged(configs), printed, "")


def test_an_overlay_keeps_the_callbacks_of_a_config(run_cli: Run, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    stopping = {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/loss"}}
    own.write_text(yaml.safe_dump({"trainer": {"callbacks": [stopping]}}))
    for overlay in OVERLAYS:
        configs = [CONFIGS / "imdb.yaml", own, overlay]
        status, out, err = run_cli("fit", *_flags(configs), "--print_config")
        assert status == 0, err
        assert yaml.safe_load(out)["trainer"]["callbacks"][0]["class_path"] == stopping["class_path"], overlay


@pytest.mark.slow
@pytest.mark.parametrize("configs", _EACH)
def test_config_runs_two_steps(
    run_cli: Run, tiny_bert: Path, reviews_csv: Path, tmp_path: Path, configs: list[Path]
) -> None:
    status, _, err = run_cli("fit", *_flags(configs), *_tiny(configs, tiny_bert, reviews_csv))
    assert status == 0, err
    run = tmp_path / "lightning_logs" / "version_0"
    assert len(pd.read_csv(run / "metrics.csv")["lr"].dropna()) == 2
    assert (run / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.parametrize("config", EXPERIMENTS + OVERLAYS, ids=lambda path: path.stem)
def test_config_opens_with_its_command(config: Path) -> None:
    """The command names the file itself, so that it can be copied."""
    lines = config.read_text().splitlines()
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert f"configs/{config.relative_to(CONFIGS)}" in head
    assert " fit --config " in head


def test_imdb_config_is_the_tutorials_experiment() -> None:
    """The values of the tutorial's script; the rest are the Hugging Face Trainer's defaults, and BertClassifier's."""
    content = yaml.safe_load((CONFIGS / "imdb.yaml").read_text())
    model, data = content["model"]["init_args"], content["data"]["init_args"]
    assert model["model_name_or_path"] in ("bert-base-uncased", "google-bert/bert-base-uncased")
    assert model["learning_rate"] == 5e-5
    assert data["dataset"] in ("imdb", "stanfordnlp/imdb")
    assert (data["train_size"], data["test_size"], data["subset_seed"]) == (1000, 500, 42)
    assert (data["max_length"], data["batch_size"], data["eval_batch_size"]) == (512, 8, 8)
    trainer = content["trainer"]
    assert (trainer["max_epochs"], trainer["gradient_clip_val"]) == (3, 1.0)
    assert {trainer[name] for name in ("accelerator", "devices", "strategy")} == {"auto"}
