"""BertPretrainer: the LightningModule for masked language modelling and next-sentence prediction."""

import math
from typing import Any, NotRequired, TypedDict

import numpy as np
import torch
from torch import nn
from torchmetrics import SumMetric
from transformers import BertForPreTraining

from src.data.labels import IGNORED_LABEL
from src.data.pretraining import PretrainingDataModule
from src.models.archive import PretrainerArchive
from src.models.base import Batch, TransformerModule
from src.models.kernels.last_layer import compute_last_layer_where_chosen
from src.models.optimizer import Schedule
from src.models.origin import PretrainerOrigin
from src.models.running_means import RunningMeans, WeightedMean
from src.system.errors import UserError


class FromScratch(TypedDict):
    """Sizes of a new BERT; `vocab_size` is about that of a tokenizer to be trained on the corpus."""

    hidden_size: int
    layers: int
    heads: int
    vocab_size: NotRequired[int | None]


class BertPretrainer(TransformerModule):
    """A BERT with both of its pre-training heads, from a checkpoint or from nothing.

    The head over the vocabulary is computed where a token is masked and nowhere else: over all tokens it costs more
    than the whole of a small encoder. The last layer is computed there and at [CLS].

    Args:
        model_name_or_path: Hub id, folder, or `package://NAME/PATH` inside an installed package: weights and tokenizer,
            or the tokenizer alone where from_scratch is given.
        from_scratch: begins from random weights: hidden_size, layers, heads; with vocab_size, a tokenizer of about that
            size is trained on the corpus (each character that occurs is in it, whatever the size). null begins from the
            weights of model_name_or_path.
        learning_rate: at its peak; it falls along the schedule, once a step.
        head_learning_rate: that of the two heads, but for the matrix over the vocabulary, which is the embeddings';
            null takes learning_rate. Heads that begin at random learn faster than an encoder should be changed.
        weight_decay: AdamW's, on weight matrices only.
        warmup_ratio: share of all steps in which the learning rate rises from 0.
        schedule: how it falls after that: linear or cosine to 0, or constant.
        layer_decay: factor on the learning rate from each layer to the one below; 1 is the same for all.
        hidden_dropout: probability; null takes the checkpoint's own.
        attention_dropout: probability; null takes the checkpoint's own. 0 lets a CPU use its fused attention kernel.
        torch_compile: compiles the network as training begins, which takes a minute or more. For GPUs: on a CPU it
            gains nothing.
    """

    origin: PretrainerOrigin
    archive: PretrainerArchive
    monitor = "val/mlm_loss"
    monitor_mode = "min"
    monitor_name = "validation MLM loss"
    rows_are = "sequences"
    next_commands = (
        ("Hand it over:", "python -m src export --ckpt_path {best} --output my-bert"),
        ("Fine-tune it:", "python -m src fit --config {held_out} --model.model_name_or_path my-bert"),
    )

    def __init__(
        self,
        model_name_or_path: str = "bert-base-uncased",
        from_scratch: FromScratch | None = None,
        learning_rate: float = 5e-5,
        head_learning_rate: float | None = None,
        weight_decay: float = 0.01,
        warmup_ratio: float = 0.1,
        schedule: Schedule = "linear",
        layer_decay: float = 1.0,
        hidden_dropout: float | None = None,
        attention_dropout: float | None = None,
        torch_compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.check_training_options()
        if from_scratch:
            _check_sizes(from_scratch)
        self.model: BertForPreTraining | None
        self.origin = PretrainerOrigin(model_name_or_path, dropout=self.dropout_options(), from_scratch=from_scratch)
        self.eval_means: nn.ModuleDict

    def configure_model(self) -> None:
        """Builds the network, once the data are prepared and the tokenizer is known."""
        if self.model is not None:
            return
        data = self.data
        # what was read before: now, since the folder that tells it may go away
        read = np.union1d(data.corpus.hashes(), self.origin.texts_read())
        self.archive = PretrainerArchive(
            data.tokenizer,
            data.hparams["sequence_length"],
            self.origin.config(data.tokenizer),  # a fine-tuning should find the model's own dropout
            torch.from_numpy(read.view(np.int64)),
        )
        self.model = self.origin.build(data.tokenizer)
        self.model.train()
        self._last_layer = [compute_last_layer_where_chosen(self.model)]  # in a list: it is a part of `model` already
        self.speed_up(self.model.bert)
        names = ["mlm_loss", "mlm_accuracy"]
        if self._next_sentence:
            names += ["nsp_loss", "nsp_accuracy"]
        else:
            # DDP waits for gradients of all that could have one
            self.model.bert.pooler.requires_grad_(False)  # type: ignore[union-attr]
            self.model.cls.seq_relationship.requires_grad_(False)
        self.step_means = RunningMeans(names)
        self.epoch_means = RunningMeans(names)
        self.eval_means = nn.ModuleDict({name: WeightedMean() for name in names})
        self.eval_masked = SumMetric()

    @property
    def data(self) -> PretrainingDataModule:
        """The Trainer's data module."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    @property
    def _next_sentence(self) -> bool:
        return bool(self.data.hparams["next_sentence"])

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
        positions: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits over the vocabulary at the chosen positions, and of the two answers to whether B follows A.

        Args:
            input_ids, attention_mask, token_type_ids: of shape (rows, tokens).
            positions: boolean of shape (rows, tokens); n of them are true.

        Returns:
            of shape (n, vocabulary), the positions in the order of rows and tokens, and (rows, 2).
        """
        assert self.model is not None
        counts = positions.sum(dim=1)
        # [CLS], which the pooler reads, then the chosen positions in their order, then some that fill up
        order = torch.argsort((~positions).int(), dim=1, stable=True)[:, : int(counts.max())]
        self._last_layer[0].positions = nn.functional.pad(order, (1, 0))
        encoded = self.model.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, return_dict=True
        )
        chosen = torch.arange(order.shape[1], device=order.device) < counts[:, None]
        heads = self.model.cls
        tokens = heads.predictions(encoded.last_hidden_state[:, 1:][chosen])
        return tokens.float(), heads.seq_relationship(encoded.pooler_output).float()

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The mean loss over the masked tokens of the step, plus that over its pairs, over all ranks together."""
        scores = self._score(batch)
        for name, (values, weights) in scores.items():
            self.update_means(name, values.detach(), weights)
        losses = [scores[name] for name in ("mlm_loss", "nsp_loss") if name in scores]
        counts = self.over_all_ranks(torch.stack([weights.sum() for _, weights in losses]))
        # DDP averages the ranks' gradients, but ranks may differ in tokens: times world_size, over all of them
        parts = [values.sum() * self.trainer.world_size / n for (values, _), n in zip(losses, counts, strict=True)]
        # for the progress bar; StepLog writes the log
        tokens, weights = losses[0]
        self.log("train/mlm_loss", tokens.detach().sum() / weights.sum().clamp(min=1), prog_bar=True, logger=False)
        return torch.stack(parts).sum()

    def _score(self, batch: Batch) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Losses and hits of the masked tokens, shape (masked,), and of pairs, shape (rows,), with their weights."""
        masked = batch["labels"] != IGNORED_LABEL
        logits, answers = self(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"], masked)
        wanted, follows = batch["labels"][masked], batch["next_sentence_label"]
        losses = nn.functional.cross_entropy(logits, wanted, reduction="none")
        right = (logits.detach().argmax(dim=-1) == wanted).float()
        each = torch.ones_like(right)
        scores = {"mlm_loss": (losses, each), "mlm_accuracy": (right, each)}
        if self._next_sentence:
            losses = nn.functional.cross_entropy(answers, follows, ignore_index=IGNORED_LABEL, reduction="none")
            right = (answers.detach().argmax(dim=-1) == follows).float()
            real = (follows != IGNORED_LABEL).float()
            scores |= {"nsp_loss": (losses, real), "nsp_accuracy": (right, real)}
        return scores

    def described(self, means: dict[str, float]) -> dict[str, float]:
        """Adds the whole loss, and the perplexity, which is no mean."""
        whole = means["mlm_loss"] + means.get("nsp_loss", 0.0)
        return {"loss": whole, **means, "perplexity": math.exp(min(means["mlm_loss"], 100.0))}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch to the metrics of the epoch."""
        scores = self._score(batch)
        for name, (values, weights) in scores.items():
            self._eval_mean(name).update(values, weights)
        self.eval_masked.update(scores["mlm_loss"][1].sum())

    def on_validation_epoch_end(self) -> None:
        means = {name: float(self._eval_mean(name).compute()) for name in self.eval_means}
        figures = {**self.described(means), "n": float(self.eval_masked.compute())}
        self.log_evaluation("val", figures, ("mlm_loss", "nsp_accuracy"))
        self.eval_masked.reset()
        for name in self.eval_means:
            self._eval_mean(name).reset()

    def _eval_mean(self, name: str) -> Any:
        return self.eval_means[name]


_SMALLEST_VOCABULARY = 100  # letters, alone and within words, digits, marks, BERT's five special tokens


def _check_sizes(sizes: FromScratch) -> None:
    for name in ("hidden_size", "layers", "heads"):
        if sizes[name] < 1:  # type: ignore[literal-required]
            raise UserError(f"model.from_scratch: {name} is {sizes[name]}; it must be 1 or more")  # type: ignore[literal-required]
    if sizes["hidden_size"] % sizes["heads"]:
        raise UserError(
            f"model.from_scratch: hidden_size {sizes['hidden_size']} cannot be shared by {sizes['heads']} heads: "
            "it must be a multiple"
        )
    if (vocab_size := sizes.get("vocab_size")) is not None and vocab_size < _SMALLEST_VOCABULARY:
        raise UserError(f"model.from_scratch: vocab_size is {vocab_size}; it must be {_SMALLEST_VOCABULARY} or more")
