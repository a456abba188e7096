"""BertClassifier with the packed network, as on a GPU: the same results, and no question to the GPU within a step."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from src.data.imdb import ImdbDataModule
from src.models import classifier
from src.models.classifier import BertClassifier
from src.models.kernels import packed
from src.models.kernels.cuda_graphs import GraphedSteps
from tests.models.kernels.test_packed import attention_of_each
from tests.synthetic import several_labels

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "attention", attention_of_each)
    monkeypatch.setattr(classifier, "is_supported", lambda *_: True)
    monkeypatch.setattr(GraphedSteps, "_capture", lambda self, n: functools.partial(self._run, n))


_NO_DROPOUT = ["--model.hidden_dropout=0", "--model.attention_dropout=0"]


@pytest.mark.parametrize(
    "options",
    [
        ["--data.train_size=45"],  # the last batch has 5 rows
        ["--data.truncation=windows", "--data.max_length=12"],
        ["--trainer.accumulate_grad_batches=2"],  # without graphs
        ["--data.train_size=45", "--data.dataset=several.csv", "--data.label_column=[praise, blame, music]"],
    ],
    ids=["partial batch", "windows", "accumulation", "several labels"],
)
def test_a_run_gives_the_same(options: list[str], run_cli: Run, tiny_options: list[str], request: Any) -> None:
    several_labels(120).to_csv("several.csv", index=False)

    def run(directory: str) -> tuple[dict[str, torch.Tensor], str]:
        place = f"--trainer.default_root_dir={directory}"
        status, _, err = run_cli("fit", *tiny_options, *_NO_DROPOUT, *options, place)
        assert status == 0, err
        path = next(Path(directory).rglob("last.ckpt"))
        rows = Path(directory).rglob("metrics.csv")
        return torch.load(path, weights_only=True)["state_dict"], next(rows).read_text()

    plain, log = run("plain")
    request.getfixturevalue("as_on_a_gpu")
    mine, its_log = run("packed")
    assert list(mine) == list(plain)
    for name, weight in plain.items():
        torch.testing.assert_close(mine[name], weight, rtol=0, atol=2e-5, msg=name)
    assert log.splitlines()[0] == its_log.splitlines()[0]


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_resumed_run_ends_as_one_that_never_stopped(run_cli: Run, tiny_options: list[str]) -> None:
    for directory, limits in (("whole", ["--trainer.max_epochs=2"]), ("parts", ["--trainer.max_epochs=1"])):
        place = f"--trainer.default_root_dir={directory}"
        assert run_cli("fit", *tiny_options, place, "--model.schedule=constant", *limits)[0] == 0
    last = next(Path("parts").rglob("last.ckpt"))
    place = "--trainer.default_root_dir=parts"
    resumed = ["--model.schedule=constant", "--trainer.max_epochs=2", f"--ckpt_path={last}"]
    status, _, err = run_cli("fit", *tiny_options, place, *resumed)
    assert status == 0, err
    whole, mine = (
        torch.load(next(Path(name).rglob("last.ckpt")), weights_only=True)["state_dict"] for name in ("whole", "parts")
    )
    assert all(torch.equal(mine[name], whole[name]) for name in whole)


class _Count(lightning.Callback):
    """Counts what would wait for a GPU: a tensor that is asked for its value."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.steps = 0
        self.on = False
        for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero"):
            monkeypatch.setattr(torch.Tensor, name, self._counted(name, getattr(torch.Tensor, name)))

    def _counted(self, name: str, method: Any) -> Any:
        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.on:
                self.calls.append(name)
            return method(tensor, *args, **kwargs)

        return call

    def on_train_batch_start(self, *args: Any) -> None:
        self.on = True
        self.steps += 1

    def on_train_epoch_end(self, *args: Any) -> None:
        self.on = False


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_step_asks_the_gpu_for_nothing(tiny_bert: Path, reviews_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SDPA for each sequence asks for where each begins, which the GPU's attention does not
    monkeypatch.setattr(packed, "attention", lambda q, k, v, *_: q + k.sum() + v.sum())
    sizes = {"train_size": 48, "val_size": 0, "test_size": 24, "max_length": 64}
    data = ImdbDataModule(str(reviews_csv), tokenizer=str(tiny_bert), **sizes)  # type: ignore[arg-type]
    count = _Count(monkeypatch)
    transfer = BertClassifier.on_before_batch_transfer

    def before_transfer(module: BertClassifier, batch: Any, dataloader_idx: int) -> Any:
        count.on = False  # until the step begins: the batch is on the CPU
        return transfer(module, batch, dataloader_idx)

    monkeypatch.setattr(BertClassifier, "on_before_batch_transfer", before_transfer)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[count],
    )
    trainer.fit(BertClassifier(str(tiny_bert)), data)
    assert count.steps == 6
    assert count.calls == []
    count.on = True
    assert torch.ones(()).item() == 1
    assert count.calls == ["item"]
    count.on = False
