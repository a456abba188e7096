"""Which commit a repository is read at, on any Hub."""

import json
import time
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from src.system import hub
from src.system.errors import UserError
from src.system.hub import Repository, find_repository
from tests.loopback_hub import LoopbackHub, use

_A, _B = "a" * 40, "b" * 40


@pytest.fixture
def rows(loopback: LoopbackHub, tmp_path: Path) -> LoopbackHub:
    """The data set someone/rows with two commits."""
    for commit in (_A, _B):
        (tmp_path / commit).mkdir()
        (tmp_path / commit / "train.csv").write_text(f"text,label\n{commit},1\n")
        loopback.add("datasets/someone/rows", tmp_path / commit, commit)
    return loopback


def _found(name: str = "someone/rows", revision: str | None = None) -> Repository:
    return find_repository("dataset", name, revision)


def _started_again(rows: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool = False) -> None:
    rows.asked.clear()
    use(rows.address, tmp_path / "hf-home", monkeypatch, offline=offline)


def test_revision_is_resolved_once_and_a_known_commit_asks_nobody(
    rows: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _found() == Repository("dataset", "someone/rows", _B, ("train.csv",))
    assert _found() is _found()
    assert _found(revision=_A).commit == _A
    assert [request.line for request in rows.asked] == [
        "GET /api/datasets/someone/rows",
        f"GET /api/datasets/someone/rows/revision/{_A}",
    ]
    _started_again(rows, tmp_path, monkeypatch)
    assert (_found(revision=_A).commit, _found(revision=_B).commit, rows.asked) == (_A, _B, [])
    # a branch may have moved
    rows.add("datasets/someone/rows", tmp_path / _A, "c" * 40)
    assert _found().commit == "c" * 40


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("hang", "no answer in 0.5 s"),
        ("drop", "disconnected"),
        ("500", "HTTP 500 as asked for: 500"),
        ("429", "HTTP 429 as asked for: 429"),
        ("404", "HTTP 404 as asked for: 404"),
        ("gated", "gated (HTTP 403 Access to this repository is restricted): ask for access at http"),
        (b"", "a proxy or a login page"),
        (b"<html>Log in</html>", "a proxy or a login page"),
        (b"[]", "a proxy or a login page"),
        (b"[" * 100_000, "a proxy or a login page"),
        (b"{}", "a proxy or a login page"),
        (b'{"id": "../..", "sha": "%s", "siblings": []}' % _A.encode(), "a proxy or a login page"),
        (b'{"id": "someone/rows", "sha": "main", "siblings": []}', "a proxy or a login page"),
        (b'{"id": "someone/rows", "sha": "%s", "siblings": [{"rfilename": 5}]}' % _A.encode(), "a proxy or a login"),
    ],
    ids=str,
)
def test_failing_hub_is_told_and_the_commit_of_this_very_revision_taken(
    rows: LoopbackHub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str | bytes,
    words: str,
) -> None:
    monkeypatch.setattr(hub, "HUB_TIMEOUT_S", 0.5)
    rows.add("datasets/someone/more", tmp_path / _A, _A)
    rows.fail(fault)
    with pytest.raises(UserError) as refused:
        _found(revision="main")
    assert words in str(refused.value)
    rows.faults.clear()
    _started_again(rows, tmp_path, monkeypatch)
    _found()
    _found("someone/more")

    _started_again(rows, tmp_path, monkeypatch)
    rows.fail(fault)
    started = time.monotonic()
    assert (_found().commit, _found("someone/more").commit) == (_B, _A)
    assert time.monotonic() - started < 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith("the data set someone/rows@bbbbbbb is read from the cache, since the Hub fails: ")
    # another revision is other rows, and never taken in place of the one that was asked for
    with pytest.raises(UserError):
        _found(revision="v2")

    _started_again(rows, tmp_path, monkeypatch, offline=True)
    assert _found() == Repository("dataset", "someone/rows", _B, ("train.csv",), "HF_HUB_OFFLINE=1")
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE=1.*configs/quickstart\.yaml"):
        _found(revision="v2")
    assert not rows.asked
    assert not capsys.readouterr().err


def test_what_is_not_there_is_named(rows: LoopbackHub) -> None:
    with pytest.raises(UserError, match=r"the Hub has no data set 'someone/else', or it is private"):
        _found("someone/else")
    with pytest.raises(UserError, match=r"'someone/rows' has no revision 'v9' \(data\.revision"):
        _found(revision="v9")
    n_asked = len(rows.asked)
    for name in ("two words", "a--b", "-a", "a" * 200, "a.git"):
        with pytest.raises(UserError, match="no file or folder here, and no name on the Hub"):
            _found(name)
    assert len(rows.asked) == n_asked


def test_old_id_is_followed_and_remembered(rows: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.renamed["rows"] = "someone/rows"
    assert (_found("rows").name, _found("rows").commit) == ("someone/rows", _B)
    _started_again(rows, tmp_path, monkeypatch, offline=True)
    for name in ("rows", "someone/rows"):
        assert (_found(name).name, _found(name).commit) == ("someone/rows", _B)


def test_other_commit_than_the_one_asked_for_is_refused(rows: LoopbackHub) -> None:
    rows.fail(b'{"id": "someone/rows", "sha": "%s", "siblings": []}' % _B.encode())
    with pytest.raises(UserError, match=f"asked for {_A}, it answers with {_B}"):
        _found(revision=_A)


def test_redirects_in_a_circle_end(rows: LoopbackHub) -> None:
    rows.renamed |= {"one": "two", "two": "one"}
    with pytest.raises(UserError, match="redirects"):
        _found("one")


def test_names_that_lead_elsewhere_are_no_files(rows: LoopbackHub) -> None:
    names = ["../up.csv", "/etc/passwd", "a/../../b.csv", "a\\b.csv", "", "a//b.csv", "good/train 1.csv"]
    siblings = [{"rfilename": name} for name in names]
    rows.fail(json.dumps({"id": "someone/rows", "sha": _A, "siblings": siblings}).encode())
    assert _found().files == ("good/train 1.csv",)


def test_what_another_program_has_cached_is_used(
    rows: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit and files, but only where the Hub fails: there may be files that it did not want."""
    (tmp_path / _B / "test.csv").write_text("text,label\nx,1\n")
    hf_hub_download("someone/rows", "train.csv", repo_type="dataset")
    _started_again(rows, tmp_path, monkeypatch, offline=True)
    assert (_found().commit, _found().files, _found().complete) == (_B, ("train.csv",), False)
    assert _found(revision=_B).files == ("train.csv",)
    _started_again(rows, tmp_path, monkeypatch)
    assert (_found(revision=_B).files, _found(revision=_B).complete) == (("test.csv", "train.csv"), True)


@pytest.mark.parametrize("damage", ["", "\0", "[]", "{}", '{"name": 1, "commit": 2, "files": 3}', "x" * 41])
def test_damaged_memory_is_asked_for_again(
    rows: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    before = _found()
    home = tmp_path / "hf-home"
    (home / "hub" / "datasets--someone--rows" / "refs").mkdir(parents=True)
    for file in [*(home / "resolved").rglob("*.json"), home / "hub" / "datasets--someone--rows" / "refs" / "main"]:
        file.write_text(damage)
    _started_again(rows, tmp_path, monkeypatch, offline=True)
    with pytest.raises(UserError, match="could not be fetched"):
        _found()
    _started_again(rows, tmp_path, monkeypatch)
    assert _found() == before


def test_home_that_cannot_be_written_only_remembers_nothing(
    rows: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hf-home").touch()
    assert _found().commit == _B
    _started_again(rows, tmp_path, monkeypatch)
    assert _found().commit == _B
    assert rows.asked


def test_further_rank_takes_what_the_first_has_found(
    rows: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _found()
    _started_again(rows, tmp_path, monkeypatch)
    rows.add("datasets/someone/rows", tmp_path / _A, "c" * 40)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert _found() == first
    assert not rows.asked


def test_token_goes_to_the_endpoint_alone(rows: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    rows.token = "hf_secret"
    assert _found().commit == _B
    assert {request.token for request in rows.asked} == {"Bearer hf_secret"}
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(UserError) as refused:
        _found("someone/else")
    assert "hf_other" not in str(refused.value)
