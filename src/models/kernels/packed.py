"""BERT's classifier on a GPU without padding: all tokens of a batch in one row, attention within each sequence.

`PackedBert` computes what `BertForSequenceClassification` computes, with that network's own parameters. It is faster
for four reasons. No padding is computed, as in Krell et al. 2021 (arXiv 2107.02027) and ModernBERT (arXiv 2412.13663).
FlashAttention takes the sequences' starts (`cu_seqlens`), so there is no mask, which would force a slower kernel.
Query, key and value are one product. One kernel rounds all weights to bf16, where autocast launches one for each.

Rounding is autocast's: products in bf16; norms, the residual stream and the loss in fp32.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import nn
from transformers import BertForSequenceClassification, PreTrainedModel
from transformers.models.bert.modeling_bert import BertLayer


@dataclass(frozen=True)
class Tokens:
    """The tokens of some sequences, one sequence after the other.

    Attributes:
        ids: token ids, of shape (tokens,).
        positions: of each token in its sequence, of shape (tokens,).
        starts: of each sequence, and the number of tokens at last; int32 of shape (sequences + 1,).
    """

    ids: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor


def pack(input_ids: torch.Tensor, lengths: torch.Tensor, n_tokens: int) -> Tokens:
    """The tokens of padded rows. Nothing here waits for a GPU, and a CUDA graph can hold it.

    Args:
        input_ids: of shape (rows, width), padded on the right.
        lengths: tokens of each row, at least 1, of shape (rows,).
        n_tokens: their sum, which the caller knows without asking the GPU.
    """
    ends = lengths.cumsum(0, dtype=torch.int32)
    starts = nn.functional.pad(ends, (1, 0))
    tokens = torch.arange(n_tokens, dtype=torch.int32, device=ends.device)
    rows = torch.searchsorted(ends, tokens, right=True)
    positions = tokens - starts[rows]
    return Tokens(input_ids[rows, positions], positions, starts)


class PackedBert:
    """Logits of a `BertForSequenceClassification` for packed tokens.

    With gradients enabled, it is differentiable in the network's parameters. Dropout follows `network.training`.

    Args:
        network: one that `is_supported`. Its parameters are read at each call, so that they may be trained or loaded.
        dtype: of the matrix products: bfloat16, or float32, in which PyTorch may use TF32.
        compiled: whether training compiles what lies between attention and attention.

    Attributes:
        groups: the parameters but for the embedding tables; those of a group are one tensor here.
    """

    def __init__(self, network: PreTrainedModel, dtype: torch.dtype, compiled: bool = False) -> None:
        self.network: Any = network
        self.dtype = dtype
        self.groups: list[list[torch.Tensor]] = list(_groups(network))
        self.compiled = compiled
        self._in_training = _PLAIN
        if compiled:
            from torch._dynamo import config  # takes a second

            config.specialize_float = True  # else the probability of dropout is a variable of the compiled code
            self._in_training = torch.compile(_embed, fullgraph=True), torch.compile(_after_attention, fullgraph=True)

    def __call__(self, tokens: Tokens) -> torch.Tensor:
        """Float32 of shape (sequences, labels)."""
        weights = self._weights() if torch.is_grad_enabled() else self.copy_weights()
        return self.logits(tokens, self.vectors(tokens), weights)

    # ---- weights ---------------------------------------------------------------------------------------------------

    def _weights(self) -> list[torch.Tensor]:
        """A tensor for each group, differentiable in the parameters."""
        joined = [torch.cat(group) if len(group) > 1 else group[0] for group in self.groups]
        return [tensor.to(self._dtype_of(group)) for tensor, group in zip(joined, self.groups, strict=True)]

    def copy_weights(self) -> list[torch.Tensor]:
        """A tensor for each group with the parameters' values as they are now, in the same memory at each call."""
        parts = chain.from_iterable(
            copy.detach().split([len(parameter) for parameter in group])
            for copy, group in zip(self._copies, self.groups, strict=True)
        )
        copy_all(parts, chain.from_iterable(self.groups))
        return self._copies

    @functools.cached_property
    @torch.inference_mode(False)
    def _copies(self) -> list[torch.Tensor]:
        """Leaves for autograd."""
        return [tensor.detach().clone().requires_grad_() for tensor in self._weights()]

    def _dtype_of(self, group: list[torch.Tensor]) -> torch.dtype:
        """Norms stay in the parameters' type."""
        return group[0].dtype if group[0] in self._norms else self.dtype

    @functools.cached_property
    def _norms(self) -> set[torch.Tensor]:
        norms = (module for module in self.network.modules() if isinstance(module, nn.LayerNorm))
        return set(chain.from_iterable(norm.parameters() for norm in norms))

    # ---- computing -------------------------------------------------------------------------------------------------

    def vectors(self, tokens: Tokens) -> torch.Tensor:
        """The sums of the three embeddings, of shape (tokens, hidden)."""
        tables = self.network.bert.embeddings
        kind = tables.token_type_embeddings.weight[0]
        vectors: torch.Tensor = tables.word_embeddings(tokens.ids) + tables.position_embeddings(tokens.positions) + kind
        return vectors

    def logits(self, tokens: Tokens, vectors: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
        """Float32 of shape (sequences, labels), from the embeddings' sums and a tensor for each group."""
        with torch.autocast(vectors.device.type, enabled=False):
            return self._logits(tokens.starts, vectors, iter(weights))

    def _logits(self, starts: torch.Tensor, vectors: torch.Tensor, weights: Iterator[torch.Tensor]) -> torch.Tensor:
        bert, config, training = self.network.bert, self.network.config, self.network.training
        hidden, heads, longest = config.hidden_size, config.num_attention_heads, config.max_position_embeddings
        p = float(bert.embeddings.dropout.p) if training else 0.0
        p_attention = float(bert.encoder.layer[0].attention.self.dropout.p) if training else 0.0
        eps = config.layer_norm_eps
        embed, after_attention = self._in_training if training else _PLAIN
        self._let_vary(vectors)
        x, low = embed(vectors, next(weights), next(weights), p, eps, self.dtype)
        for number in range(config.num_hidden_layers):
            w, b, *rest = islice(weights, 12)
            starts_q, longest_q = starts, longest
            if number < config.num_hidden_layers - 1:
                q, k, v = nn.functional.linear(low, w, b).view(len(low), 3, heads, -1).unbind(1)
            else:  # the head reads [CLS] alone: see last_layer
                k, v = nn.functional.linear(low, w[hidden:], b[hidden:]).view(len(low), 2, heads, -1).unbind(1)
                # not indexing, whose gradient is slow or random in its order
                x, low = (nn.functional.embedding(starts[:-1], states) for states in (x, low))
                q = nn.functional.linear(low, w[:hidden], b[:hidden]).view(len(low), heads, -1)
                starts_q, longest_q = torch.arange(len(starts), dtype=torch.int32, device=x.device), 1
            context = attention(q, k, v, starts_q, starts, longest_q, longest, p_attention).reshape(-1, hidden)
            self._let_vary(context, x)
            x, low = after_attention(context, x, *rest, p, eps)
        pooled = torch.tanh(nn.functional.linear(low, next(weights), next(weights)))
        pooled = nn.functional.dropout(pooled, self.network.dropout.p, training)
        return nn.functional.linear(pooled, next(weights), next(weights)).float()

    def _let_vary(self, *tensors: torch.Tensor) -> None:
        """Lets one compiled function serve any number of tokens."""
        if self.compiled:
            for tensor in tensors:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)


def copy_all(targets: Iterable[torch.Tensor], sources: Iterable[torch.Tensor]) -> None:
    """Copies tensors, whose types may differ, with one kernel for each pair of types."""
    by_types: dict[tuple[torch.dtype, torch.dtype], tuple[list[torch.Tensor], list[torch.Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        pair = by_types.setdefault((target.dtype, source.dtype), ([], []))
        pair[0].append(target)
        pair[1].append(source)
    with torch.no_grad():
        for pair in by_types.values():
            torch._foreach_copy_(*pair)  # type: ignore[attr-defined]


def is_supported(network: nn.Module, device: torch.device) -> bool:
    """Whether `PackedBert` computes what this network does, on an NVIDIA GPU of compute capability 8.0 or higher."""
    if type(network) is not BertForSequenceClassification or device.type != "cuda" or torch.version.hip:
        return False
    config = network.config
    size = config.hidden_size // config.num_attention_heads
    usual = config.hidden_act == "gelu" and not config.is_decoder and not config.add_cross_attention
    absolute = getattr(config, "position_embedding_type", "absolute") in ("absolute", None)
    trained = all(parameter.requires_grad for parameter in network.parameters())
    fits = size % 8 == 0 and size <= 256  # FlashAttention's heads
    return usual and absolute and trained and fits and torch.cuda.get_device_capability(device) >= (8, 0)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts_q: torch.Tensor,
    starts_k: torch.Tensor,
    longest_q: int,
    longest_k: int,
    p: float,
) -> torch.Tensor:
    """Attention within each sequence, of shape (queries, heads, size), with dropout `p` of the probabilities.

    PyTorch's own operators, which SDPA calls for nested tensors; the public `varlen_attn` has no dropout.
    """
    if q.dtype == torch.float32:
        efficient = torch.ops.aten._efficient_attention_forward
        out = efficient(q[None], k[None], v[None], None, starts_q, starts_k, longest_q, longest_k, p, 0, True)
        return out[0][0]  # type: ignore[no-any-return]
    flash = torch.ops.aten._flash_attention_forward
    return flash(q, k, v, starts_q, starts_k, longest_q, longest_k, p, False, False)[0]  # type: ignore[no-any-return]


def _embed(
    vectors: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, p: float, eps: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual stream after the embeddings, and the same in the products' type."""
    x = nn.functional.dropout(nn.functional.layer_norm(vectors, weight.shape, weight, bias, eps), p, p > 0)
    return x, x.to(dtype)


def _after_attention(
    context: torch.Tensor,
    x: torch.Tensor,
    w_out: torch.Tensor,
    b_out: torch.Tensor,
    norm_1: torch.Tensor,
    norm_b_1: torch.Tensor,
    w_up: torch.Tensor,
    b_up: torch.Tensor,
    w_down: torch.Tensor,
    b_down: torch.Tensor,
    norm_2: torch.Tensor,
    norm_b_2: torch.Tensor,
    p: float,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """All of a layer that follows attention. `x` is the residual stream; see `_embed` for what is returned."""
    a = nn.functional.dropout(nn.functional.linear(context, w_out, b_out), p, p > 0)
    y = nn.functional.layer_norm(a.float() + x, norm_1.shape, norm_1, norm_b_1, eps)
    f = nn.functional.gelu(nn.functional.linear(y.to(context.dtype), w_up, b_up))
    f = nn.functional.dropout(nn.functional.linear(f, w_down, b_down), p, p > 0)
    x = nn.functional.layer_norm(f.float() + y, norm_2.shape, norm_2, norm_b_2, eps)
    return x, x.to(context.dtype)


def _groups(network: Any) -> Iterator[list[torch.Tensor]]:
    """The parameters in the order in which `PackedBert` reads them: 2, 12 for each layer, then 4."""

    def both(*modules: nn.Module) -> Iterator[list[torch.Tensor]]:
        yield [module.weight for module in modules]  # type: ignore[misc]
        yield [module.bias for module in modules]  # type: ignore[misc]

    def of_layer(layer: BertLayer) -> Iterator[list[torch.Tensor]]:
        attention, out = layer.attention.self, layer.attention.output
        yield from both(attention.query, attention.key, attention.value)
        for module in (out.dense, out.LayerNorm, layer.intermediate.dense, layer.output.dense, layer.output.LayerNorm):
            yield from both(module)

    yield from both(network.bert.embeddings.LayerNorm)
    yield from chain.from_iterable(map(of_layer, network.bert.encoder.layer))
    yield from chain(both(network.bert.pooler.dense), both(network.classifier))


_PLAIN: tuple[Any, Any] = (_embed, _after_attention)
