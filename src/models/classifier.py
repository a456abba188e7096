"""BERT with a classification head, trained and measured by Lightning."""

import math
import os
from typing import Any

import lightning
import torch
from torch import nn
from torchmetrics import MeanMetric, MetricCollection
from transformers import PreTrainedModel

from src.data.labels import MASKED_LABEL
from src.data.module import differences
from src.errors import UserError
from src.models.archive import archive_tokenizer
from src.models.cls_only import compute_last_layer_at_cls_only
from src.models.fast_dropout import use_fast_dropout
from src.models.metrics import classification_metrics
from src.models.optimizer import Schedule, adamw_with_schedule, parameter_groups, total_steps
from src.models.origin import Origin
from src.models.training_means import TrainingMeans

Batch = dict[str, torch.Tensor]


class BertClassifier(lightning.LightningModule):
    """A pretrained encoder with a new head over as many labels as the data have.

    Written for BERT; any family that `AutoModelForSequenceClassification` covers will do. The defaults are those of
    the seed experiment, which are the Hugging Face Trainer's.

    Args:
        model_name_or_path: Hub id, folder, or `package://NAME/PATH` inside an installed package.
        learning_rate: of the head, at its peak; it falls along the schedule, once a step.
        weight_decay: AdamW's, on weight matrices only.
        warmup_ratio: share of all steps in which the learning rate rises from 0.
        schedule: how it falls after that: linear or cosine to 0, or constant.
        layer_decay: factor on the learning rate from each layer to the one below; 1 is the same for all.
        hidden_dropout: probability; null takes the checkpoint's own.
        attention_dropout: probability; null takes the checkpoint's own. 0 lets a CPU use its fused attention kernel,
            which cannot drop out: 1.5 times the speed.
    """

    def __init__(
        self,
        model_name_or_path: str = "bert-base-uncased",
        learning_rate: float = 5e-5,
        weight_decay: float = 0.0,
        warmup_ratio: float = 0.0,
        schedule: Schedule = "linear",
        layer_decay: float = 1.0,
        hidden_dropout: float | None = None,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name in ("hidden_dropout", "attention_dropout", "warmup_ratio"):
            value = self.hparams[name]
            if value is not None and not 0 <= value < 1:
                raise UserError(f"model.{name} is {value}; it must be at least 0 and below 1")
        for name in ("learning_rate", "layer_decay"):
            if not 0 < self.hparams[name] < math.inf:
                raise UserError(f"model.{name} is {self.hparams[name]}; it must be positive")
        if not 0 <= weight_decay < math.inf:
            raise UserError(f"model.weight_decay is {weight_decay}; it must be 0 or more")
        self.model: PreTrainedModel | None = None
        self.origin = Origin(model_name_or_path, checkpoint=None)
        self.step_means: TrainingMeans
        self.epoch_means: TrainingMeans
        self.eval_loss: MeanMetric
        self.eval_metrics: MetricCollection
        self.last_step: dict[str, Any] = {}

    monitor = "val/accuracy"
    """What the best checkpoint is best in, of what is logged."""
    monitor_mode = "max"
    monitor_name = "validation accuracy"

    # ---- what the data ask of the model ----------------------------------------------------------------------------

    @property
    def seed(self) -> int:
        """Of the order of training rows and of dropout: the one that `seed_everything` was given."""
        return int(os.environ.get("PL_GLOBAL_SEED", "42"))

    # ---- building --------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Builds the network, once the data are prepared and the number of labels is known."""
        if self.model is not None:
            return
        names = self.trainer.datamodule.label_names  # type: ignore[attr-defined]
        dropout = {
            key: self.hparams[option]
            for option, keys in _DROPOUT_KEYS.items()
            for key in keys
            if self.hparams[option] is not None
        }
        self.model = self.origin.build(names, dropout)
        # from_pretrained leaves the network in eval mode, and `fit` does not change that (lightning #20105)
        self.model.train()
        compute_last_layer_at_cls_only(self.model)
        use_fast_dropout(self.model)
        self.step_means = TrainingMeans(len(names))
        self.epoch_means = TrainingMeans(len(names))
        self.eval_loss = MeanMetric()
        self.eval_metrics = classification_metrics(len(names))

    def configure_optimizers(self) -> Any:
        """AdamW and a schedule over the exact number of steps that the run will take."""
        h: Any = self.hparams
        trainer = self.trainer
        assert self.model is not None
        n_steps = total_steps(
            len(trainer.datamodule.train_dataloader()),  # type: ignore[attr-defined]
            trainer.accumulate_grad_batches,
            trainer.max_epochs,
            trainer.max_steps,
        )
        groups = parameter_groups(self.model, h.learning_rate, h.weight_decay, h.layer_decay)
        return adamw_with_schedule(groups, h.schedule, h.warmup_ratio, n_steps, fused=trainer.scaler is None)

    # ---- steps -----------------------------------------------------------------------------------------------------

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits of shape (rows, labels) for token ids and their mask, both of shape (rows, tokens)."""
        assert self.model is not None
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.float()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout from the step, so that a resumed run draws as one that never stopped.

        And each rank from its rank: Lightning gives all the same seed, and with it the same masks.
        """
        epoch, rank = self.trainer.current_epoch, self.trainer.global_rank
        torch.manual_seed(hash((self.seed, epoch, batch_idx, rank)) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The mean loss over the rows of the step, over all ranks together."""
        logits = self(batch["input_ids"], batch["attention_mask"])
        losses = _row_losses(logits, batch["labels"])
        real = batch["labels"] != MASKED_LABEL
        for means in (self.step_means, self.epoch_means):
            means.update(losses.detach(), logits.detach(), batch["labels"])
        right = (logits.detach().argmax(dim=-1) == batch["labels"]).sum()
        shown = {"train/loss": losses.detach().sum(), "train/accuracy": right}
        # for the progress bar; StepLog writes the log
        self.log_dict({k: v / real.sum().clamp(min=1) for k, v in shown.items()}, prog_bar=True, logger=False)
        # DDP averages the ranks' gradients, but ranks may differ in rows: times world_size, over all rows
        n_rows: torch.Tensor = self.trainer.strategy.reduce(real.sum(), reduce_op="sum")  # type: ignore[assignment]
        loss: torch.Tensor = losses.sum() * self.trainer.world_size / n_rows
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as asked, and keeps the norm before clipping, which would otherwise be computed twice."""
        self.last_step = {"lr": max(group["lr"] for group in optimizer.param_groups)}
        if gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        norm = nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or float("inf"))
        self.last_step["train/grad_norm"] = norm

    def step_metrics(self) -> dict[str, float]:
        """Loss and accuracy since the last call, and the last step's learning rate and gradient norm."""
        return self.step_means.take() | {name: float(value) for name, value in self.last_step.items()}

    def epoch_metrics(self) -> dict[str, float]:
        """Loss and accuracy of the epoch so far, whose end it is."""
        return self.epoch_means.take()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        """Adds a batch to the metrics of the epoch; returns its logits, for callbacks that look at single rows."""
        return {"logits": self._evaluate(batch)}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        """Adds a batch to the metrics of the test; returns its logits, for callbacks that look at single rows."""
        return {"logits": self._evaluate(batch)}

    def _evaluate(self, batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = self(batch["input_ids"], batch["attention_mask"])
        real = (batch["labels"] != MASKED_LABEL).float()
        self.eval_loss.update(_row_losses(logits, batch["labels"]), weight=real)
        self.eval_metrics.update(logits.softmax(dim=-1), batch["labels"])
        return logits

    def on_validation_epoch_end(self) -> None:
        self._finish_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._finish_evaluation("test")

    def _finish_evaluation(self, prefix: str) -> None:
        results = self.eval_metrics.compute()
        confusion = results.pop("confusion_matrix")
        loss = self.eval_loss.compute()
        self.eval_loss.reset()
        self.eval_metrics.reset()
        self.confusion_matrix = confusion.cpu()
        scalars = {"loss": loss, **results, "n": confusion.sum()}
        for name, value in scalars.items():
            # computed over all ranks already. Lightning would log what is not of `fit` at step 0: Results does it
            logged = self.trainer.state.fn == "fit" and name != "n"
            self.log(f"{prefix}/{name}", value.float(), prog_bar=name in ("loss", "accuracy"), logger=logged)

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds all that `predict` and `export` need: configuration, tokenizer, length, truncation, labels."""
        assert self.model is not None
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        checkpoint["classifier"] = {
            "config": self.model.config.to_diff_dict() | {"model_type": self.model.config.model_type},
            "tokenizer": archive_tokenizer(data.encoder.tokenizer),
            "max_length": data.encoder.max_length,
            "truncation": data.encoder.truncation,
            "labels": data.label_names,
        }
        checkpoint["step_means"] = self.step_means.sums()
        checkpoint["epoch_means"] = self.epoch_means.sums()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the running means; rank 0 stands for all, since they were summed over all.

        Raises:
            UserError: the optimizer's options are not those of the run that is resumed.
        """
        if self.trainer.state.fn != "fit":
            return
        before, now = (
            {f"model.{k}": h.get(k) for k in _OPTIMIZER} for h in (checkpoint["hyper_parameters"], self.hparams)
        )
        if changed := differences(before, now):
            raise UserError(f"the run to resume has an optimizer of its own: {changed}. Resume with the old value")
        if self.trainer.global_rank == 0:
            self.step_means.restore(checkpoint["step_means"])
            self.epoch_means.restore(checkpoint["epoch_means"])


# its state is restored with these, whatever is typed
_OPTIMIZER = ("learning_rate", "weight_decay", "warmup_ratio", "schedule", "layer_decay")
_DROPOUT_KEYS = {
    # the names in BERT and its kin, then in DistilBERT
    "hidden_dropout": ("hidden_dropout_prob", "dropout", "seq_classif_dropout"),
    "attention_dropout": ("attention_probs_dropout_prob", "attention_dropout"),
}


def _row_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each row, shape (rows,); 0 for a masked row."""
    return nn.functional.cross_entropy(logits, labels, ignore_index=MASKED_LABEL, reduction="none")
