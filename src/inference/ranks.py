"""Several processes that label one file together, as torchrun starts them: all compute, rank 0 writes.

Every rank reads the whole input and makes the same chunks of it. Chunk i is labelled by rank i modulo their number, as
one process would label it, and rank 0 gets the logits in the input's order. So the output has the bytes of one
process's, one journal says how far it is, and any number of ranks resumes it.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from src.system.errors import UserError, one_line
from src.system.imports import quick_imports
from src.system.rendezvous import check_launch_variables
from src.system.signals import end_by_signals_at_once


@contextmanager
def together() -> Iterator["Ranks"]:
    """Connects the processes that torchrun has started, over gloo; ends when all of them are done.

    Each takes a GPU of its own, as long as there are enough.

    Raises:
        UserError: they could not connect, or one of them has gone.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Ranks()
        return
    check_launch_variables()
    with quick_imports():
        import torch
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    end_by_signals_at_once()  # while one waits for the others in C++
    try:
        torch.distributed.init_process_group("gloo")
    except torch.distributed.DistError as error:
        raise UserError(f"the processes of this prediction could not connect: {one_line(error)[:200]}") from error
    ranks = Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size())
    # not after an error: that of this rank is told before the others see that it has gone
    yield ranks
    ranks.wait_for_all()
    torch.distributed.destroy_process_group()


class Ranks:
    """This process among those that label one file; by default it is the only one.

    Args:
        rank: of this process.
        size: number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self._sent: Any = None

    def computes(self, chunk: int) -> bool:
        """Whether this rank labels that chunk."""
        return chunk % self.size == self.rank

    def agree(self, facts: dict[str, Any], rows_done: int) -> int:
        """The number of rows that are done already, which rank 0 knows.

        Args:
            facts: what all ranks must have in common; the machines' files may differ.
            rows_done: as far as this rank knows.

        Raises:
            UserError: a rank differs.
        """
        if self.size == 1:
            return rows_done
        import torch

        found: list[Any] = [None] * self.size
        with _peers():
            torch.distributed.all_gather_object(found, (facts, rows_done))
        first, rows_done = found[0]
        for rank, (other, _) in enumerate(found):
            if different := [name for name in first if other[name] != first[name]]:
                raise UserError(f"rank {rank} has another {different[0]} than rank 0: all must have the same")
        return rows_done

    def send(self, logits: np.ndarray) -> None:
        """Hands the logits of this rank's chunk to rank 0, once it has those of the chunk before."""
        import torch

        with _peers():
            if self._sent:
                self._sent.wait()
            self._sent = torch.distributed.isend(torch.from_numpy(logits), dst=0) if logits.size else None

    def receive(self, chunk: int, shape: Sequence[int]) -> np.ndarray:
        """The logits of another rank's chunk, float32 of that shape."""
        import torch

        logits = torch.empty(*shape)
        if logits.numel():
            with _peers():
                torch.distributed.recv(logits, src=chunk % self.size)
        return logits.numpy()

    def wait_for_all(self) -> None:
        """Returns when all ranks are done."""
        import torch

        with _peers():
            if self._sent:
                self._sent.wait()
            torch.distributed.barrier()


@contextmanager
def _peers() -> Iterator[None]:
    """Turns what gloo raises when another process has gone, which has no type of its own, into a UserError."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            "another process of this prediction has died or hangs: its own output may say why. When all have ended, "
            "the same command resumes"
        ) from error
