"""Checks of the training step on one GPU: `python -m benchmarks.speed.gpu --checks`.

Dropout follows the seed from step to step of one graph; gradients are those of transformers; a step with a graph is
one without, bit for bit; no step waits for the GPU; a killed run resumes bit for bit.
"""

import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer, BertForSequenceClassification

from benchmarks.processes import WORK, ProcessFailedError, run_process
from benchmarks.stress import differences, outcome
from src.data.labels import IGNORED_LABEL
from src.models.kernels.cuda_graphs import GraphedSteps
from src.models.kernels.last_layer import use_partial_last_layer
from src.models.kernels.packed import PackedBert
from src.system.seeds import step_seed

ROWS = 8
Step = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]
Check = tuple[str, bool, str]
"""What was checked, whether it holds, and the figures."""

_CALLBACKS = "--trainer.callbacks+=benchmarks.speed.recorder_callback."
_DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


class _WithoutGraph(GraphedSteps):
    def _capture(self, n_tokens: int) -> Callable[[], None]:
        return functools.partial(self._run, n_tokens)


def batches(model: str, texts: list[str], device: torch.device) -> list[Step]:
    """Steps of `ROWS` texts: ids, mask, labels, and the number of tokens."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    labels = (torch.arange(ROWS) % 2).to(device)
    steps = []
    for i in range(0, len(texts) - ROWS + 1, ROWS):
        encoded = tokenizer(texts[i : i + ROWS], truncation=True, padding=True, return_tensors="pt")
        mask = encoded["attention_mask"]
        steps.append((encoded["input_ids"].to(device), mask.to(device), labels, int(mask.sum())))
    return steps


def _network(model: str, device: torch.device, dropout: float) -> BertForSequenceClassification:
    torch.manual_seed(0)
    network = BertForSequenceClassification.from_pretrained(
        model, num_labels=2, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
    )
    use_partial_last_layer(network)
    return network.to(device).train()  # type: ignore[no-any-return, arg-type]


def _losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="none")


def seeds(model: str, steps: Sequence[Step], compiled: bool) -> Check:
    """Equal seeds give equal losses of one graph, others give others."""
    step = GraphedSteps(PackedBert(_network(model, steps[0][0].device, 0.1), torch.bfloat16, compiled), ROWS, _losses)
    losses = []
    for seed in (1, 1, 2, 1):
        torch.manual_seed(seed)
        losses.append(float(step(*steps[0])[1].sum()))
    a, b, c, d = losses
    name = "seeds 1, 1, 2, 1 in one graph" + (", compiled" if compiled else "")
    return name, a == b == d != c, ", ".join(f"{loss:.4f}" for loss in losses)


def gradients(model: str, steps: Sequence[Step]) -> Check:
    """The relative error of the packed network's gradients, without dropout, is that of autocast in transformers."""
    ids, mask, labels, _ = steps[0]
    network = _network(model, ids.device, 0.0)

    def flat() -> torch.Tensor:
        found = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])  # type: ignore[union-attr]
        network.zero_grad(set_to_none=True)
        return found

    def plain(autocast: bool) -> torch.Tensor:
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=autocast):
            loss = _losses(network(input_ids=ids, attention_mask=mask).logits, labels).mean()
        loss.backward()
        return flat()

    def packed(dtype: torch.dtype) -> torch.Tensor:
        GraphedSteps(PackedBert(network, dtype), ROWS, _losses)(*steps[0])
        return flat()

    exact = plain(autocast=False)
    found = {"transformers, autocast": plain(autocast=True)}
    found |= {"packed, bf16": packed(torch.bfloat16), "packed, fp32": packed(torch.float32)}
    errors = {name: float((gradient - exact).norm() / exact.norm()) for name, gradient in found.items()}
    holds = errors["packed, fp32"] < 1e-5 and errors["packed, bf16"] < 1.5 * errors["transformers, autocast"]
    return "gradients, relative error", holds, ", ".join(f"{name} {error:.1e}" for name, error in errors.items())


def graph_against_none(model: str, steps: Sequence[Step]) -> Check:
    """Steps with dropout and deterministic algorithms end with the same weights and losses, bit for bit."""

    def train(kind: type[GraphedSteps]) -> list[torch.Tensor]:
        network = _network(model, steps[0][0].device, 0.1)
        step = kind(PackedBert(network, torch.bfloat16), ROWS, _losses)
        optimizer = torch.optim.AdamW(network.parameters(), lr=5e-5, fused=True)
        losses = []
        for i, batch in enumerate(steps):
            torch.manual_seed(step_seed(42, 0, i, 0))
            losses.append(step(*batch)[1].clone())
            step.clip(1.0)
            optimizer.step()
        return [*losses, *network.parameters()]

    torch.use_deterministic_algorithms(True)
    try:
        mine, plain = train(GraphedSteps), train(_WithoutGraph)
    finally:
        torch.use_deterministic_algorithms(False)
    equal = sum(map(torch.equal, mine, plain))
    return f"{len(steps)} steps, graph = no graph", equal == len(plain), f"{equal} of {len(plain)} tensors equal"


def no_synchronisation(fit: Callable[..., list[str]]) -> Check:
    """Sync debug mode "error" ends a run in which a step waits for the GPU."""
    command = fit(WORK / "runs" / "gpu-sync", f"{_CALLBACKS}NoSynchronisation", "--trainer.log_every_n_steps=100000")
    try:
        run_process([*command, "--trainer.max_epochs=2"], WORK / "logs" / "gpu-sync.log")
    except ProcessFailedError as error:
        return "no synchronisation in a step", False, str(error)
    return "no synchronisation in a step", True, "the second epoch, without its first and last 20 steps"


def kill_and_resume(fit: Callable[..., list[str]], step: int = 45) -> Check:
    """A run that is killed and resumed ends as one that was left alone."""
    whole, killed = (WORK / "runs" / f"gpu-{name}" for name in ("whole", "killed"))
    often = ["--trainer.callbacks+=src.callbacks.last_checkpoint.LastCheckpoint"]
    often += ["--trainer.callbacks.every_n_train_steps=20", "--trainer.log_every_n_steps=10"]
    often += ["--trainer.max_epochs=1", "--trainer.deterministic=true", "--data.train_size=480"]
    kill = [f"{_CALLBACKS}KillAfter", f"--trainer.callbacks.step={step}"]
    for directory in (whole, killed):
        shutil.rmtree(directory, ignore_errors=True)
    for directory, options in ((whole, []), (killed, kill), (killed, ["--ckpt_path=last"])):
        try:
            log = WORK / "logs" / f"{directory.name}.log"
            run_process(fit(directory, *often, *options), log, **_DETERMINISTIC)
        except ProcessFailedError:
            if options is not kill:
                raise
    different = differences(outcome(whole), outcome(killed))
    return f"killed after step {step}, resumed", not different, f"differences: {', '.join(different[:5]) or 'none'}"


def run(model: str, dataset: Path, fit: Callable[..., list[str]]) -> Iterator[Check]:
    """Yields the checks one by one.

    Args:
        model: folder of the network and its tokenizer.
        dataset: csv of reviews.
        fit: gives the command of a run, from a directory and more options.
    """
    import pandas as pd

    os.environ |= _DETERMINISTIC  # read when CUDA's libraries are loaded
    torch.backends.cuda.enable_cudnn_sdp(False)
    steps = batches(model, list(pd.read_csv(dataset, nrows=20 * ROWS)["text"]), torch.device("cuda"))
    yield seeds(model, steps, compiled=False)
    yield seeds(model, steps, compiled=True)
    yield gradients(model, steps)
    yield graph_against_none(model, steps)
    yield no_synchronisation(fit)
    yield kill_and_resume(fit)
