"""BertPretrainer: the LightningModule for masked language modelling and next-sentence prediction."""

import math

import numpy as np
import torch
from torch import nn
from torchmetrics import SumMetric
from transformers import BertForPreTraining

from src.data.labels import IGNORED_LABEL
from src.data.pretraining import PretrainingDataModule
from src.models.base import Batch, TransformerModule
from src.models.checkpoint_format import PretrainerArchive
from src.models.kernels.last_layer import use_partial_last_layer
from src.models.optimizer import Schedule
from src.models.origin import FromScratch, PretrainerOrigin
from src.models.running_means import RunningMeans


class BertPretrainer(TransformerModule):
    """Pre-trains a BERT with both of its heads, from pretrained weights or from scratch.

    The vocabulary head is computed at masked tokens only: at all tokens it would cost more than a small encoder. The
    last layer is computed at masked tokens and [CLS]. The default learning rate is that of Sun et al. 2019
    (arXiv 1905.05583) for further pre-training on reviews, and the default weight decay is BERT's own.

    Args:
        model_name_or_path: Hub id, folder, or `package://NAME/PATH` inside an installed package: weights and tokenizer,
            or only the tokenizer with from_scratch.
        revision: commit, tag or branch of a model on the Hub; null is its main branch. A full commit is exact, and is
            found again without network access.
        from_scratch: starts from random weights, with these sizes: hidden_size, layers, heads. With vocab_size, a
            tokenizer of about that size is trained on the corpus; it has every character of the corpus, so it may be
            larger. null starts from the weights of model_name_or_path.
        learning_rate: of the encoder, at its peak; the schedule changes it every step.
        head_learning_rate: of the two heads, but not of the vocabulary matrix, which is the embeddings'; null takes
            learning_rate. A higher value trains new heads quickly while the encoder changes slowly.
        weight_decay: AdamW's weight decay, on weight matrices only.
        warmup_ratio: fraction of all steps in which the learning rate rises from 0 (warm-up).
        schedule: the learning rate after warm-up: linear or cosine to 0, or constant.
        layer_decay: learning rate of each layer relative to the one above it, from the heads down; 1 means no decay.
        hidden_dropout: dropout probability of hidden states; null keeps that of the pretrained model.
        attention_dropout: dropout probability of attention; null keeps that of the pretrained model. 0 is faster on a
            CPU, whose fused attention kernel has no dropout.
        torch_compile: compiles a layer when training starts, once for all layers. For GPUs only: it gains nothing on a
            CPU.
    """

    origin: PretrainerOrigin
    archive: PretrainerArchive
    monitor = "val/mlm_loss"
    monitor_mode = "min"
    monitor_name = "validation MLM loss"
    rows_are = "sequences"

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
        revision: str | None = None,
    ) -> None:
        super().__init__()
        # Lightning refuses a name that the data have too; a checkpoint holds all that the revision stands for
        self.save_hyperparameters(ignore=["revision"])
        self.check_training_options()
        self.model: BertForPreTraining | None
        self.origin = PretrainerOrigin(
            model_name_or_path, dropout=self.dropout_options(), revision=revision, from_scratch=from_scratch
        )
        self.eval_means: RunningMeans

    def configure_model(self) -> None:
        """Builds the network, when the data are prepared and the tokenizer is known."""
        if self.model is not None:
            return
        data = self.data
        # read now, since the pretrained folder may be deleted during training
        read = np.union1d(data.corpus.hashes(), self.origin.texts_read())
        self.archive = PretrainerArchive(
            data.tokenizer,
            data.hparams["sequence_length"],
            self.origin.config(data.tokenizer),  # with the model's own dropout, for fine-tuning
            torch.from_numpy(read.view(np.int64)),
        )
        self.model = self.origin.build(data.tokenizer)
        self.model.train()
        use_partial_last_layer(self.model)  # and at the positions that `forward` sets
        self.speed_up(self.model.bert)
        names = ["mlm_loss", "mlm_accuracy"]
        if data.hparams["next_sentence"]:
            names += ["nsp_loss", "nsp_accuracy"]
        else:
            # DDP waits for a gradient of every parameter that may have one
            self.model.bert.pooler.requires_grad_(False)  # type: ignore[union-attr]
            self.model.cls.seq_relationship.requires_grad_(False)
        self.step_means = RunningMeans(names)
        self.epoch_means = RunningMeans(names)
        self.eval_means = RunningMeans(names)
        self.eval_masked = SumMetric()

    @property
    def data(self) -> PretrainingDataModule:
        """The Trainer's data module."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor,
        positions: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits of both heads.

        Args:
            input_ids, attention_mask, token_type_ids: of shape (rows, tokens).
            positions: where the vocabulary head is computed, boolean of shape (rows, tokens); n are true.

        Returns:
            Logits over the vocabulary, of shape (n, vocabulary), in the order of rows and tokens; and logits of whether
            the second segment follows the first, of shape (rows, 2).
        """
        assert self.model is not None
        counts = positions.sum(dim=1)
        # [CLS] for the pooler, then the chosen positions in order, then filler up to the longest row
        order = torch.argsort((~positions).int(), dim=1, stable=True)[:, : int(counts.max())]
        self.model.bert.encoder.layer[-1].positions = nn.functional.pad(order, (1, 0))
        encoded = self.model.bert(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, return_dict=True
        )
        chosen = torch.arange(order.shape[1], device=order.device) < counts[:, None]
        heads = self.model.cls
        tokens = heads.predictions(encoded.last_hidden_state[:, 1:][chosen])
        return tokens.float(), heads.seq_relationship(encoded.pooler_output).float()

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The mean loss over the masked tokens of the step on all ranks, plus that over its pairs of segments."""
        scores = self._score(batch)
        for name, (values, weights) in scores.items():
            self.update_means(name, values.detach(), weights)
        labels = {"mlm_loss": "labels", "nsp_loss": "next_sentence_label"}
        losses = {name: scores[name] for name in labels if name in scores}
        counts = [batch.get(f"{labels[name]}_of_step", real.sum()) for name, (_, real) in losses.items()]
        sums = torch.stack([values.sum() for values, _ in losses.values()])
        return self.mean_over_step(sums, torch.stack(counts)).sum()

    def _score(self, batch: Batch) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Values and weights by metric: for masked tokens of shape (masked,), for pairs of segments (rows,)."""
        masked = batch["labels"] != IGNORED_LABEL
        tokens, follows = self(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"], masked)
        scores = _loss_and_accuracy("mlm", tokens, batch["labels"][masked])
        if self.data.hparams["next_sentence"]:
            scores |= _loss_and_accuracy("nsp", follows, batch["next_sentence_label"])
        return scores

    def described(self, means: dict[str, float]) -> dict[str, float]:
        """Adds the total loss and the perplexity."""
        loss = means["mlm_loss"] + means.get("nsp_loss", 0.0)
        return {"loss": loss, **means, "perplexity": math.exp(min(means["mlm_loss"], 100.0))}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch to the metrics of the epoch."""
        scores = self._score(batch)
        for name, (values, weights) in scores.items():
            self.eval_means.update(name, values, weights)
        self.eval_masked.update(scores["mlm_loss"][1].sum())

    def on_validation_epoch_end(self) -> None:
        figures = {**self.described(self.eval_means.take()), "n": float(self.eval_masked.compute())}
        self.log_evaluation("val", figures, ("mlm_loss", "nsp_accuracy"))
        self.eval_masked.reset()


def _loss_and_accuracy(
    task: str, logits: torch.Tensor, labels: torch.Tensor
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The loss of each row and whether it is right, both of shape (rows,), with weights: 0 for filler rows."""
    losses = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="none")
    right = (logits.detach().argmax(dim=-1) == labels).float()
    real = (labels != IGNORED_LABEL).float()
    return {f"{task}_loss": (losses, real), f"{task}_accuracy": (right, real)}
