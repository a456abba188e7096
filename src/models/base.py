"""Base class of the LightningModules: optimizer, seeded dropout, running means, and checks before training starts."""

import math
from typing import Any

import lightning
import torch
from torch import nn
from torchmetrics.aggregation import BaseAggregator
from transformers import PreTrainedModel

from src.data.base import PreparedDataModule
from src.data.tokenization import tokenizer_facts
from src.models.checkpoint_format import WEIGHTS, Archive, PretrainerArchive
from src.models.kernels.dropout import use_fast_dropout
from src.models.optimizer import adamw_with_schedule, layers_of, parameter_groups, total_steps
from src.models.origin import DROPOUT_KEYS, Origin
from src.models.run_state import check_optimizer_state, check_run_state
from src.models.running_means import RunningMeans
from src.runs.checkpoint_reading import changed_options
from src.system.errors import UserError
from src.system.seeds import run_seed, seed_torch, step_seed

Batch = dict[str, Any]

# the restored state of the optimizer keeps these, whatever the user gives to a resumed run
_OPTIMIZER = ("learning_rate", "head_learning_rate", "weight_decay", "warmup_ratio", "schedule", "layer_decay")


class TransformerModule(lightning.LightningModule):
    """A `transformers` network trained with AdamW and a learning-rate schedule.

    A subclass sets the class attributes, and builds `model`, `archive` and the means in `configure_model`.

    Attributes:
        monitor, monitor_mode, monitor_name: the logged metric that selects the best checkpoint; "min" or "max"; its
            name for the user.
        rows_are: what a row of a batch is, in the plural ("reviews").
        origin: where the network comes from.
        archive: what a checkpoint holds besides the weights.
        step_means, epoch_means: training means since the last logged step, and of the epoch.
        undefined: names of the metrics that the last evaluation leaves undefined, such as the AUROC of one class.
        seed: of dropout and of the order of training rows; set in `setup`.
    """

    monitor: str
    monitor_mode: str
    monitor_name: str
    rows_are: str
    origin: Origin
    archive: Archive | PretrainerArchive
    step_means: RunningMeans
    epoch_means: RunningMeans
    seed: int

    def __init__(self) -> None:
        super().__init__()
        self.model: PreTrainedModel | None = None
        self.last_step: dict[str, Any] = {}
        self.undefined: list[str] = []
        self._restored: dict[str, Any] | None = None

    @property
    def data(self) -> PreparedDataModule:
        """The Trainer's data module."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    # ---- checks ----------------------------------------------------------------------------------------------------

    def check_training_options(self) -> None:
        """Raises UserError if an option is out of range, such as a learning rate of 0."""
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

    def check_schedule(self, trainer: lightning.Trainer) -> None:
        """Raises UserError if the schedule needs the number of steps and that is not known."""
        unlimited = trainer.max_epochs in (None, -1) and trainer.max_steps == -1
        if unlimited and (self.hparams["schedule"] != "constant" or self.hparams["warmup_ratio"]):
            raise UserError(
                f"model.schedule={self.hparams['schedule']} with model.warmup_ratio={self.hparams['warmup_ratio']} "
                "follows the number of steps: limit trainer.max_epochs or trainer.max_steps, or use the schedule "
                "`constant` without warm-up"
            )

    def prepare_data(self) -> None:
        """Checks the model against the prepared data and the run to resume, before the run's directory is made.

        Lightning calls it once per machine, after the data module's `prepare_data`.

        Raises:
            UserError: the weights cannot be read or do not fit the data, or the options differ from those of the run
                to resume.
        """
        self.check_data()
        if self.origin.checkpoint is None:
            if self.origin.reads_weights and self.origin.is_on_hub:
                print(f"Model: {self.origin}", flush=True)
            return
        self.check_state(self.origin.checkpoint.content)
        if self.trainer.state.fn == "fit":
            self.check_resumption(self.origin.checkpoint.content)
            self.data.check_resumption(self.origin.checkpoint.content)
        else:
            self.data.check_evaluation(self.origin.checkpoint.content)

    def setup(self, stage: str) -> None:
        self.seed = run_seed()

    def check_data(self) -> None:
        """Raises UserError if the data are tokenised for another model, or the weights cannot be read."""
        tokenizer = self.origin.tokenizer()
        if tokenizer is not None and tokenizer_facts(tokenizer) != tokenizer_facts(self.data.tokenizer):
            raise UserError(
                f"the data are tokenised for {self.data.tokenizer_source.name!r}, but the model is "
                f"{self.origin.name!r}: give the data module tokenizer={self.origin.name!r}"
            )
        network = self.origin.check_weights(self.data.tokenizer)
        if network is not None:
            self.check_network(network)

    def check_network(self, network: PreTrainedModel) -> None:
        """Raises UserError if the pretrained network cannot be trained as the options say; a subclass may look."""

    def check_state(self, checkpoint: dict[str, Any]) -> None:
        """Raises UserError if the state of the run is damaged, or has weights that are none of this module's."""
        check_run_state(checkpoint, self.trainer)
        if self.model is None:
            others = {name for name in checkpoint["state_dict"] if not name.startswith(WEIGHTS)}
            if wrong := sorted(others ^ set(self.state_dict())):
                raise UserError(f"the checkpoint is of another module than {type(self).__name__}: {wrong[0]!r:.100}")

    def check_resumption(self, checkpoint: dict[str, Any]) -> None:
        """Raises UserError if the optimizer's options differ from those of the run to resume."""
        before, now = (
            {f"model.{name}": options.get(name) for name in _OPTIMIZER}
            for options in (checkpoint["hyper_parameters"], self.hparams)
        )
        if changed := changed_options(before, now):
            raise UserError(f"the run to resume has an optimizer of its own: {changed}. Resume with the old value")

    # ---- training --------------------------------------------------------------------------------------------------

    def dropout_options(self) -> dict[str, float]:
        """The dropout that the user set, by option."""
        return {name: self.hparams[name] for name in DROPOUT_KEYS if self.hparams[name] is not None}

    def speed_up(self, network: nn.Module) -> None:
        """Compiles the network, in place. Without `torch_compile`, makes dropout fast on a CPU, as a compiler would.

        Each layer is compiled, not the whole network: the layers share their code, so that one is compiled for all.
        """
        # In bf16 on a Hopper GPU, PyTorch prefers cuDNN's attention, which makes a new plan for each new batch length
        # (pytorch #155958, FunASR #3704): 0.15 s on an H200 (docs/experiments/gpu.md)
        torch.backends.cuda.enable_cudnn_sdp(False)
        if self.hparams["torch_compile"]:
            for part in layers_of(network) or [network]:
                part.compile(dynamic=True)  # batches differ in length
        else:
            use_fast_dropout(network)

    def configure_optimizers(self) -> Any:
        """AdamW, and a schedule over the exact number of steps in the run."""
        h: Any = self.hparams
        trainer = self.trainer
        assert self.model is not None
        n_steps = total_steps(
            len(self.data.train_dataloader()),
            trainer.limit_train_batches,
            trainer.accumulate_grad_batches,
            trainer.max_epochs,
            trainer.max_steps,
        )
        head_rate = h.get("head_learning_rate")
        groups = parameter_groups(self.model, h.learning_rate, h.weight_decay, h.layer_decay, head_rate)
        made = adamw_with_schedule(groups, h.schedule, h.warmup_ratio, n_steps, fused=trainer.scaler is None)
        if self._restored is not None:
            check_optimizer_state(self._restored, made)
        return made

    def tokens_computed(self, batch: Batch) -> int:
        """How many tokens a training step computes for a batch, padding included."""
        return int(batch["attention_mask"].numel())

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout for this step and rank, so that a resumed run draws the same masks as an uninterrupted one.

        Lightning seeds all ranks alike, so they would have the same dropout masks.
        """
        seed = step_seed(self.seed, self.trainer.current_epoch, batch_idx, self.trainer.global_rank)
        seed_torch(seed, self.device)

    def mean_over_step(self, sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The share of a batch in the mean loss of its optimizer step: over all ranks and accumulated batches.

        DDP divides gradients by the number of ranks, and Lightning losses by the number of accumulated batches, though
        ranks and batches may differ in rows.

        Args:
            sums: of the batch's losses, one for each kind of loss.
            counts: labels of the step on this rank, of the same shape.
        """
        # a copy, since it is summed in place, and the batches of a step share it
        total: torch.Tensor = self.trainer.strategy.reduce(counts.clone(), reduce_op="sum")  # type: ignore[assignment]
        return sums * (self.trainer.world_size * self.trainer.accumulate_grad_batches) / total.clamp(min=1)

    def update_means(self, name: str, values: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds to the training means of the logged step and of the epoch; see `RunningMeans.update`."""
        for means in (self.step_means, self.epoch_means):
            means.update(name, values, weights)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradients, and keeps their norm before clipping for the log, so that it is computed only once."""
        # the heads may have a higher learning rate: see parameter_groups
        rates = [
            group["lr"] for group in optimizer.param_groups if group["initial_lr"] <= self.hparams["learning_rate"]
        ]
        self.last_step = {"lr": max(rates, default=optimizer.param_groups[0]["lr"])}
        limit = gradient_clip_val or math.inf
        if gradient_clip_algorithm == "value":
            # Lightning's own refuses a fused optimizer in mixed precision, also in bf16, where gradients are not scaled
            nn.utils.clip_grad_value_(self.parameters(), limit)
        else:
            self.last_step["train/grad_norm"] = self.clip_gradient_norm(limit)

    def clip_gradient_norm(self, limit: float) -> torch.Tensor:
        """Scales the gradients so that their norm is at most `limit`; returns the norm before that."""
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # `clip_grad_norm_` multiplies by 1 where nothing is to be clipped: 4% of a step on a CPU. A GPU is not asked.
        if norm.device.type != "cpu" or not norm + 1e-6 <= limit:
            nn.utils.clip_grads_with_norm_(self.parameters(), limit, norm)
        return norm

    # ---- logging ---------------------------------------------------------------------------------------------------

    def log_evaluation(self, prefix: str, figures: dict[str, Any], shown: tuple[str, ...]) -> None:
        """Logs metrics that are computed over all ranks already; those in `shown` also go to the progress bar.

        Outside `fit`, Lightning logs at step 0. So on the command line, which sets `origin.checkpoint`, the callback
        `Results` logs them at the checkpoint's step. In Python, Lightning logs them. What is undefined is not logged.

        Raises:
            UserError: the loss is NaN or infinite, so that no metric means anything; or in `fit`, what selects the best
                checkpoint is undefined.
        """
        if figures["n"] and not math.isfinite(loss := float(figures["loss"])):
            raise UserError(
                f"the loss of {prefix} is {loss}: the training has diverged or the weights are damaged. "
                "Lower model.learning_rate and train again"
            )
        monitored = figures.get(self.monitor.removeprefix(f"{prefix}/"), 0.0)
        if self.trainer.state.fn == "fit" and figures["n"] and math.isnan(monitored):
            raise UserError(
                f"{self.monitor}, by which the best checkpoint is chosen, is undefined for the {int(figures['n'])} "
                "validation rows: take more of them, or monitor another figure"
            )
        by_lightning = self.trainer.state.fn == "fit" or self.origin.checkpoint is None
        self.undefined = [name for name, value in figures.items() if math.isnan(value)]
        for name, value in figures.items():
            if name in self.undefined:
                continue
            # n is the same each time; None means Lightning's default
            logger = None if by_lightning and name != "n" else False
            self.log(f"{prefix}/{name}", value, prog_bar=name in shown, logger=logger)

    def step_metrics(self) -> dict[str, float]:
        """The training means since the last call, and the learning rate and gradient norm of the last step.

        Raises:
            UserError: the loss is NaN or infinite. It is raised before the weights of this step are saved.
        """
        means = {f"train/{name}": value for name, value in self.described(self.step_means.take()).items()}
        last_step = {name: float(value) for name, value in self.last_step.items()}
        if not math.isfinite(means["train/loss"]):
            facts = ", ".join(f"{name} {value:.3g}" for name, value in last_step.items())
            raise UserError(
                f"the training loss is {means['train/loss']} after step {self.trainer.global_step} ({facts}): the "
                "training has diverged. Lower model.learning_rate; checkpoints that were saved before are intact"
            )
        # not by `self.log`, which would ask the GPU for them after each step (lightning #21232)
        self.trainer.progress_bar_metrics.update(means)
        return means | last_step

    def epoch_metrics(self) -> dict[str, float]:
        """The training means of the epoch, at its end."""
        return {f"train/{name}": value for name, value in self.described(self.epoch_means.take()).items()}

    def described(self, means: dict[str, float]) -> dict[str, float]:
        """The metrics to log for these means; a subclass may add some that follow from them."""
        return means

    # ---- precision -------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self._keep_metrics_exact()
        if (
            self._restored is not None
        ):  # only now, since Lightning converts the means to "bf16-true" after it has loaded
            for name, means in (("step_means", self.step_means), ("epoch_means", self.epoch_means)):
                means.restore(self._restored.get(name), self.trainer.global_rank, self.trainer.world_size)
            self._restored = None

    def on_validation_start(self) -> None:
        self._keep_metrics_exact()

    def on_test_start(self) -> None:
        self._keep_metrics_exact()

    def _keep_metrics_exact(self) -> None:
        """Keeps sums in fp32 with the precisions "bf16-true" and "16-true", in which they would soon stop growing.

        Only means and sums: the other metrics count in integers, which `set_dtype` would turn into floats.
        """
        for metric in self.modules():
            if isinstance(metric, BaseAggregator):
                metric.set_dtype(torch.float32)

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the archive, and the training means of each rank."""
        checkpoint[self.archive.SECTION] = self.archive.section
        checkpoint["step_means"] = self.step_means.sums()
        checkpoint["epoch_means"] = self.epoch_means.sums()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks what was stored, and keeps it until there is an optimizer to compare with."""
        self.check_state(checkpoint)
        if self.trainer.state.fn == "fit":
            self.check_resumption(checkpoint)
            self._restored = checkpoint
