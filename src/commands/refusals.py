"""What the libraries raise about the input and the surroundings, as errors of one line."""

import re

import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException

from src.commands.misspelt import option_meant
from src.system.errors import UsageError, UserError, one_line

# Lightning raises these as plain ValueErrors and RuntimeErrors
_LIGHTNING_REFUSES = re.compile(r"^`val_check_interval` \(|^Early stopping conditioned on metric")
_UNION = r"Does not validate against any of the Union subtypes .*? Errors: - "
_PEER_LOST = re.compile(r"Connection (closed|reset) by peer|Timed out waiting|Socket Timeout|NCCL|Broken pipe|aborted")


def as_user_error(error: Exception) -> Exception:
    """A UserError for what a user can mend; any other error as it is, since it is a bug."""
    if isinstance(error.__cause__, UserError):
        return error.__cause__  # of our classes' __init__, wrapped by jsonargparse
    text = one_line(error)
    if isinstance(error, ArgumentError):
        meant = option_meant(error)
        return UsageError(refusal(error) + (f"; did you mean --{meant}?" if meant else "") + _SEE_HELP)
    if isinstance(error, ValueError) and re.match(_UNION, text):  # what a class of the configuration refuses
        return UserError(refusal(error))
    if isinstance(error, MisconfigurationException) or _LIGHTNING_REFUSES.search(text):
        return UserError(text)
    if "is not in bounds, numpy accepts" in text:
        return UserError(f"seed_everything: {text}")
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
    (r"given class_path '(?:[\w.]*\.)?(\w+)': Option '([\w.-]+)' is not accepted", r"\1 has no option '\2'"),
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
    text = re.sub(r'"([\w.]+)": ' + _UNION, r"\1: ", text)
    text = re.sub(_UNION, "", text)
    # what follows tells of the other type that was tried, None, and of the parser's own classes
    text = re.split(r" - Expected an? | - Not a valid subclass| Given value type", text)[0]
    text = text.replace("Expected a int", "Expected an int")
    return text[:400]
