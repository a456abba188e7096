"""The packed network computes what transformers' does, with SDPA for each sequence in place of a GPU's attention."""

import functools
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertForSequenceClassification

from src.data.labels import IGNORED_LABEL
from src.models.kernels import packed
from src.models.kernels.cuda_graphs import GraphedSteps, multiple_for
from src.models.kernels.packed import PackedBert, pack

_LENGTHS = (23, 1, 11, 17)
_LABELS = (0, 2, IGNORED_LABEL, 1)


def attention_of_each(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    starts_q: torch.Tensor,
    starts_k: torch.Tensor,
    longest_q: int,
    longest_k: int,
    p: float,
) -> torch.Tensor:
    outs = []
    for (a, b), (c, d) in zip(pairwise(starts_q.tolist()), pairwise(starts_k.tolist()), strict=True):
        assert b - a <= longest_q
        assert d - c <= longest_k
        one = (t.transpose(0, 1)[None] for t in (q[a:b], k[c:d], v[c:d]))
        outs.append(nn.functional.scaled_dot_product_attention(*one, dropout_p=p)[0].transpose(0, 1))
    return torch.cat(outs)


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "attention", attention_of_each)
    monkeypatch.setattr(GraphedSteps, "_capture", lambda self, n: functools.partial(self._run, n))


@pytest.fixture
def network(tiny_bert: Path) -> BertForSequenceClassification:
    torch.manual_seed(1)
    network = BertForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # norms are 1 and 0 in a fresh network
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the two would draw different masks
    return network.train()


def _batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 40, (len(_LENGTHS), max(_LENGTHS)), generator=generator)  # [PAD] in the text too
    mask = (torch.arange(max(_LENGTHS)) < torch.tensor(_LENGTHS)[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask}


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="none")


def _gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}  # type: ignore[union-attr]


def _plain(network: BertForSequenceClassification) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    network.zero_grad()
    logits = network(**_batch()).logits
    nn.functional.cross_entropy(logits, torch.tensor(_LABELS), ignore_index=IGNORED_LABEL).backward()
    return logits.detach(), _gradients(network)


def _assert_equal(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-5, atol=2e-7, msg=name)


def _tokens() -> packed.Tokens:
    batch = _batch()
    return pack(batch["input_ids"], batch["attention_mask"].sum(dim=1), sum(_LENGTHS))


def test_tokens_are_those_under_the_mask() -> None:
    tokens, batch = _tokens(), _batch()
    assert torch.equal(tokens.ids, batch["input_ids"][batch["attention_mask"].bool()])
    assert tokens.starts.tolist() == [0, 23, 24, 35, 52]
    assert tokens.positions.tolist() == [position for length in _LENGTHS for position in range(length)]


def test_logits_and_gradients_are_those_of_transformers(network: BertForSequenceClassification) -> None:
    logits, gradients = _plain(network)
    network.zero_grad()
    mine = PackedBert(network, torch.float32)(_tokens())
    nn.functional.cross_entropy(mine, torch.tensor(_LABELS), ignore_index=IGNORED_LABEL).backward()
    torch.testing.assert_close(mine.detach(), logits, rtol=0, atol=1e-6)
    _assert_equal(_gradients(network), gradients)


@pytest.mark.parametrize("rows", [4, 7], ids=["all rows", "the last rows of an epoch"])
def test_a_step_in_a_graph_leaves_the_same_gradients(network: BertForSequenceClassification, rows: int) -> None:
    logits, gradients = _plain(network)
    steps = GraphedSteps(PackedBert(network, torch.float32), rows, _losses)
    for _ in range(2):  # they are written, not added to, and in place of those of an earlier run
        mine, losses = steps(**_batch(), labels=torch.tensor(_LABELS), n_tokens=sum(_LENGTHS))
    torch.testing.assert_close(mine, logits, rtol=0, atol=1e-6)
    torch.testing.assert_close(losses, _losses(logits, torch.tensor(_LABELS)), rtol=0, atol=1e-6)
    _assert_equal(_gradients(network), gradients)


def test_few_graphs_hold_any_number_of_tokens(network: BertForSequenceClassification) -> None:
    width = network.config.max_position_embeddings
    for rows in (1, 8, 32, 33, 100, 128):
        steps = GraphedSteps(PackedBert(network, torch.float32), rows, _losses)
        fillers = len(steps._filler)
        sizes = set()
        for n in range(rows, rows * width + 1):
            computed = steps.tokens_computed(n, rows)
            sizes.add(computed)
            assert fillers <= computed - n <= fillers * width, "no filler is empty, or longer than the network allows"
            assert computed < max(n + 128 + fillers, 17 / 16 * (n + fillers))
        assert len(sizes) <= 16 * (1 + math.log2(max(1, rows * width / 2048))) + 1
        assert steps.tokens_computed(rows, rows - 1) >= rows + 1 + fillers
    assert len(sizes) > 40, "these are sizes at which multiples grow"


def test_multiple_grows_with_the_size() -> None:
    assert [multiple_for(n) for n in (1, 2048, 4095, 4096, 8191, 8192, 16384)] == [128, 128, 128, 256, 256, 512, 1024]


def test_norm_is_clipped_as_pytorch_does(network: BertForSequenceClassification) -> None:
    steps = GraphedSteps(PackedBert(network, torch.float32), 4, _losses)
    for limit in (math.inf, 0.1):
        _plain(network)
        norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
        gradients = _gradients(network)
        network.zero_grad()
        steps(**_batch(), labels=torch.tensor(_LABELS), n_tokens=sum(_LENGTHS))
        torch.testing.assert_close(steps.clip(limit), norm)
        _assert_equal(_gradients(network), gradients)


def test_weights_are_read_anew_after_loading_and_after_a_step(network: BertForSequenceClassification) -> None:
    steps = GraphedSteps(PackedBert(network, torch.float32), 4, _losses)
    names = list(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(3):
        mine, _ = steps(**_batch(), labels=torch.tensor(_LABELS), n_tokens=sum(_LENGTHS))
        torch.testing.assert_close(mine, network(**_batch()).logits, rtol=0, atol=2e-6)
        optimizer.step()
    network.load_state_dict({name: 0.9 * value for name, value in network.state_dict().items()})
    mine, _ = steps(**_batch(), labels=torch.tensor(_LABELS), n_tokens=sum(_LENGTHS))
    torch.testing.assert_close(mine, network(**_batch()).logits, rtol=0, atol=2e-6)
    assert list(network.state_dict()) == names


def test_evaluation_in_inference_mode_comes_before_training(network: BertForSequenceClassification) -> None:
    bert = PackedBert(network, torch.float32)
    network.eval()
    with torch.inference_mode():
        torch.testing.assert_close(bert(_tokens()), network(**_batch()).logits, rtol=0, atol=1e-6)
    network.train()
    steps = GraphedSteps(bert, 4, _losses)
    steps(**_batch(), labels=torch.tensor(_LABELS), n_tokens=sum(_LENGTHS))
    mine = _gradients(network)
    _assert_equal(mine, _plain(network)[1])


def test_products_in_bf16_are_as_exact_as_autocast(network: BertForSequenceClassification) -> None:
    exact = _plain(network)[1]
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(
            network(**_batch()).logits.float(), torch.tensor(_LABELS), ignore_index=IGNORED_LABEL
        )
    loss.backward()
    autocast = _gradients(network)
    steps = GraphedSteps(PackedBert(network, torch.bfloat16), 4, _losses)
    steps(**_batch(), labels=torch.tensor(_LABELS), n_tokens=sum(_LENGTHS))

    def error(gradients: dict[str, torch.Tensor]) -> float:
        squares = [((gradients[name] - exact[name]).square().sum(), exact[name].square().sum()) for name in exact]
        return float(sum(a for a, _ in squares) / sum(b for _, b in squares)) ** 0.5  # type: ignore[arg-type]

    assert error(_gradients(network)) < 1.5 * error(autocast)


def test_dropout_is_that_of_the_seed(network: BertForSequenceClassification) -> None:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    bert = PackedBert(network, torch.float32)

    def logits(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return bert(_tokens())

    assert torch.equal(logits(1), logits(1))
    assert not torch.equal(logits(1), logits(2))


def test_other_networks_and_devices_are_left_to_transformers(network: BertForSequenceClassification) -> None:
    assert not packed.is_supported(network, torch.device("cpu"))
    assert not packed.is_supported(network.bert, torch.device("cuda"))
