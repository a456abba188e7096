"""Shared fixtures: a tiny real BERT and small files of reviews, on disk, read by the real code."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# before `datasets` is imported: nothing is fetched, and nothing is left in the user's own cache
_CACHE = tempfile.TemporaryDirectory(prefix="bert-imdb-tests-")
os.environ.update(HF_HOME=_CACHE.name, HF_HUB_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", MPLBACKEND="Agg")
# the same figures on every processor: see src/system/processor.py
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"
# the tiny model's matrices are too small to share out: with more threads they spend their time waiting for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd  # noqa: E402
import pytest  # noqa: E402
from huggingface_hub import constants  # noqa: E402

from tests.loopback_hub import LoopbackHub, forget_the_hub, use  # noqa: E402
from tests.synthetic import synthetic_corpus, synthetic_reviews, write_tiny_bert  # noqa: E402

SHARED_IMDB = Path(__file__).parents[2] / "shared" / "imdb"
"""Real reviews in the Hub's layout, where a developer has them; tests that read them skip elsewhere."""


@pytest.fixture(autouse=True)
def clean_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test runs in a folder of its own, and without what an earlier run left in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("PL_", "SLURM_", "MASTER_")) or name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "RANK"):
            monkeypatch.delenv(name)
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers, hidden size 32, at most 128 tokens, with both pre-training heads, and its tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    write_tiny_bert(folder)
    return folder


@pytest.fixture(scope="session")
def reviews_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 short reviews of two classes, columns text and label (neg, pos)."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    synthetic_reviews(240).to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def corpus_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 short reviews of some sentences each, without labels."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.csv"
    synthetic_corpus(80).to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def tiny_pretraining(tiny_bert: Path, corpus_csv: Path) -> list[str]:
    """As `tiny_options`, for a pre-training."""
    return [
        "--model=BertPretrainer",
        "--data=PretrainingDataModule",
        f"--model.model_name_or_path={tiny_bert}",
        f"--data.dataset={corpus_csv}",
        "--data.split=train",
        "--data.val_size=20",
        "--data.sequence_length=32",
        "--data.batch_size=16",
        "--trainer.accelerator=cpu",
    ]


@pytest.fixture(scope="session")
def tiny_options(tiny_bert: Path, reviews_csv: Path) -> list[str]:
    """Options that put the tiny model and the small file in place of the real ones, in any command line."""
    return [
        f"--model.model_name_or_path={tiny_bert}",
        f"--data.dataset={reviews_csv}",
        "--data.train_size=48",
        "--data.val_size=24",
        "--data.test_size=24",
        "--data.max_length=64",
        "--trainer.accelerator=cpu",
    ]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_options: list[str]) -> Path:
    """The best.ckpt of a run of the real command with the tiny model, which learns its synthetic reviews."""
    from src.commands.fit import main

    root = tmp_path_factory.mktemp("run")
    options = [
        "--trainer.max_epochs=6",
        "--data.train_size=160",
        "--model.learning_rate=3e-3",
        f"--trainer.default_root_dir={root}",
    ]
    assert main(["fit", *tiny_options, *options]) == 0
    return root / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt"


@pytest.fixture
def loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub without repositories, in place of the real one, and an HF_HOME that is not there yet (`hf-home`)."""
    served = LoopbackHub()
    with served.serve():
        use(served.address, tmp_path / "hf-home", monkeypatch)
        yield served
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # so that threads that still ask give up
    forget_the_hub()


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `python -m src ARGS` in this process: exit status, stdout, stderr."""
    from src.__main__ import main

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main(list(args))
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return status, out, err

    return run


def write_reviews(path: Path, frame: pd.DataFrame) -> Path:
    """Writes a table in the format that the file's suffix names."""
    writers = {".csv": frame.to_csv, ".parquet": frame.to_parquet}
    if path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        writers[path.suffix](path, index=False)
    return path
