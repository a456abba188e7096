"""One classifier from several runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def two_runs(tiny_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that holds two runs, which differ in their seed."""
    from src.commands.fit import main

    root = tmp_path_factory.mktemp("two")
    options = ["--trainer.max_epochs=2", "--model.learning_rate=1e-3", f"--trainer.default_root_dir={root}"]
    for seed in (1, 2):
        assert main(["fit", *tiny_options, *options, f"--seed_everything={seed}"]) == 0
    return root / "lightning_logs"


def _content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def test_weights_are_the_mean_and_the_result_is_a_run(two_runs: Path, run_cli: Run) -> None:
    runs = [two_runs / "version_0", two_runs / "version_1"]
    status, out, err = run_cli("average", *map(str, runs))
    assert status == 0, err
    made = Path("lightning_logs/version_0")
    assert f"python -m src test --ckpt_path {made}/checkpoints/best.ckpt" in out

    mean = _content(made / "checkpoints" / "best.ckpt")
    one, other = (_content(run / "checkpoints" / "best.ckpt") for run in runs)
    weights = {name: value for name, value in mean["state_dict"].items() if name.startswith("model.")}
    assert len(weights) > 30
    for name, value in weights.items():
        assert torch.equal(value, ((one["state_dict"][name].double() + other["state_dict"][name]) / 2).float()), name
    assert not torch.equal(weights["model.classifier.weight"], one["state_dict"]["model.classifier.weight"])
    assert yaml.safe_load((made / "config.yaml").read_text())["seed_everything"] == 1
    assert "version_1/checkpoints/best.ckpt" in (made / "config.yaml").read_text()

    status, out, err = run_cli("test", "--ckpt_path=best")
    assert status == 0, err
    assert ", n=24)" in out
    assert (made / "test.json").is_file()


def test_the_mean_is_exported_with_a_card_that_says_so(two_runs: Path, run_cli: Run) -> None:
    assert run_cli("average", str(two_runs / "version_0"), str(two_runs / "version_1"))[0] == 0
    assert run_cli("export", "--ckpt_path=best", "--output=model")[0] == 0
    card = Path("model/README.md").read_text()
    assert "The weights are the mean of those of 2 runs, of which this was the first." in card
    assert str(two_runs) not in card


def test_the_mean_is_no_run_to_go_on_with(two_runs: Path, run_cli: Run) -> None:
    assert run_cli("average", str(two_runs / "version_0"), str(two_runs / "version_1"))[0] == 0
    before = sorted(Path("lightning_logs").rglob("*"))
    status, _, err = run_cli("fit", "--ckpt_path=best", "--trainer.max_epochs=3")
    assert status == 1
    assert err.strip().splitlines()[-1].startswith("error: a mean of runs has no optimizer to go on with: ")
    assert sorted(Path("lightning_logs").rglob("*")) == before


def test_last_checkpoints_and_files_can_be_named(two_runs: Path, run_cli: Run, tmp_path: Path) -> None:
    file = two_runs / "version_1" / "checkpoints" / "best.ckpt"
    root = f"--default_root_dir={tmp_path / 'elsewhere'}"
    status, _, err = run_cli("average", "--checkpoint=last", root, str(two_runs / "version_0"), str(file))
    assert status == 0, err
    made = _content(tmp_path / "elsewhere" / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt")
    assert [name.rpartition("/")[2] for name in made["average_of"]] == ["last.ckpt", "best.ckpt"]
    last = _content(two_runs / "version_0" / "checkpoints" / "last.ckpt")["state_dict"]["model.classifier.weight"]
    best = _content(file)["state_dict"]["model.classifier.weight"]
    torch.testing.assert_close(made["state_dict"]["model.classifier.weight"], (last + best) / 2)
    # nothing of a training is left to go on with: a third of the file
    assert made.keys().isdisjoint({"optimizer_states", "loops"})


def test_dropout_and_the_version_of_a_library_may_differ(two_runs: Path, run_cli: Run, tmp_path: Path) -> None:
    runs = [two_runs / "version_0" / "checkpoints" / "best.ckpt", tmp_path / "other.ckpt"]
    content = _content(two_runs / "version_1" / "checkpoints" / "best.ckpt")
    content["classifier"]["config"] |= {"transformers_version": "5.0.0", "hidden_dropout_prob": 0.3}
    torch.save(content, runs[1])
    status, _, err = run_cli("average", *map(str, runs))
    assert status == 0, err


def test_a_mean_that_cannot_be_saved_leaves_nothing(two_runs: Path, run_cli: Run) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # the config fits, the checkpoint does not
    try:
        status, _, err = run_cli("average", str(two_runs / "version_0"), str(two_runs / "version_1"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 1
    assert "no space left on the device" in err
    assert list(Path("lightning_logs").iterdir()) == []
