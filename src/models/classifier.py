"""BERT with a classification head, trained and measured by Lightning."""

import math
import os
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from src.checkpoints import read_checkpoint
from src.data.labels import MASKED_LABEL
from src.data.module import differences
from src.errors import UserError
from src.models import pretrained
from src.models.archive import archive_tokenizer, restore_tokenizer
from src.models.cls_only import compute_last_layer_at_cls_only
from src.models.fast_dropout import use_fast_dropout
from src.models.metrics import classification_metrics
from src.models.optimizer import Schedule, adamw_with_schedule, parameter_groups, total_steps

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
        self.checkpoint: Path | None = None
        """What will be restored, if anything: then the network is built as it says, without the pretrained weights."""
        self.step_means: MetricCollection
        self.epoch_means: MetricCollection
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

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that the weights belong to; of a checkpoint, the one it was trained with."""
        if archive := self._archive():
            return restore_tokenizer(archive["tokenizer"])
        return pretrained.load_tokenizer(self.hparams["model_name_or_path"])

    def longest_input(self) -> int | None:
        """The most tokens that the network takes, None if it sets no limit."""
        config = self._config()
        longest = getattr(config, "max_position_embeddings", None)
        # RoBERTa and its kin count positions from padding_idx + 1
        offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
        return None if longest is None else longest - offset

    def _config(self) -> Any:
        if archive := self._archive():
            return AutoConfig.for_model(**archive["config"])
        return pretrained.load_config(self.hparams["model_name_or_path"])

    def _archive(self) -> dict[str, Any] | None:
        """What the checkpoint that is about to be restored says of its model, None when training starts afresh."""
        if self.checkpoint is None:
            return None
        checkpoint = read_checkpoint(self.checkpoint)
        if "classifier" not in checkpoint:
            raise UserError(f"{self.checkpoint} is no checkpoint of a BertClassifier")
        archive: dict[str, Any] = checkpoint["classifier"]
        return archive

    def check(self, labels: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
        """Looks for what would fail when the network is built, since the run's directory is made before that.

        Raises:
            UserError: the pretrained weights cannot be had, or do not go with the tokenizer; or the checkpoint that is
                to be restored knows other labels, or holds the weights of another network.
        """
        vocabulary = self._config().vocab_size
        if len(tokenizer) > vocabulary:
            raise UserError(f"the tokenizer has {len(tokenizer)} tokens, but the network knows {vocabulary}")
        archive = self._archive()
        if archive is None:
            pretrained.check_weights(self.hparams["model_name_or_path"])
            return
        if archive["labels"] != labels:
            raise UserError(
                f"the checkpoint knows the labels {', '.join(archive['labels'])}, but the data have {', '.join(labels)}"
            )
        assert self.checkpoint is not None
        with torch.device("meta"):  # shapes alone
            network = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**archive["config"]))
        expected = {f"model.{name}": weight.shape for name, weight in network.state_dict().items()}
        found = {name: weight.shape for name, weight in read_checkpoint(self.checkpoint)["state_dict"].items()}
        if wrong := [name for name in expected | found if expected.get(name) != found.get(name)]:
            raise UserError(
                f"{self.checkpoint} holds the weights of another network than its configuration says: "
                f"{len(wrong)} are missing, unknown or of another shape, among them {wrong[0]}"
            )

    # ---- building --------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Builds the network, once the data are prepared and the number of labels is known."""
        if self.model is not None:
            return
        names = self.trainer.datamodule.label_names  # type: ignore[attr-defined]
        archive = self._archive()
        changes = {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
        }
        for option, keys in _DROPOUT_KEYS.items():
            if self.hparams[option] is not None:
                changes |= dict.fromkeys(keys, self.hparams[option])
        if archive:
            # the weights come from the checkpoint, so those it started from need not be there any more
            config = AutoConfig.for_model(**(archive["config"] | changes))
            self.model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        else:
            config = pretrained.load_config(self.hparams["model_name_or_path"], **changes)
            self.model = pretrained.load_weights(
                AutoModelForSequenceClassification, self.hparams["model_name_or_path"], config
            )
        # from_pretrained leaves the network in eval mode, and `fit` does not change that (lightning #20105)
        self.model.train()
        compute_last_layer_at_cls_only(self.model)
        use_fast_dropout(self.model)
        self.step_means = _training_means(len(names))
        self.epoch_means = _training_means(len(names))
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
        for metrics in (self.step_means, self.epoch_means):
            metrics["loss"].update(losses.detach(), weight=real.float())
            metrics["accuracy"].update(logits.detach(), batch["labels"])
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
        means = _compute_and_reset(self.step_means)
        return means | {name: float(value) for name, value in self.last_step.items()}

    def epoch_metrics(self) -> dict[str, float]:
        """Loss and accuracy of the epoch so far, whose end it is."""
        return _compute_and_reset(self.epoch_means)

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
        for kind in ("step_means", "epoch_means"):
            checkpoint[kind] = {name: _summed_over_ranks(metric) for name, metric in getattr(self, kind).items()}

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
        if self.trainer.global_rank != 0:
            return
        for kind in ("step_means", "epoch_means"):
            for name, state in checkpoint[kind].items():
                for key, value in state.items():
                    setattr(getattr(self, kind)[name], key, value.clone())


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


def _training_means(num_labels: int) -> MetricCollection:
    accuracy = MulticlassAccuracy(num_labels, average="micro", ignore_index=MASKED_LABEL, validate_args=False)
    return MetricCollection({"loss": MeanMetric(), "accuracy": accuracy}, compute_groups=False)


def _compute_and_reset(metrics: MetricCollection) -> dict[str, float]:
    values = {f"train/{name}": float(metric.compute()) for name, metric in metrics.items()}
    for metric in metrics.values():
        metric.reset()
    return values


def _summed_over_ranks(metric: Any) -> dict[str, torch.Tensor]:
    with metric.sync_context(should_sync=torch.distributed.is_available() and torch.distributed.is_initialized()):
        return {key: value.detach().clone() for key, value in metric.metric_state.items()}
