"""A configuration that comes from a stranger runs none of the stranger's code."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

Run = Callable[..., tuple[int, str, str]]

_POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": "touch ran", "shell": True}}
_PROFILER = "lightning.pytorch.profilers.PyTorchProfiler"


@pytest.mark.parametrize(
    "config",
    [
        # of the type Any: jsonargparse would make an instance of any class
        {"trainer": {"profiler": {"class_path": _PROFILER, "init_args": {"table_kwargs": {"header": _POPEN}}}}},
        {"trainer": {"callbacks": [_POPEN]}},
        {"trainer": {"logger": _POPEN}},
        {"model": _POPEN},
        {"data": {"class_path": "ImdbDataModule", "init_args": {"where": {"source": _POPEN}}}},
        # a library that is installed, but none of those that a configuration may name
        {"trainer": {"callbacks": [{"class_path": "hypothesis.strategies.builds"}]}},
    ],
    ids=["any", "callback", "logger", "model", "option", "function"],
)
def test_a_class_that_is_not_ours_is_not_made(config: dict[str, object], run_cli: Run, tiny_options: list[str]) -> None:
    Path("stranger.yaml").write_text(yaml.safe_dump(config))
    status, _, err = run_cli("fit", "--config=stranger.yaml", *tiny_options, "--trainer.max_steps=1")
    assert not Path("ran").exists()
    assert "Traceback" not in err
    if status:
        assert err.count("\n") == 1


def test_a_config_beside_a_strangers_checkpoint_is_not_read(run_cli: Run, tiny_checkpoint: Path) -> None:
    run = shutil.copytree(tiny_checkpoint.parents[1], "stranger/lightning_logs/version_0")
    checkpoint = Path(run) / "checkpoints" / "best.ckpt"
    status, _, err = run_cli("test", f"--ckpt_path={checkpoint}")
    assert (status, err.count("\n")) == (1, 1)
    assert "config.yaml is not read unasked" in err
    status, out, err = run_cli("test", f"--ckpt_path={checkpoint}", f"--config={run}/config.yaml")
    assert status == 0, err
    assert "Accuracy: " in out


def test_a_class_of_ones_own_may_be_named_by_a_flag_or_lie_in_the_working_directory(
    run_cli: Run, tiny_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("own_callback.py").write_text(
        "from pathlib import Path\nfrom lightning import Callback\n\n"
        "class Mark(Callback):\n    def on_train_start(self, *args):\n        Path('marked').touch()\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("own.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [{"class_path": "own_callback.Mark"}]}}))
    for given in ("--config=own.yaml", "--trainer.callbacks+=own_callback.Mark"):
        status, _, err = run_cli("fit", given, *tiny_options, "--trainer.max_steps=1")
        assert status == 0, err
        assert Path("marked").exists()
        Path("marked").unlink()
    # the run's own config names it again
    assert run_cli("validate", "--ckpt_path=last")[0] == 0
    assert torch.load("lightning_logs/version_1/checkpoints/last.ckpt", weights_only=True)["global_step"] == 1
