"""Ends a run from within, at a chosen moment, as SIGKILL or another signal from outside would."""

import os
import signal
from typing import Any

import lightning
import torch


class KillAt(lightning.Callback):
    """Sends this process a signal the n-th time that a hook is called.

    Args:
        hook: a hook of Lightning's callbacks, or "save", in the middle of writing a checkpoint.
        count: the how many-th call.
        signum: SIGKILL unless told otherwise.
        rank: only in this rank.
    """

    def __init__(self, hook: str, count: int, signum: int = int(signal.SIGKILL), rank: int = 0) -> None:
        self.left = count
        self.signum = signum
        self.rank = rank
        if hook == "save":
            torch.save = self._half_a_save(torch.save)  # type: ignore[assignment]
        else:
            setattr(self, hook, self._hit)

    def _hit(self, trainer: lightning.Trainer, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0 and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.signum)

    def _half_a_save(self, save: Any) -> Any:
        def half(content: Any, stream: Any) -> None:
            self.left -= 1
            save(content, stream)
            if self.left == 0:
                stream.truncate(stream.tell() // 2)
                stream.flush()
                os.kill(os.getpid(), self.signum)

        return half
