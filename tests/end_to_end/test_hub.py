"""The real commands with their shipped configs, from a Hub on loopback that may fail, and from its cache."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest
import torch

from src.system import downloads, hub
from tests import processes
from tests.loopback_hub import LoopbackHub, use
from tests.synthetic import synthetic_corpus, synthetic_reviews

Run = Callable[..., tuple[int, str, str]]
_CONFIGS = Path(__file__).parents[2] / "configs"
_IMDB, _BERT = "e6281661ce1c48d982bc483cf8a173c1bbeb5d31", "86b5e0934494bd15c9632b12f734a8a67f723594"
_SPLITS = ("train", "test", "unsupervised")
_SIZES = ["--data.train_size=24", "--data.val_size=12", "--data.test_size=12", "--data.max_length=32"]
_ONE_EPOCH = ["--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
_FIT = ["fit", f"--config={_CONFIGS / 'imdb.yaml'}", *_SIZES, *_ONE_EPOCH]
# main, which the Hub is asked for each time
_NOT_PINNED = ["--data.revision=null", "--model.revision=null"]


@pytest.fixture(scope="module")
def repositories(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """stanfordnlp/imdb as it is on the Hub, and a tiny BERT in place of bert-base-uncased."""
    imdb = tmp_path_factory.mktemp("imdb")
    (imdb / "plain_text").mkdir()
    files = ""
    for split, n in zip(_SPLITS, (1600, 520, 50), strict=True):
        frame = synthetic_corpus(n, 2) if split == "unsupervised" else synthetic_reviews(n, n)
        labels = [-1] * n if split == "unsupervised" else [int(label == "pos") for label in frame["label"]]
        rows = datasets.Dataset.from_dict({"text": list(frame["text"]), "label": labels})
        features = datasets.Features(rows.features | {"label": datasets.ClassLabel(names=["neg", "pos"])})
        rows.cast(features).to_parquet(imdb / "plain_text" / f"{split}-00000-of-00001.parquet")
        files += f"  - split: {split}\n    path: plain_text/{split}-*\n"
    (imdb / "README.md").write_text(f"---\nconfigs:\n- config_name: plain_text\n  data_files:\n{files}---\n# IMDb\n")
    return {
        "datasets/stanfordnlp/imdb": (imdb, _IMDB),
        "models/google-bert/bert-base-uncased": (tiny_bert, _BERT),
    }


@pytest.fixture
def served(loopback: LoopbackHub, repositories: dict[str, tuple[Path, str]]) -> LoopbackHub:
    for name, (folder, commit) in repositories.items():
        loopback.add(name, folder, commit)
    loopback.renamed["bert-base-uncased"] = "google-bert/bert-base-uncased"
    return loopback


@pytest.fixture(scope="module")
def cached(
    repositories: dict[str, tuple[Path, str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, torch.Tensor]]]:
    """An HF_HOME with all that `_FIT` needs, pinned or not, and the weights that a healthy Hub gives."""
    from src.__main__ import main

    home = tmp_path_factory.mktemp("cached") / "home"
    loopback = LoopbackHub(renamed={"bert-base-uncased": "google-bert/bert-base-uncased"})
    with loopback.serve(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(home.parent)
        for name, (folder, commit) in repositories.items():
            loopback.add(name, folder, commit)
        use(loopback.address, home, patch)
        assert main([*_FIT, *_NOT_PINNED]) == 0
        yield home, _weights(Path())


def _weights(root: Path, version: int = 0) -> dict[str, torch.Tensor]:
    file = root / "lightning_logs" / f"version_{version}" / "checkpoints" / "last.ckpt"
    weights: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return weights


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HUB_TIMEOUT_S", 0.5)
    monkeypatch.setattr(downloads, "STALLED_S", 1.0)


def test_shipped_configs_from_an_empty_cache_and_then_offline(
    run_cli: Run, served: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, err = run_cli(*_FIT)
    assert (status, err) == (0, "")
    assert f"Data set: stanfordnlp/imdb@{_IMDB[:7]}, from the Hub" in out
    assert f"Model: google-bert/bert-base-uncased@{_BERT[:7]}, from the Hub" in out
    assert not [request for request in served.asked if "unsupervised" in request.line]
    n_asked = len(served.asked)
    status, out, err = run_cli("test", "--ckpt_path=best")
    assert (status, err) == (0, "")
    assert ", n=12)" in out

    use(served.address, tmp_path / "hf-home", monkeypatch, offline=True)
    status, out, err = run_cli(*_FIT)
    assert (status, err) == (0, "")
    assert f"Data set: stanfordnlp/imdb@{_IMDB[:7]}, from the cache" in out
    assert _same(_weights(Path(), 0), _weights(Path(), 1))
    # other rows of what is there
    status, out, err = run_cli(*_FIT, "--data.train_size=30")
    assert (status, err) == (0, "")
    assert "Prepared reviews: 30 for training" in out
    assert len(served.asked) == n_asked

    # the unlabelled reviews are not there
    monkeypatch.chdir(_CONFIGS.parent)  # data.held_out names configs by relative paths
    pretrain = ["fit", "--config=configs/pretrain.yaml", "--data.val_size=10", "--data.sequence_length=32"]
    pretrain += [f"--trainer.default_root_dir={tmp_path / 'pretrained'}", *_ONE_EPOCH]
    status, _, err = run_cli(*pretrain)
    assert status == 1
    assert err.startswith("error: plain_text/unsupervised-00000-of-00001.parquet of stanfordnlp/imdb@e628166 is not in")
    assert len(err.splitlines()) == 1
    use(served.address, tmp_path / "hf-home", monkeypatch)
    status, _, err = run_cli(*pretrain)
    assert (status, err) == (0, "")
    monkeypatch.chdir(tmp_path / "pretrained")
    assert run_cli("export", "--ckpt_path=best", "--output=my-bert")[0] == 0

    use(served.address, tmp_path / "hf-home", monkeypatch, offline=True)
    status, out, err = run_cli(*_FIT, "--model.model_name_or_path=my-bert", "--model.revision=null")
    assert (status, err) == (0, "")
    best = ["fit", f"--config={_CONFIGS / 'imdb_best_gpu.yaml'}", *_SIZES, *_ONE_EPOCH]
    status, out, err = run_cli(*best, "--data.test_size=null")
    assert (status, err) == (0, "")
    assert "520 for testing" in out


@pytest.mark.parametrize("fault", ["hang", "500", "429", "gated", "drop", "404", "corrupt", b"<html>"], ids=str)
@pytest.mark.usefixtures("short_waits")
def test_with_everything_cached_a_failing_hub_is_a_line_and_the_same_weights(
    run_cli: Run,
    served: LoopbackHub,
    cached: tuple[Path, dict[str, torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
    fault: str | bytes,
) -> None:
    home, weights = cached
    use(served.address, home, monkeypatch)
    served.fail(fault)
    status, _, err = run_cli(*_FIT, *_NOT_PINNED)
    assert status == 0, err
    told = err.splitlines()
    assert len(told) == (fault != "corrupt")
    assert all(line.startswith("the data set stanfordnlp/imdb@e628166 is read from the cache") for line in told)
    assert _same(_weights(Path()), weights)


_NOTHING_CACHED: list[tuple[str | bytes, str, str]] = [
    ("hang", ".", "no answer in 0.5 s"),
    ("gated", "/api/models/", "the model 'bert-base-uncased' is gated (HTTP 403"),
    ("404", "/api/", "(HTTP 404 as asked for: 404)"),
    (
        "corrupt",
        "GET .*safetensors",
        "error: model.safetensors of google-bert/bert-base-uncased@86b5e09 arrives damaged",
    ),
    ("corrupt", "GET .*train-", "error: plain_text/train-00000-of-00001.parquet of stanfordnlp/imdb@e628166 arrives"),
    ("corrupt", "GET .*/config.json", "error: config.json of google-bert/bert-base-uncased@86b5e09 arrives damaged"),
    ("truncate", "GET .*test-", "Consistency check failed"),
    ("hang", "GET .*safetensors", "fewer than 4,096 bytes in 1 s"),
    ("500", "HEAD .*/tokenizer.json", "HTTP Error 500 thrown while requesting HEAD"),
    (b"", "README", "README.md of stanfordnlp/imdb@e628166 could not be fetched"),
]


@pytest.mark.parametrize(("fault", "where", "words"), _NOTHING_CACHED)
@pytest.mark.usefixtures("short_waits")
def test_with_nothing_cached_a_failing_hub_is_one_line_and_no_run(
    run_cli: Run, served: LoopbackHub, fault: str | bytes, where: str, words: str
) -> None:
    served.fail(fault, where)
    status, _, err = run_cli(*_FIT)
    assert status == 1
    assert words in err
    assert len(err.splitlines()) == 1
    assert not Path("lightning_logs").exists()


def test_what_arrives_damaged_once_changes_nothing(
    run_cli: Run, served: LoopbackHub, cached: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    served.faults = [(f"GET .*{name}", "corrupt", 1) for name in ("safetensors", "train-", "/config.json", "README")]
    served.faults += [("GET .*test-", "cut", 1), ("GET .*/tokenizer.json", "cut", 1)]
    status, _, err = run_cli(*_FIT)
    assert (status, err) == (0, "")
    assert not any(times for _, _, times in served.faults)
    assert _same(_weights(Path()), cached[1])


def test_model_with_pickled_weights_alone_says_how_to_convert_them(
    run_cli: Run, served: LoopbackHub, tiny_bert: Path, tmp_path: Path
) -> None:
    """Before anything large is downloaded."""
    shutil.copytree(tiny_bert, tmp_path / "old")
    (tmp_path / "old" / "model.safetensors").rename(tmp_path / "old" / "pytorch_model.bin")
    served.add("models/someone/old", tmp_path / "old")
    status, _, err = run_cli(*_FIT, "--model.model_name_or_path=someone/old", "--model.revision=null")
    assert status == 1
    assert "there is no model.safetensors, but pytorch_model.bin" in err
    assert len(err.splitlines()) == 1
    assert not [request for request in served.asked if "/large/" in request.line]


def test_weights_in_several_files(
    run_cli: Run,
    served: LoopbackHub,
    tiny_bert: Path,
    cached: tuple[Path, dict[str, torch.Tensor]],
    tmp_path: Path,
) -> None:
    from transformers import BertForPreTraining

    shutil.copytree(tiny_bert, tmp_path / "shards")
    (tmp_path / "shards" / "model.safetensors").unlink()
    BertForPreTraining.from_pretrained(tiny_bert).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    served.add("models/someone/shards", tmp_path / "shards")
    status, _, err = run_cli(*_FIT, "--model.model_name_or_path=someone/shards", "--model.revision=null")
    assert (status, err) == (0, "")
    assert _same(_weights(Path()), cached[1])


def test_home_that_cannot_be_written_is_one_line(run_cli: Run, served: LoopbackHub, tmp_path: Path) -> None:
    assert served.address
    (tmp_path / "hf-home").touch()
    status, _, err = run_cli(*_FIT)
    assert status == 1
    assert len(err.splitlines()) == 1
    assert "hf-home" in err


def test_local_data_ask_nobody(run_cli: Run, served: LoopbackHub, tiny_options: list[str]) -> None:
    """Not the counter of downloads that `datasets` sends each name to either."""
    tried: list[object] = []
    listening = True

    def audit(event: str, args: tuple[object, ...]) -> None:
        if listening and event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            tried.append((event, args[1:]))

    sys.addaudithook(audit)  # which cannot be removed
    try:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", 1), 1)
        assert tried, "the hook sees nothing"
        tried.clear()
        status, _, err = run_cli("fit", *tiny_options, "--trainer.max_epochs=1")
        assert (status, err) == (0, "")
        assert run_cli("test", "--ckpt_path=best")[0] == 0
    finally:
        listening = False
    assert tried == served.asked == []


def _fit(address: str, folder: Path, log: str) -> None:
    """Runs `_FIT` in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        use(address, folder / "hf-home", patch)
        processes._child("src", _FIT, str(folder), log, dict(os.environ))


@pytest.mark.slow
def test_two_fits_at_once_have_runs_of_their_own(
    served: LoopbackHub, cached: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    served.fail("slow", "GET .*safetensors")
    started = [processes.call(_fit, served.address, tmp_path, f"{i}.log") for i in range(2)]
    statuses = [processes.wait(process) for process in started]
    assert statuses == [0, 0], "\n".join((tmp_path / f"{i}.log").read_text() for i in range(2))
    assert sorted(path.name for path in Path("lightning_logs").iterdir()) == ["version_0", "version_1"]
    assert all(_same(_weights(Path(), version), cached[1]) for version in range(2))


def _command(served: LoopbackHub, home: Path, *options: str) -> subprocess.Popen[str]:
    """Starts `_FIT` as a user does, with the variables of the Hub's clients; its stderr is a pipe."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": served.address, "HF_HOME": str(home), "PYTHONPATH": str(_CONFIGS.parent)}
    command = [sys.executable, "-m", "src", *_FIT, *options]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_downloading_and_started_again(served: LoopbackHub, tmp_path: Path, signum: int) -> None:
    served.fail("slow", "GET .*safetensors")
    stopped = _command(served, tmp_path / "home")
    deadline = time.monotonic() + 60
    while not any("GET /large" in request.line and "safetensors" in request.line for request in served.asked):
        assert stopped.poll() is None, stopped.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stopped.send_signal(signum)
    _, err = stopped.communicate(timeout=10)
    assert stopped.returncode == 128 + signum
    assert len(err.splitlines()) == 1
    assert not Path("lightning_logs").exists()
    served.faults.clear()
    n_asked = len(served.asked)
    again = _command(served, tmp_path / "home")
    _, err = again.communicate(timeout=120)
    assert (again.returncode, err) == (0, "")
    again_asked = [request.line for request in served.asked[n_asked:]]
    assert not [line for line in again_asked if "train-" in line], "what was whole is downloaded again"


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--data.dataset=someone/none",), ("--data.val_size=9999999",)])
def test_error_of_a_run_with_several_ranks_is_one_line(
    served: LoopbackHub, tmp_path: Path, options: tuple[str, ...]
) -> None:
    failed = _command(served, tmp_path / "home", "--trainer.devices=2", "--data.revision=null", *options)
    _, err = failed.communicate(timeout=120)  # which waits for the end of the other rank too, since it has the pipe
    assert failed.returncode == 1
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
