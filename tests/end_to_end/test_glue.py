"""A data set of several configurations in the layout of nyu-mll/glue, from a Hub on loopback, through the commands."""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from tests.loopback_hub import LoopbackHub
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]
_SPLITS = {"train": 80, "validation": 30, "test": 20}
_NAMES = ["negative", "positive"]


@pytest.fixture
def glue(loopback: LoopbackHub, tmp_path: Path) -> LoopbackHub:
    """Columns sentence, label and idx; the labels of the test split are hidden, which the Hub marks by -1."""
    folder = tmp_path / "glue"
    readme = ""
    for config in ("cola", "sst2"):
        (folder / config).mkdir(parents=True)
        readme += f"- config_name: {config}\n  data_files:\n"
        for split, n in _SPLITS.items():
            frame = synthetic_reviews(n, seed=n)
            labels = [-1 if split == "test" else int(label == "pos") for label in frame["label"]]
            rows = datasets.Dataset.from_dict({"sentence": list(frame["text"]), "label": labels, "idx": range(n)})
            features = datasets.Features(rows.features | {"label": datasets.ClassLabel(names=_NAMES)})
            rows.cast(features).to_parquet(folder / config / f"{split}-00000-of-00001.parquet")
            readme += f"  - split: {split}\n    path: {config}/{split}-*\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{readme}---\n# GLUE\n")
    loopback.add("datasets/nyu-mll/glue", folder)
    return loopback


def _options(tiny_options: list[str], *options: str) -> list[str]:
    sst2 = ["--data.dataset=nyu-mll/glue", "--data.text_column=sentence", "--data.train_size=null"]
    return [*tiny_options, *sst2, "--data.val_size=null", "--trainer.max_epochs=1", *options]


def test_a_configuration_with_a_hidden_test_split(run_cli: Run, glue: LoopbackHub, tiny_options: list[str]) -> None:
    options = _options(tiny_options, "--data.config_name=sst2", "--data.test_size=0")
    status, out, err = run_cli("fit", *options)
    assert (status, err) == (0, "")
    assert "Prepared reviews: 80 for training, 30 for validation, 0 for testing" in out
    assert "Rows for validation: all 30 of the split 'validation'" in out
    assert "Classes, with their training rows: negative (40), positive (40)" in out
    assert not [request for request in glue.asked if "cola/" in request.line]
    status, out, err = run_cli("validate", "--ckpt_path=best")
    assert (status, err) == (0, "")
    results = json.loads(Path("lightning_logs/version_0/validate.json").read_text())
    assert (results["dataset"], results["split"], results["n"]) == ("nyu-mll/glue", "validation", 30)
    assert results["fingerprint"].endswith(" sst2")


@pytest.mark.usefixtures("glue")
def test_what_is_missing_is_one_line(run_cli: Run, tiny_options: list[str]) -> None:
    for options, words in (
        ([], ["has the configurations cola, sst2: data.config_name names one"]),
        (["--data.config_name=sst3"], ["has the configurations cola, sst2: data.config_name names one"]),
        (
            ["--data.config_name=sst2", "--data.test_size=null"],
            ["the labels of the split 'test' are hidden (-1)", "set data.test_size=0, or name rows of your own by"],
        ),
    ):
        status, _, err = run_cli("fit", *_options(tiny_options, *options))
        assert (status, len(err.splitlines())) == (1, 1)
        assert all(word in err for word in words), err
    assert not Path("lightning_logs").exists()
