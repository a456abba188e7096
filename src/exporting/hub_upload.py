"""Uploads an exported folder to a repository of the Hugging Face Hub."""

import re
from pathlib import Path

from huggingface_hub import HfApi, constants, get_session, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from src.system.errors import UsageError, UserError, one_line
from src.system.hub import HUB_TIMEOUT_S, reason_of, within

_LONGEST_SILENCE_S = 60.0  # the client itself waits without end; a large file may take longer, if its bytes move
_WEIGHTS = ("*.safetensors", "*.onnx", "*.bin", "*.safetensors.index.json")
_LOG_IN = "log in by `hf auth login`, or set HF_TOKEN, with a token that may write"


def check_repository(name: str) -> None:
    """Raises an error where an upload to the repository cannot succeed, as far as that can be told before it.

    Raises:
        UsageError: `name` is not ORGANISATION/NAME.
        UserError: the Hub may not be asked, cannot be reached, or does not know the token.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UsageError(f"--push {name!r} is no name on the Hub: {one_line(error)[:200]}") from error
    if "/" not in name:
        raise UsageError(f"--push {name} names no owner: give your user name or an organisation, as in me/{name}")
    if constants.HF_HUB_OFFLINE:
        raise UserError("--push needs the Hub, and HF_HUB_OFFLINE=1 forbids to ask it")
    if not (token := get_token()):
        raise UserError(f"--push needs a token of the Hub: {_LOG_IN}")
    if not re.fullmatch("[!-~]+", token):  # the HTTP client's error would show it
        raise UserError(f"the token of the Hub has a space, or another character that no token has: {_LOG_IN}")
    try:
        within(HUB_TIMEOUT_S, HfApi().whoami)
    except Exception as error:  # of the HTTP client, which huggingface_hub does not document
        raise UserError(_reason(name, error)) from error


def upload(folder: Path, name: str) -> str:
    """Uploads all files of a folder in one commit, and returns the address of the repository.

    A repository that does not exist is created, with the visibility that its owner has chosen for new ones. What an
    earlier export left there, and would be read beside the new files, is deleted in the same commit.

    Raises:
        UserError: the Hub refuses, or cannot be reached.
    """
    from src.data.fingerprints import READ_TEXTS
    from src.exporting.classify_script import REQUIREMENTS, SCRIPT
    from src.models.exported_folder import PREPROCESSING

    get_session().timeout = _LONGEST_SILENCE_S
    api = HfApi()
    try:
        address = api.create_repo(name, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="Upload an export",
            delete_patterns=[*_WEIGHTS, PREPROCESSING, READ_TEXTS, SCRIPT, REQUIREMENTS],
        )
    except Exception as error:  # as above
        raise UserError(_reason(name, error)) from error
    return one_line(address)


def _reason(name: str, error: Exception) -> str:
    """Why the Hub did not do what it was asked for, and what to do."""
    cause = reason_of(error)
    if cause.startswith("HTTP 401"):
        return f"the Hub does not accept the token ({cause}): {_LOG_IN}"
    if cause.startswith("HTTP 403"):
        owner = name.partition("/")[0]
        return f"you may not write to {name} ({cause}): use a token that may write for {owner}, or another name"
    return f"the Hub fails ({cause})"
