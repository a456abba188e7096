"""A damaged checkpoint ends in one line, whatever is damaged, and is never read as another one.

A flipped bit or a lost end is found by the checksums. A file that was written so has right checksums: its entries are
compared with what they must be.
"""

import itertools
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from src.inference.classifier import load
from src.models.checkpoint_format import FORMAT
from src.runs.checkpoint_reading import read_checkpoint
from src.system.errors import UserError
from tests.faults.damage import LOST, TENSORS, VALUES, damaged, places

Run = Callable[..., tuple[int, str, str]]

_TEXTS = ["a great film", "dull"]
_CI_FITS = settings.default.max_examples // 4  # a fit takes a second
_NOT_RESTORED = ("state_dict", "classifier", "pretrainer")


def _logits(path: Path) -> np.ndarray | None:
    """The logits of some texts; None if the file is refused in one line."""
    try:
        return load(path).logits(_TEXTS)
    except UserError:
        return None


@pytest.fixture(scope="module")
def content(tiny_checkpoint: Path) -> dict[str, Any]:
    """Of a classifier's checkpoint."""
    loaded: dict[str, Any] = torch.load(tiny_checkpoint, weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory, tiny_pretraining: list[str]) -> Path:
    """The last.ckpt of a pre-training of one step."""
    from src.commands.fit import main

    root = tmp_path_factory.mktemp("pretraining")
    assert main(["fit", *tiny_pretraining, "--trainer.max_steps=1", f"--trainer.default_root_dir={root}"]) == 0
    return root / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> bytes:
    """A small checkpoint's file: a flip in it meets headers and records, not weights alone."""
    names = list(content["state_dict"])
    small = content | {"state_dict": {name: content["state_dict"][name][:2] for name in names[:4]}}
    small |= {"optimizer_states": [], "classifier": content["classifier"] | {"tokenizer": {"vocab.txt": "a\nb\n"}}}
    path = tmp_path_factory.mktemp("whole") / "small.ckpt"
    torch.save(small, path)
    return path.read_bytes()


def _regions(file: bytes, folder: Path) -> list[tuple[int, int]]:
    """Start and end of each header, each entry's data, the central directory and the record at the end."""
    path = folder / "regions.zip"
    path.write_bytes(file)
    with zipfile.ZipFile(path) as entries:
        starts = sorted(entry.header_offset for entry in entries.infolist())
        starts += [start + 64 for start in starts] + [entries.start_dir, len(file) - 98, len(file) - 22, len(file)]
    path.unlink()
    return list(itertools.pairwise(sorted(set(starts))))


@given(data=st.data())
def test_a_flipped_bit_changes_nothing_or_is_refused(data: st.DataObject, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "whole.ckpt").write_bytes(whole)
    expected = read_checkpoint(tmp_path / "whole.ckpt").content
    for _ in range(5):
        start, end = data.draw(st.sampled_from(_regions(whole, tmp_path)))
        flipped = bytearray(whole)
        flipped[data.draw(st.integers(start, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
        (tmp_path / "flipped.ckpt").write_bytes(flipped)
        try:
            found = read_checkpoint(tmp_path / "flipped.ckpt").content
        except UserError:
            continue
        # with all digits of the tensors; `repr` of two equal checkpoints is the same
        with torch._tensor_str.printoptions(threshold=10**9, precision=17):
            assert repr(found) == repr(expected)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_lost_end_is_refused(share: float, whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "short.ckpt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="is damaged, or no checkpoint"):
        read_checkpoint(tmp_path / "short.ckpt")


@given(data=st.data())
def test_no_entry_of_another_type_ends_in_a_traceback(
    data: st.DataObject, content: dict[str, Any], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """A prediction refuses it, or gives what it gave before if that entry is none of its own."""
    path = data.draw(places(content))
    torch.save(damaged(content, path, data.draw(st.sampled_from([*VALUES, *TENSORS]))), tmp_path / "damaged.ckpt")
    logits = _logits(tmp_path / "damaged.ckpt")
    if logits is not None:
        assert np.isfinite(logits).all()
        if path[0] not in ("state_dict", "classifier"):
            np.testing.assert_array_equal(logits, load(tiny_checkpoint).logits(_TEXTS))


@given(data=st.data())
def test_no_entry_of_the_classifier_ends_in_a_traceback(
    data: st.DataObject, content: dict[str, Any], tmp_path: Path
) -> None:
    path = ("classifier", *data.draw(places(content["classifier"])))
    torch.save(damaged(content, path, data.draw(st.sampled_from([*VALUES, *TENSORS]))), tmp_path / "damaged.ckpt")
    logits = _logits(tmp_path / "damaged.ckpt")
    assert logits is None or (logits.shape == (2, 2) and np.isfinite(logits).all())


@pytest.mark.parametrize("value", TENSORS, ids=lambda tensor: f"{tensor.dtype}{tuple(tensor.shape)}")
def test_a_weight_is_a_tensor_of_its_shape(value: torch.Tensor, content: dict[str, Any], tmp_path: Path) -> None:
    for name in ("model.classifier.bias", "model.bert.embeddings.word_embeddings.weight"):
        torch.save(damaged(content, ("state_dict", name), value), tmp_path / "damaged.ckpt")
        assert _logits(tmp_path / "damaged.ckpt") is None


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"vocab_size": 10**12}, "size mismatch"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_labels": 10**12}, "num_labels"),
        ({"id2label": {0: "pos", 1: "neg"}}, "its labels are"),
        ({"problem_type": "regression"}, "problem_type"),
        ({"max_position_embeddings": 16}, "takes at most 16"),
        ({"num_hidden_layers": 1}, "Unexpected key"),
    ],
    ids=str,
)
def test_the_configuration_fits_the_weights(
    entries: dict[str, Any], words: str, content: dict[str, Any], tmp_path: Path
) -> None:
    """Compared before there is memory for what it asks for."""
    config = content["classifier"]["config"] | entries
    torch.save(damaged(content, ("classifier", "config"), config), tmp_path / "damaged.ckpt")
    with pytest.raises(UserError, match=words):
        load(tmp_path / "damaged.ckpt")


def _resume(run_cli: Run, run: Path, content: dict[str, Any], *options: str) -> tuple[int, str]:
    """Resumes a copy of a run from a checkpoint with this content: exit status and stderr."""
    shutil.rmtree("lightning_logs", ignore_errors=True)
    shutil.copytree(run, "lightning_logs/version_0")
    torch.save(content, "lightning_logs/version_0/checkpoints/last.ckpt")
    status, _, err = run_cli("fit", "--ckpt_path=last", *options)
    return status, err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_options: list[str]) -> Path:
    """Of a classifier, stopped after a step."""
    from src.commands.fit import main

    root = tmp_path_factory.mktemp("stopped")
    options = ["--trainer.max_steps=1", "--data.train_size=16", f"--trainer.default_root_dir={root}"]
    assert main(["fit", *tiny_options, *options]) == 0
    return root / "lightning_logs" / "version_0"


@settings(max_examples=_CI_FITS)
@given(data=st.data())
def test_no_state_of_a_run_ends_in_a_traceback(data: st.DataObject, run: Path, run_cli: Run) -> None:
    """What Lightning restores: loops, optimizer, schedule, callbacks, and what this program adds."""
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    path = data.draw(places({key: value for key, value in stored.items() if key not in _NOT_RESTORED}))
    value = data.draw(st.sampled_from([*VALUES, *TENSORS]))
    status, err = _resume(run_cli, run, damaged(stored, path, value), "--trainer.max_steps=2")
    assert status in (0, 1)
    assert "Traceback" not in err
    assert status == 0 or err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("optimizer_states",), LOST),
        (("optimizer_states", 0, "state", 0), LOST),
        (("optimizer_states", 0, "state", 0, "exp_avg"), torch.zeros(3)),
        (("optimizer_states", 0, "state", 3, "exp_avg_sq"), torch.full((32,), torch.nan)),
        (("optimizer_states", 0, "param_groups", 0, "lr"), "high"),
        (("lr_schedulers", 0, "last_epoch"), LOST),
        (("loops",), LOST),
        (("loops", "fit_loop", "epoch_progress"), {}),
        (("loops", "fit_loop", "epoch_loop.batch_progress", "current", "ready"), -1),
        (("global_step",), 7),
        (("global_step",), None),
        (("callbacks",), []),
        (("epoch_means", "loss"), LOST),
        (("pytorch-lightning_version",), "new"),
        (("hyper_parameters",), None),
        (("ImdbDataModule",), LOST),
        (("state_dict", "another.weight"), torch.zeros(2)),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else type(value).__name__,
)
def test_a_run_is_resumed_as_it_was_or_not_at_all(
    path: tuple[Any, ...], value: object, run: Path, run_cli: Run
) -> None:
    stored = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    status, err = _resume(run_cli, run, damaged(stored, path, value), "--trainer.max_steps=2")
    assert (status, err.count("\n")) == (1, 1), err
    assert err.startswith("error: ")


@settings(max_examples=_CI_FITS)
@given(data=st.data())
def test_no_entry_of_a_pretraining_ends_in_a_traceback(data: st.DataObject, pretraining: Path, run_cli: Run) -> None:
    stored = torch.load(pretraining, weights_only=True)
    path = ("pretrainer", *data.draw(places(stored["pretrainer"])))
    torch.save(damaged(stored, path, data.draw(st.sampled_from([*VALUES, *TENSORS]))), "damaged.ckpt")
    shutil.rmtree("exported", ignore_errors=True)
    status, _, err = run_cli("export", "--ckpt_path=damaged.ckpt", "--output=exported")
    assert status in (0, 1)
    assert status == 0 or err.count("\n") == 1, err


def _zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as entries:
        entries.writestr("readme.txt", "nothing to load")


_FOREIGN: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.touch(),
    "text": lambda path: path.write_text("no checkpoint"),
    "directory": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "zip": _zip_of_text,
    "pickle": lambda path: path.write_bytes(pickle.dumps({"state_dict": {}})),
    "safetensors": lambda path: save_file({"weight": torch.zeros(2)}, path),
    "pytorch_model.bin": lambda path: torch.save({"bert.pooler.dense.weight": torch.zeros(2)}, path),
    "old torch": lambda path: torch.save({"state_dict": {}}, path, _use_new_zipfile_serialization=False),
    "tensor": lambda path: torch.save(torch.zeros(2), path),
    "another module": lambda path: torch.save(
        {"state_dict": {"layer.weight": torch.zeros(2)}, "epoch": 1, "global_step": 2, "hyper_parameters": {}}, path
    ),
    "another format": lambda path: torch.save({"state_dict": {}, "classifier": {"format": str(FORMAT)}}, path),
    "no text as name": lambda path: torch.save({"state_dict": {1: torch.zeros(2)}, "classifier": {}}, path),
}


@pytest.mark.parametrize("kind", _FOREIGN)
def test_another_file_is_refused_by_every_command(kind: str, run: Path, run_cli: Run, tmp_path: Path) -> None:
    _FOREIGN[kind](tmp_path / "foreign.ckpt")
    Path("in.csv").write_text("text\ngreat\n")
    for command in (
        ["predict", "--input=in.csv", "--output=out.csv"],
        ["export", "--output=exported"],
        ["test", f"--config={run / 'config.yaml'}"],
        ["fit", f"--config={run / 'config.yaml'}"],
    ):
        status, _, err = run_cli(command[0], "--ckpt_path=foreign.ckpt", *command[1:])
        assert (status, err.count("\n")) == (1, 1), err
        assert "foreign.ckpt" in err
    assert not Path("out.csv").exists()
    assert not Path("exported").exists()
