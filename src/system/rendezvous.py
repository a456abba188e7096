"""How the processes of one run find each other, checked before they wait for long, and which of them tells an error."""

import os
import socket
import sys
import time

from src.system.errors import UserError
from src.system.signals import end_by_signals_at_once

_NUMBERS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
_SECONDS_FOR_A_NAME = 60.0
_SECONDS_FOR_THE_FIRST_RANK = 5.0


def check_launch_variables() -> None:
    """Raises UserError if a variable that torchrun or the user has set has no possible value."""
    values: dict[str, int] = {}
    for name in _NUMBERS:
        if text := os.environ.get(name):
            if not (text.isascii() and text.isdigit()):
                raise UserError(f"the environment variable {name}={text} must be a whole number, 0 or more")
            values[name] = int(text)
    if not 0 < values.get("MASTER_PORT", 1) < 2**16:
        raise UserError(f"the environment variable MASTER_PORT={values['MASTER_PORT']} must be from 1 to 65535")
    for rank, size in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if rank in values and size in values and values[rank] >= values[size]:
            raise UserError(f"the environment variable {rank}={values[rank]} must be below {size}={values[size]}")


def check_rendezvous(node_rank: int, num_nodes: int) -> None:
    """Waits a minute for the name of the machine where rank 0 runs, which may come up later than this one.

    PyTorch would look for it for half an hour without a word.

    Raises:
        UserError: the name is not known then, or there are fewer machines than `node_rank` says.
    """
    if node_rank >= num_nodes:
        raise UserError(f"NODE_RANK={node_rank} must be below trainer.num_nodes={num_nodes}")
    host = os.environ.get("MASTER_ADDR")
    deadline, told = time.monotonic() + _SECONDS_FOR_A_NAME, False
    while host:
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(f"MASTER_ADDR={host} is no host that this machine knows: {error.strerror}") from error
            if not told:
                print(f"MASTER_ADDR={host} is not known: trying for {_SECONDS_FOR_A_NAME:.0f} s", file=sys.stderr)
            told = True
            time.sleep(2)
        else:
            break
    if num_nodes > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        where = f"{host or 'this machine'}:{os.environ.get('MASTER_PORT', '')}"
        print(f"Node {node_rank} waits for all processes of the run at {where}", file=sys.stderr, flush=True)


def let_first_rank_tell() -> None:
    """Waits before a further rank tells an error: if the first rank fails too, its launcher ends this one silently."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        end_by_signals_at_once()
        time.sleep(_SECONDS_FOR_THE_FIRST_RANK)
