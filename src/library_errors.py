"""What the libraries raise about the input and the surroundings, as errors of one line."""

import re

import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException

from src.errors import UsageError, UserError, one_line

_PEER_LOST = re.compile(r"Connection (closed|reset) by peer|Timed out waiting|Socket Timeout|NCCL|Broken pipe|aborted")


def as_user_error(error: Exception) -> Exception:
    """A UserError for what a user can mend; any other error as it is, since it is a bug."""
    if isinstance(error.__cause__, UserError):
        return error.__cause__  # of our classes' __init__, wrapped by jsonargparse
    text = one_line(error)
    if isinstance(error, ArgumentError):
        return UsageError(refusal(error))
    if isinstance(error, MisconfigurationException):
        return UserError(text)
    if isinstance(error, OSError) and error.errno is not None:
        return UserError(f"{error.strerror}: {error.filename}" if error.filename else text)
    if torch.distributed.is_available() and torch.distributed.is_initialized() and _PEER_LOST.search(text):
        return UserError(
            f"another process of this run has died or hangs ({text[:100]}); when none is left, go on with: "
            "python -m src fit --ckpt_path last"
        )
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(f"out of GPU memory: lower --data.batch_size or --data.max_length ({text[:100]})")
    return error


_SEE_HELP = " (`python -m src fit --help` lists the options)"
_REFUSALS = (
    # of all that jsonargparse tried, what it says of the class that was meant
    (r"given class_path '(?:[\w.]*\.)?(\w+)': Option '([\w.]+)' is not accepted", r"\1 has no option '\2'"),
    (r"given class_path '(?:[\w.]*\.)?(\w+)': (?:Parser key )?(.*)", r"\1: \2"),
    (r"(Parser key .*?): .* Expected a dot import path string: (\S+)", r"\1: there is no class '\2'"),
)


def refusal(error: object) -> str:
    """What the parser refuses, in one line; of all types that it tried, the one that was meant."""
    text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", one_line(error)).replace("typing.", "")
    for pattern, short in _REFUSALS:
        if match := re.search(pattern, text):
            text = match.expand(short)
            break
    # what follows tells of the other type that was tried, None, and of the parser's own classes
    text = re.split(r" - Expected a NoneType| Given value type", text)[0]
    return text[:400] + _SEE_HELP
