"""Callbacks for runs of several ranks: what they ask each other, and steps that take long."""

import json
import time
from pathlib import Path
from typing import Any

import lightning
import torch


class Questions(lightning.Callback):
    """Writes to questions{rank}.json, in the run's root directory, after which steps the ranks asked for a maximum.

    Gradients and counts are sums. Of broadcasts, all that happen after the first step count.
    """

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step > 1:
            return
        self.maxima: list[int] = []
        self.broadcasts: list[int] = []
        reduce, broadcast = torch.distributed.all_reduce, torch.distributed.broadcast

        def all_reduce(tensor: torch.Tensor, op: Any = torch.distributed.ReduceOp.SUM, *args: Any, **more: Any) -> Any:
            if op == torch.distributed.ReduceOp.MAX:
                self.maxima.append(trainer.global_step)
            return reduce(tensor, op, *args, **more)

        def count(*args: Any, **more: Any) -> Any:
            self.broadcasts.append(trainer.global_step)
            return broadcast(*args, **more)

        torch.distributed.all_reduce, torch.distributed.broadcast = all_reduce, count

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        found = {"maxima": self.maxima, "broadcasts": self.broadcasts, "steps": trainer.global_step}
        path = Path(trainer.default_root_dir) / f"questions{trainer.global_rank}.json"
        path.write_text(json.dumps(found))


class SlowSteps(lightning.Callback):
    """Each step takes 0.6 s longer."""

    def on_train_batch_start(self, *_: Any) -> None:
        time.sleep(0.6)
