"""`export --push` to a Hub on loopback: what arrives there, and what is said where nothing does."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from src.exporting import hub_upload
from src.system.checksums import file_sha256, is_whole
from tests.loopback_hub import LoopbackHub

Run = Callable[..., tuple[int, str, str]]
_TOKEN = "hf_" + "SecretOfTheTests" * 2
_NAME = "cinema/reviews-bert"


@pytest.fixture
def served(loopback: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """A Hub on which the token may write for `cinema`."""
    loopback.token, loopback.owners, loopback.uploads = _TOKEN, ("cinema",), tmp_path / "uploads"
    loopback.uploads.mkdir()
    monkeypatch.setenv("HF_TOKEN", _TOKEN)
    return loopback


@pytest.fixture
def export(tiny_checkpoint: Path, reviews_csv: Path, run_cli: Run) -> Callable[..., tuple[int, str, str]]:
    def run(*options: str) -> tuple[int, str, str]:
        status, out, err = run_cli("export", f"--ckpt_path={tiny_checkpoint}", f"--reviews={reviews_csv}", *options)
        assert _TOKEN not in out + err
        return status, out, err

    return run


def _sums(folder: Path) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in folder.iterdir() if file.is_file()}


def test_the_hub_has_the_folder_of_the_export_and_no_weights_of_an_earlier_one(
    served: LoopbackHub, export: Run
) -> None:
    status, out, err = export("--output=first", "--int8", f"--push={_NAME}")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"Uploaded to {served.address}/{_NAME}"
    (commits,) = served.repositories.values()
    empty, uploaded = commits.values()
    assert not list(empty.iterdir())
    assert _sums(uploaded) == _sums(Path("first"))
    (uploaded / "LICENSE").write_text("mine")

    assert export("--output=second", f"--push={_NAME}")[0] == 0
    latest = list(commits.values())[-1]
    assert (latest / "LICENSE").read_text() == "mine"
    (latest / "LICENSE").unlink()
    assert _sums(latest) == _sums(Path("second"))
    assert is_whole(latest)
    card = ModelCard.load(latest / "README.md")
    assert f'pipeline("text-classification", "{_NAME}")' in card.text


@pytest.mark.parametrize(
    ("fault", "where", "words"),
    [
        ("401", "/api/whoami", "the Hub does not accept the token (HTTP 401 as asked for: 401): log in by `hf auth"),
        ("500", "/api/whoami", "the Hub fails (HTTP 500 as asked for: 500)"),
        ("hang", "/api/whoami", "the Hub fails (no answer in 0.5 s)"),
        (b"<html>", "/api/whoami", "the Hub fails ("),
        ("403", "/api/repos/create", f"you may not write to {_NAME} (HTTP 403 as asked for: 403): use a token that"),
        ("401", "/preupload/", "the Hub does not accept the token (HTTP 401 as asked for: 401): log in by `hf auth"),
        ("403", "/lfs/", f"you may not write to {_NAME} (HTTP 403 as asked for: 403): use a token that may write for"),
        ("hang", "PUT /upload/", "the Hub fails ("),
        ("413", "/commit/", "the Hub fails (HTTP 413 as asked for: 413)"),
        ("drop", "/commit/", "the Hub fails (Server disconnected"),
        (b"<html>", "/commit/", "the Hub fails ("),
    ],
    ids=str,
)
def test_a_failing_hub_is_a_line_and_a_finished_folder_stays(
    fault: str | bytes, where: str, words: str, served: LoopbackHub, export: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_upload, "HUB_TIMEOUT_S", 0.5)
    monkeypatch.setattr(hub_upload, "_LONGEST_SILENCE_S", 0.5)
    monkeypatch.setattr("time.sleep", lambda _: None)  # the client waits longer before each further try
    served.fail(fault, where)
    status, _, err = export("--output=my model", f"--push={_NAME}")
    assert status == 1
    assert err.startswith(f"error: {words}")
    assert len(err.splitlines()) == 1
    before = "whoami" in where
    assert Path("my model").exists() != before, "what can be known is told before the export"
    assert (f"`hf upload {_NAME} {shlex.quote('my model')}` uploads the exported folder" in err) != before
    assert not any(list(folder.iterdir()) for commits in served.repositories.values() for folder in commits.values())


def test_a_repository_of_somebody_else_is_left_alone(served: LoopbackHub, export: Run, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "README.md").write_text("theirs")
    served.add("models/them/bert", tmp_path / "theirs")
    for name in ("them/bert", "them/new"):
        status, _, err = export(f"--output={name.replace('/', '-')}", f"--push={name}")
        assert (status, len(err.splitlines())) == (1, 1)
        assert f"you may not write to {name} (HTTP 403 " in err
        assert "use a token that may write for them, or another name" in err
    assert list(served.repositories) == ["models/them/bert"]
    assert len(served.repositories["models/them/bert"]) == 1


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "--push needs a token of the Hub: log in by `hf auth login`"),
        ("hf_Wrong", "the Hub does not accept the token (HTTP 401 Invalid username or password.): log in"),
        (f"{_TOKEN} {_TOKEN}", "the token of the Hub has a space, or another character that no token has"),
        (f"{_TOKEN}\x01", "the token of the Hub has a space, or another character that no token has"),
        (f"{_TOKEN}é", "the token of the Hub has a space, or another character that no token has"),
    ],
    ids=["none", "wrong", "space", "control", "accent"],
)
def test_a_token_that_cannot_do_is_told_before_the_export(
    token: str, words: str, served: LoopbackHub, export: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("SRC_DEBUG", "1")  # shows what the HTTP client says too
    status, _, err = export("--output=out", f"--push={_NAME}")
    assert status == 1
    assert err.splitlines()[-1].startswith(f"error: {words}")
    assert not token or token not in err
    assert not Path("out").exists()
    assert not served.repositories


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("reviews-bert", 2, "--push reviews-bert names no owner: give your user name or an organisation, as in me/rev"),
        ("", 2, "--push '' is no name on the Hub"),
        ("a/b/c", 2, "--push 'a/b/c' is no name on the Hub"),
        ("cinema/a b", 2, "--push 'cinema/a b' is no name on the Hub"),
        ("../cinema", 2, "--push '../cinema' is no name on the Hub"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, status: int, words: str, served: LoopbackHub, export: Run) -> None:
    found, _, err = export("--output=out", f"--push={name}")
    assert (found, len(err.splitlines())) == (status, 1)
    assert words in err
    assert not served.asked


def test_offline_and_without_a_network_nothing_is_exported(
    served: LoopbackHub, export: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offline, address, words in (
        (True, served.address, "--push needs the Hub, and HF_HUB_OFFLINE=1 forbids to ask it"),
        (False, "http://127.0.0.1:9", "the Hub fails ("),
    ):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        status, _, err = export("--output=out", f"--push={_NAME}")
        assert (status, len(err.splitlines())) == (1, 1)
        assert err.startswith(f"error: {words}")
    assert not served.asked
    assert not Path("out").exists()
