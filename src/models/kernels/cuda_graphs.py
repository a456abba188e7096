"""A training step's forward and backward pass as CUDA graphs: one launch in place of a thousand.

A step of 8 reviews keeps an H200 busy for 5 to 7 ms, and Python needs 35 ms to launch its kernels one by one. A graph
is captured for each number of tokens, rounded up, when a batch first has it: about 30 graphs over the IMDb reviews
with 8 reviews a step, 0.1 s each, in one memory pool. Gradient clipping, optimizer and schedule stay outside.
"""

import functools
import gc
import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch

from src.data.labels import IGNORED_LABEL
from src.models.kernels.packed import PackedBert, Tokens, copy_all, pack


def multiple_for(n_tokens: int) -> int:
    """What a step of so many tokens is rounded up to a multiple of.

    It grows with the size: there are 16 sizes from a power of 2 to the next, and above 2,048 tokens less than 1/16 is
    wasted.
    """
    return max(128, (1 << n_tokens.bit_length() - 1) // 16)


class GraphedSteps:
    """Leaves the gradients of a step in the parameters' `grad`, and returns its logits and losses.

    The gradients are those of the mean of the losses of all labels. They are written, not added to: nothing
    needs to zero them, and gradients cannot be accumulated (in a graph that is wrong anyway: pytorch #181723).

    Dropout is drawn from the seed that is set when a step is called, as in a step without a graph.

    Args:
        network: whose parameters get the gradients.
        rows: the most rows of a step.
        row_losses: logits (rows, labels) and labels to losses of the labels' shape, 0 where one is `IGNORED_LABEL`.
        label_shape: of the labels of a row.
    """

    def __init__(
        self,
        network: PackedBert,
        rows: int,
        row_losses: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        label_shape: tuple[int, ...] = (),
    ) -> None:
        self.network = network
        self.row_losses = row_losses
        parameters: list[torch.Tensor] = list(network.network.parameters())
        config, device = network.network.config, parameters[0].device
        width, shape = config.max_position_embeddings, (rows, *label_shape)
        self._gradient = torch.zeros(sum(map(_room, parameters)), device=device)
        parts = self._gradient.split([_room(parameter) for parameter in parameters])
        self._gradients = {
            parameter: part[: parameter.numel()].view_as(parameter)
            for parameter, part in zip(parameters, parts, strict=True)
        }
        # rows without a label fill up the tokens of a graph; none may be longer than the network allows
        fillers = math.ceil((multiple_for(rows * (width + 1)) - 1) / (width - 1))
        self._filler = torch.arange(fillers, device=device)
        self._input_ids = torch.zeros(rows + fillers, width, dtype=torch.int64, device=device)
        self._lengths = torch.ones(rows, dtype=torch.int64, device=device)
        self._labels = torch.full(shape, IGNORED_LABEL, dtype=torch.int64, device=device)
        self._logits = torch.zeros(rows, config.num_labels, device=device)
        self._losses = torch.zeros(shape, device=device)
        self._graphs: dict[int, Callable[[], None]] = {}

    def __call__(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, n_tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes a step. What it returns is overwritten by the next.

        Args:
            input_ids, attention_mask: of shape (rows, width), padded on the right.
            labels: of shape (rows,), or (rows, labels) where a text may have several.
            n_tokens: the sum of the mask, which the caller knows without asking the GPU.

        Returns:
            Logits of shape (rows, labels) and losses in the shape of the labels, both float32.
        """
        rows, width = input_ids.shape
        self._input_ids[:rows, :width].copy_(input_ids, non_blocking=True)
        self._lengths[:rows].copy_(attention_mask.sum(dim=1))
        self._labels[:rows].copy_(labels, non_blocking=True)
        if rows < len(self._labels):  # of an epoch's last step: rows of one token without a label
            self._lengths[rows:].fill_(1)
            self._labels[rows:].fill_(IGNORED_LABEL)
        first, gradient = next(iter(self._gradients.items()))
        if first.grad is not gradient:
            for parameter, gradient in self._gradients.items():
                parameter.grad = gradient
        n_tokens = self.tokens_computed(n_tokens, rows)
        if n_tokens not in self._graphs:
            self._graphs[n_tokens] = self._capture(n_tokens)
        self._graphs[n_tokens]()
        return self._logits[:rows], self._losses[:rows]

    def tokens_computed(self, n_tokens: int, rows: int) -> int:
        """Tokens of the graph for a step of so many, with room for one token of each missing row and each filler."""
        least = n_tokens + len(self._labels) - rows + len(self._filler)
        multiple = multiple_for(least)
        return math.ceil(least / multiple) * multiple

    def clip(self, limit: float) -> torch.Tensor:
        """Scales the gradients as `clip_grad_norm_` does, but as one tensor; returns their norm before that."""
        norm: torch.Tensor = torch.linalg.vector_norm(self._gradient)
        self._gradient.mul_((limit / (norm + 1e-6)).clamp(max=1))
        return norm

    def _capture(self, n_tokens: int) -> Callable[[], None]:
        stream = self._stream
        # a pass before loads kernels and compiles; neither it nor the capture may move the seed on
        with torch.random.fork_rng([stream.device]):
            stream.wait_stream(torch.cuda.current_stream())
            gc.disable()  # a tensor that is freed while the capture runs ends it
            try:
                with torch.cuda.stream(stream):
                    self._run(n_tokens)
                    torch.cuda.synchronize()
                    graph = torch.cuda.CUDAGraph()
                    # other threads may use the GPU meanwhile: a DataLoader's pins memory
                    graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                    try:
                        self._run(n_tokens)
                    finally:
                        graph.capture_end()
            finally:
                gc.enable()
            torch.cuda.current_stream().wait_stream(stream)
        return graph.replay

    def _run(self, n_tokens: int) -> None:
        """Forward and backward, from the static inputs to the static outputs."""
        with torch.autocast(self._labels.device.type, enabled=False):
            self._compute(n_tokens)

    def _compute(self, n_tokens: int) -> None:
        network = self.network
        rest = n_tokens - self._lengths.sum()
        fillers = (rest + self._filler) // len(self._filler)
        tokens = pack(self._input_ids, torch.cat([self._lengths, fillers]), n_tokens)
        weights = network.copy_weights()
        with torch.no_grad():
            vectors = network.vectors(tokens)
        vectors.requires_grad_()
        with torch.enable_grad():
            logits = network.logits(tokens, vectors, weights)[: len(self._labels)]
            losses = self.row_losses(logits, self._labels)
            loss = losses.sum() / (self._labels != IGNORED_LABEL).sum().clamp(min=1)
            of_vectors, *of_weights = torch.autograd.grad(loss, [vectors, *weights])
        with torch.no_grad():
            self._write(of_weights)
            self._write_embeddings(tokens, of_vectors)
            self._logits.copy_(logits)
            self._losses.copy_(losses)

    def _write(self, gradients: list[torch.Tensor]) -> None:
        groups = self.network.groups
        parts = (
            gradient.split([len(parameter) for parameter in group])
            for gradient, group in zip(gradients, groups, strict=True)
        )
        copy_all((self._gradients[parameter] for parameter in chain(*groups)), chain.from_iterable(parts))

    def _write_embeddings(self, tokens: Tokens, gradient: torch.Tensor) -> None:
        tables = self.network.network.bert.embeddings
        for table, rows in ((tables.word_embeddings, tokens.ids), (tables.position_embeddings, tokens.positions)):
            target = self._gradients[table.weight]
            # nn.Embedding leaves the row of [PAD] as it is
            padding = -1 if table.padding_idx is None else table.padding_idx
            if torch.are_deterministic_algorithms_enabled():
                target.copy_(torch.ops.aten.embedding_dense_backward(gradient, rows, len(target), padding, False))
            else:  # four times as fast
                target.zero_().index_add_(0, rows, gradient)
                if padding >= 0:
                    target[padding].zero_()
        self._gradients[tables.token_type_embeddings.weight][0].copy_(gradient.sum(dim=0))

    @functools.cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self._labels.device)

    @functools.cached_property
    def _pool(self) -> Any:
        return torch.cuda.graph_pool_handle()


def _room(parameter: torch.Tensor) -> int:
    """Values that a parameter's gradient has room for: a multiple of 16 bytes, as kernels like it."""
    return math.ceil(parameter.numel() / 4) * 4
