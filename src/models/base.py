"""What fine-tuning and pre-training share: the optimizer, seeded dropout, and what is logged of the steps."""

import math
import os
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn
from torchmetrics.aggregation import BaseAggregator
from transformers import PreTrainedModel

from src.data.base import differences
from src.models.kernels.dropout import use_fast_dropout
from src.models.optimizer import adamw_with_schedule, parameter_groups, total_steps
from src.models.origin import DROPOUT_KEYS, Origin
from src.models.running_means import TrainingMeans
from src.runs.folders import AVERAGE_OF_KEY
from src.system.errors import UserError

Batch = dict[str, torch.Tensor]

# its state is restored with these, whatever is typed
_OPTIMIZER = ("learning_rate", "head_learning_rate", "weight_decay", "warmup_ratio", "schedule", "layer_decay")


class TransformerModule(lightning.LightningModule):
    """A network of `transformers` under AdamW and a schedule.

    A subclass builds `model` and the two `TrainingMeans` in `configure_model`, and sets the attributes below.

    Attributes:
        monitor, monitor_mode, monitor_name: what the best checkpoint is best in, of what is logged.
        rows_are: what a row of a batch is, in the plural.
        origin: where the network comes from.
    """

    monitor: str
    monitor_mode: str
    monitor_name: str
    rows_are: str
    origin: Origin

    def __init__(self) -> None:
        super().__init__()
        self.model: PreTrainedModel | None = None
        self.step_means: TrainingMeans
        self.epoch_means: TrainingMeans
        self.last_step: dict[str, Any] = {}

    def check_training_options(self) -> None:
        """Raises UserError for a probability outside [0, 1), a learning rate that is not positive, and the like."""
        for name in ("hidden_dropout", "attention_dropout", "warmup_ratio"):
            value = self.hparams[name]
            if value is not None and not 0 <= value < 1:
                raise UserError(f"model.{name} is {value}; it must be at least 0 and below 1")
        for name in ("learning_rate", "head_learning_rate", "layer_decay"):
            value = self.hparams.get(name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"model.{name} is {value}; it must be positive")
        if not 0 <= self.hparams["weight_decay"] < math.inf:
            raise UserError(f"model.weight_decay is {self.hparams['weight_decay']}; it must be 0 or more")

    def check_schedule(self, trainer: Any) -> None:
        """Raises UserError where the schedule needs the number of steps, and that is not to be known."""
        if any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks):
            raise UserError(
                "GradientAccumulationScheduler changes the number of steps, which the learning rate follows: take "
                "trainer.accumulate_grad_batches"
            )
        unlimited = trainer.max_epochs in (None, -1) and trainer.max_steps == -1
        if unlimited and (self.hparams["schedule"] != "constant" or self.hparams["warmup_ratio"]):
            raise UserError(
                f"model.schedule={self.hparams['schedule']} with model.warmup_ratio={self.hparams['warmup_ratio']} "
                "follows the number of steps: limit trainer.max_epochs or trainer.max_steps, or take the schedule "
                "`constant` without warm-up"
            )

    @property
    def seed(self) -> int:
        """Of the order of training rows and of dropout: the one that `seed_everything` was given."""
        return int(os.environ.get("PL_GLOBAL_SEED", "42"))

    def dropout_options(self) -> dict[str, float]:
        """The dropout that the user set, by option."""
        return {name: self.hparams[name] for name in DROPOUT_KEYS if self.hparams[name] is not None}

    def speed_up(self, network: nn.Module) -> None:
        """Compiles the network in place, or else makes its dropout fast on a CPU, which a compiler does by itself.

        And does without cuDNN's attention in this process.
        """
        # PyTorch prefers cuDNN's attention in bf16 on a Hopper GPU, which plans anew for each length of a batch that it
        # has not seen (pytorch #155958, FunASR #3704): 0.19 s a step in place of 0.04 s (docs/results.md, "On one GPU")
        torch.backends.cuda.enable_cudnn_sdp(False)
        if self.hparams["torch_compile"]:
            network.compile(dynamic=True)  # batches differ in length
        else:
            use_fast_dropout(network)

    def configure_optimizers(self) -> Any:
        """AdamW and a schedule over the exact number of steps that the run will take."""
        h: Any = self.hparams
        trainer = self.trainer
        assert self.model is not None
        n_steps = total_steps(
            len(trainer.datamodule.train_dataloader()),  # type: ignore[attr-defined]
            trainer.limit_train_batches,
            trainer.accumulate_grad_batches,
            trainer.max_epochs,
            trainer.max_steps,
        )
        head_rate = h.get("head_learning_rate")
        groups = parameter_groups(self.model, h.learning_rate, h.weight_decay, h.layer_decay, head_rate)
        return adamw_with_schedule(groups, h.schedule, h.warmup_ratio, n_steps, fused=trainer.scaler is None)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout from the step, so that a resumed run draws as one that never stopped.

        And each rank from its rank: Lightning gives all the same seed, and with it the same masks.
        """
        epoch, rank = self.trainer.current_epoch, self.trainer.global_rank
        torch.manual_seed(hash((self.seed, epoch, batch_idx, rank)) % 2**63)

    def over_all_ranks(self, counts: torch.Tensor) -> torch.Tensor:
        """Counts summed over the ranks: what the loss of a step is divided by, since ranks may differ in rows."""
        total: torch.Tensor = self.trainer.strategy.reduce(counts, reduce_op="sum")  # type: ignore[assignment]
        return total.clamp(min=1)

    def update_means(self, name: str, values: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds to the means of the step's row of the log and of the epoch's; see `TrainingMeans.update`."""
        for means in (self.step_means, self.epoch_means):
            means.update(name, values, weights)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips as asked, and keeps the norm before clipping, which would otherwise be computed twice."""
        # the heads may learn faster: see parameter_groups
        rates = [
            group["lr"] for group in optimizer.param_groups if group["initial_lr"] <= self.hparams["learning_rate"]
        ]
        self.last_step = {"lr": max(rates, default=optimizer.param_groups[0]["lr"])}
        if gradient_clip_algorithm == "value":
            # Lightning's own refuses a fused optimizer in mixed precision, even in bf16, which scales no gradients
            nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val or float("inf"))
            return
        norm = nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or float("inf"))
        self.last_step["train/grad_norm"] = norm

    def log_evaluation(self, prefix: str, figures: dict[str, Any], shown: tuple[str, ...]) -> None:
        """Logs figures that were computed over all ranks already, those in `shown` on the progress bar too.

        Outside `fit` Lightning logs at step 0. So the command line, which alone names a checkpoint, has Results do it,
        at that one's step; for others Lightning does, and returns them from `Trainer.validate` and `Trainer.test`.
        """
        by_lightning = self.trainer.state.fn == "fit" or self.origin.checkpoint is None
        for name, value in figures.items():
            # n is the same each time. None: where there is a logger
            logger = None if by_lightning and name != "n" else False
            self.log(f"{prefix}/{name}", value, prog_bar=name in shown, logger=logger)

    def step_metrics(self) -> dict[str, float]:
        """The means since the last call, and the last step's learning rate and gradient norm."""
        means = {f"train/{name}": value for name, value in self.described(self.step_means.take()).items()}
        return means | {name: float(value) for name, value in self.last_step.items()}

    def epoch_metrics(self) -> dict[str, float]:
        """The means of the epoch so far, whose end it is."""
        return {f"train/{name}": value for name, value in self.described(self.epoch_means.take()).items()}

    def count_masked_tokens(self, batch: Batch) -> int:
        """The number of tokens of a batch that are to be predicted over the vocabulary; none in a classifier."""
        return 0

    def described(self, means: dict[str, float]) -> dict[str, float]:
        """What is logged of these means; a subclass may add what follows from them."""
        return means

    # ---- precision -------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self._keep_metrics_exact()

    def on_validation_start(self) -> None:
        self._keep_metrics_exact()

    def on_test_start(self) -> None:
        self._keep_metrics_exact()

    def _keep_metrics_exact(self) -> None:
        """Undoes what the precisions "bf16-true" and "16-true" do to sums, which soon grow no more in so few bits.

        Of means and sums alone: the other metrics count in integers, which `set_dtype` would make floats too.
        """
        for metric in self.modules():
            if isinstance(metric, BaseAggregator):
                metric.set_dtype(torch.float32)

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the running means, summed over the ranks."""
        checkpoint["step_means"] = self.step_means.sums()
        checkpoint["epoch_means"] = self.epoch_means.sums()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the running means; rank 0 stands for all, since they were summed over all."""
        if self.trainer.state.fn != "fit":
            return
        self.check_resumption(checkpoint)
        if self.trainer.global_rank == 0:
            self.step_means.restore(checkpoint["step_means"])
            self.epoch_means.restore(checkpoint["epoch_means"])

    def check_resumption(self, checkpoint: dict[str, Any]) -> None:
        """Raises UserError where there is no optimizer to resume, or its options are others."""
        if AVERAGE_OF_KEY in checkpoint:
            raise UserError(
                "a mean of runs has no optimizer to go on with: `export` it, and begin with --model.model_name_or_path"
            )
        before, now = (
            {f"model.{k}": h.get(k) for k in _OPTIMIZER} for h in (checkpoint["hyper_parameters"], self.hparams)
        )
        if changed := differences(before, now):
            raise UserError(f"the run to resume has an optimizer of its own: {changed}. Resume with the old value")
