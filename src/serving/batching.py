"""Windows of the texts of all requests, computed in common batches."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from src.inference.classifier import Classifier

_BATCHES_AT_ONCE = 4  # sorted by length together
_MOST_WAITING = 4096  # windows: two minutes of work for a small BERT on 2 cores


class BusyError(Exception):
    """Too many windows are waiting already."""


class Batcher:
    """Computes the windows that requests hand in, together with those of other requests.

    What has come in while a batch was computed is the next batch, so no request waits for a batch to fill.

    Args:
        classifier: computes them, in a thread, one batch at a time.
        batch_size: windows computed at once.
    """

    def __init__(self, classifier: Classifier, batch_size: int) -> None:
        self.classifier = classifier
        self.batch_size = batch_size
        self._waiting: asyncio.Queue[tuple[list[int], asyncio.Future[np.ndarray]]] = asyncio.Queue()
        self._wanted = 0  # windows that somebody waits for; the queue also has those whose client has gone

    async def logits(self, windows: list[list[int]]) -> np.ndarray:
        """Float32 of shape (windows, labels). If the call is cancelled, those that have not begun are dropped.

        Raises:
            BusyError: too many are waiting already.
        """
        if self._wanted >= _MOST_WAITING:
            raise BusyError
        futures: list[asyncio.Future[np.ndarray]] = [asyncio.get_running_loop().create_future() for _ in windows]
        for window, future in zip(windows, futures, strict=True):
            self._waiting.put_nowait((window, future))
        self._wanted += len(windows)
        try:
            return np.stack(await asyncio.gather(*futures))
        finally:
            self._wanted -= len(windows)

    async def run(self) -> None:
        """Serves the calls of `logits` until it is cancelled."""
        loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1)  # each thread would start threads of its own
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < _BATCHES_AT_ONCE * self.batch_size and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [(window, future) for window, future in batch if not future.done()]
            if not batch:
                continue
            texts = [[window] for window, _ in batch]
            try:
                found = await loop.run_in_executor(thread, self.classifier.logits_of_tokens, texts, self.batch_size)
            except Exception as error:  # that of the requests: it becomes their answer
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), logits in zip(batch, found, strict=True):
                    if not future.done():
                        future.set_result(logits)
