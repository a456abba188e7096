"""The real command in processes of its own, forked from one that has imported everything: 0.2 s instead of 9."""

import multiprocessing
import os
import runpy
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["src.commands.fit", "transformers.models.bert", "tests.end_to_end.killing", "tests.end_to_end.evaluation_ranks"]
)


def start(
    args: Sequence[str], log: Path, env: Mapping[str, str] | None = None, module: str = "src"
) -> multiprocessing.Process:
    """Starts `python -m src ARGS`, or another module, in this folder; its output goes to `log`."""
    process = _context.Process(
        target=_child, args=(module, list(args), str(Path.cwd()), str(log), dict(os.environ) | dict(env or {}))
    )
    process.start()
    return process  # type: ignore[return-value]


def run(args: Sequence[str], log: Path, timeout: float = 120) -> tuple[int, str]:
    """Runs `python -m src ARGS` in this folder: its exit status (negative: the signal that ended it) and output."""
    process = start(args, log)
    return wait(process, timeout), log.read_text()


def wait(process: multiprocessing.Process, timeout: float = 120) -> int:
    """The exit status; AssertionError where it has not ended in time."""
    process.join(timeout)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"still running after {timeout} s")
    assert process.exitcode is not None
    return process.exitcode


def ranks(
    args: Sequence[str], world_size: int, folder: Path, nodes: int = 1, last: Sequence[str] = ()
) -> list[multiprocessing.Process]:
    """Starts `world_size` ranks as torchrun does, with gloo on loopback; their outputs go to rank0.log, rank1.log …

    The last rank gets the options `last` besides.
    """
    port = free_port()
    per_node = world_size // nodes
    processes = []
    for rank in range(world_size):
        env = {
            "RANK": rank,
            "LOCAL_RANK": rank % per_node,
            "GROUP_RANK": rank // per_node,
            "WORLD_SIZE": world_size,
            "LOCAL_WORLD_SIZE": per_node,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "TORCHELASTIC_RUN_ID": "test",
            "OMP_NUM_THREADS": 1,
        }
        own = [*args, *(last if rank == world_size - 1 else ())]
        processes.append(start(own, folder / f"rank{rank}.log", {key: str(value) for key, value in env.items()}))
    return processes


def free_port() -> int:
    """A TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(target: Callable[..., None], *args: Any) -> multiprocessing.Process:
    """Starts a function of a module in a process of its own."""
    process = _context.Process(target=target, args=args)
    process.start()
    return process  # type: ignore[return-value]


def _child(module: str, args: list[str], folder: str, log: str, env: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    with open(log, "ab", buffering=0) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    # a child of a fork server would start the loader's workers in its parent's way, importing everything anew
    multiprocessing.set_start_method("fork", force=True)
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
