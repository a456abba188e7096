"""BertClassifier: the LightningModule that fine-tunes an encoder with a classification head."""

import inspect
import itertools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from torchmetrics import Metric, MetricCollection
from transformers import PreTrainedModel

from src.data.imdb import ImdbDataModule
from src.data.labels import IGNORED_LABEL
from src.models.base import Batch, TransformerModule
from src.models.checkpoint_format import STATES, WEIGHTS, Archive, add_base, network_in
from src.models.heads import linear_probe as probing
from src.models.heads.mean_over_windows import mean_over_windows
from src.models.heads.mean_pooling import Pooling
from src.models.kernels.cuda_graphs import GraphedSteps
from src.models.kernels.few_widths import with_few_widths
from src.models.kernels.last_layer import use_partial_last_layer
from src.models.kernels.packed import PackedBert, is_supported, pack
from src.models.lora import Lora, check_installed, check_place, check_size, describe, frozen
from src.models.metrics import AT_ONCE
from src.models.optimizer import Schedule, check_layers
from src.models.origin import ClassifierOrigin
from src.models.reading_check import check_reading
from src.models.running_means import RunningMeans, WeightedMean
from src.models.tasks.known import TASKS
from src.models.tasks.task import ClassFigures, Task, named_weights
from src.runs.checkpoint_reading import Checkpoint, changed_options
from src.system.errors import UserError

_MINIMISED = ("val/loss", "val/ece")


class BertClassifier(TransformerModule):
    """Fine-tunes a pretrained encoder with a new classification head, which has as many labels as the data.

    It is written for BERT, and takes other model families of `AutoModelForSequenceClassification` too, if they pass
    `check_reading`. The defaults are those of the tutorial and the Hugging Face Trainer.

    Args:
        model_name_or_path: Hub id, folder, or `package://NAME/PATH` inside an installed package.
        revision: commit, tag or branch of a model on the Hub; null is its main branch. A full commit is exact, and is
            found again without network access.
        learning_rate: of the head, at its peak; the schedule changes it every step.
        weight_decay: AdamW's weight decay, on weight matrices only.
        warmup_ratio: fraction of all steps in which the learning rate rises from 0 (warm-up).
        schedule: the learning rate after warm-up: linear or cosine to 0, or constant.
        layer_decay: learning rate of each layer relative to the one above it, from the head down; 1 means no decay.
        hidden_dropout: dropout probability of hidden states; null keeps that of the pretrained model.
        attention_dropout: dropout probability of attention; null keeps that of the pretrained model. 0 is faster on a
            CPU, whose fused attention kernel has no dropout.
        pooling: what the new head reads when training starts: what the pretrained model's does, for BERT the vector of
            [CLS] (cls), or the mean over the tokens (mean), for which the top layer is re-initialised; ModernBERT takes
            the mean as it is. mean is better for sentence encoders, most of all with few labels:
            docs/experiments/recipes.md.
        linear_probe: starts with a head fitted by logistic regression instead of a random one. It reads all training
            rows, whatever the Trainer's limits, and helps with few labels: docs/experiments/recipes.md.
        lora: trains low-rank changes of the attention's query and value projections, and the head, in place of all
            weights: `{rank: 8, alpha: 16}`. Needs the extra `lora`, and a learning rate about ten times as high. A
            checkpoint then holds the trained weights alone, and is read only while the pretrained model is where
            it was and has not changed; `export` merges both: docs/how-to.md.
        class_weights: weights of the classes in the training loss, where some are rare: `balanced`, or a number for
            each label by name, as in `{neg: 1, pos: 3}`. The loss of a step is the plain mean of its weighted rows, so
            devices and accumulated batches do not change it (torch's own mean divides by the sum of the weights).
            `balanced` is n / (labels · rows of the label), as in scikit-learn. Where a text may have several labels, a
            weight is that of the texts that have the label, beside 1 for the others (torch's `pos_weight`), and
            `balanced` is the number of the latter over that of the former. Metrics have no weights.
        monitor: the validation figure that selects `best.ckpt`, such as val/f1 (its macro average) or
            val/balanced_accuracy where classes are rare. `val/loss` and `val/ece` are minimised, others maximised.
        torch_compile: compiles when training starts. For GPUs only: it gains nothing on a CPU. For a BERT on a GPU, the
            parts between matrix products are compiled, which takes 6 to 15 s; else a layer, once for all layers; the
            whole network, which takes minutes, where its layers have no numbers.
    """

    origin: ClassifierOrigin
    archive: Archive
    rows_are = "reviews"

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
        pooling: Pooling = "cls",
        linear_probe: bool = False,
        lora: Lora | None = None,
        class_weights: Literal["balanced"] | dict[str, float] | None = None,
        monitor: str = "val/accuracy",
        torch_compile: bool = False,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        # Lightning refuses a name that the data have too; a checkpoint holds all that the revision stands for
        self.save_hyperparameters(ignore=["revision"])
        self.check_training_options()
        self.monitor = monitor
        self.monitor_mode = "min" if monitor in _MINIMISED else "max"
        self.monitor_name = "validation accuracy" if monitor == "val/accuracy" else monitor
        self.origin = ClassifierOrigin(
            model_name_or_path, dropout=self.dropout_options(), revision=revision, pooling=pooling, lora=lora
        )
        self._begins_anew = True
        self._is_built = False
        # BERT on a GPU: in place of the network's own forward pass, and of the training step's backward pass too
        self._packed: PackedBert | None = None
        self._steps: GraphedSteps | None = None
        # of the training loss: a plain tensor, which no precision rounds and no checkpoint holds
        self._class_weights: torch.Tensor | None = None
        self.eval_loss: WeightedMean
        self.eval_metrics: Metric | MetricCollection
        self.task: Task
        self.by_class: ClassFigures = {}

    # ---- building --------------------------------------------------------------------------------------------------

    @property
    def data(self) -> ImdbDataModule:
        """The Trainer's data module."""
        return self.trainer.datamodule  # type: ignore[attr-defined, no-any-return]

    def check_training_options(self) -> None:
        super().check_training_options()
        if lora := self.hparams["lora"]:
            check_size(lora)
            check_installed()

    def check_data(self) -> None:
        super().check_data()
        self.origin.check_labels(self._task_of_data())
        if self.trainer.state.fn == "fit":
            self._check_monitors()
        if isinstance(weights := self.hparams["class_weights"], dict):
            named_weights(weights, self.data.label_names)
        self.data.check_unread(self.origin.texts_read(), self.origin.name)

    def _task_of_data(self) -> Task:
        return TASKS[self.data.problem_type](self.data.label_names)

    def _check_monitors(self) -> None:
        """Raises UserError if the best checkpoint or an early stop waits for a figure that no validation gives."""
        known = [f"val/{name}" for name in self._task_of_data().figure_names]
        trainer: Any = self.trainer
        waiting = {"model.monitor": self.monitor} | {
            f"the monitor of {type(callback).__name__}": callback.monitor
            for callback in trainer.callbacks
            if isinstance(callback, ModelCheckpoint | EarlyStopping) and str(callback.monitor).startswith("val/")
        }
        for what, name in waiting.items():
            if name not in known and type(self) is BertClassifier:  # a subclass may log more
                raise UserError(f"{what} is {name!r}, but the figures of a validation are {', '.join(known)}")

    def check_network(self, network: PreTrainedModel) -> None:
        check_reading(network, self.data.encoder, self.origin.name)
        if self.hparams["layer_decay"] != 1:
            check_layers(network)
        if self.hparams["linear_probe"]:
            probing.head_of(network)
        if self.hparams["lora"]:
            check_place(network)

    def configure_model(self) -> None:
        """Builds the network, when the data are prepared and the number of labels is known."""
        if self._trainer is None:  # in `load_from_checkpoint`
            return
        if self._is_built:
            self._pack()  # an earlier run has moved the parameters
            return
        data = self.data
        if self.model is None:
            self.model, head = self.origin.build(self._task_of_data())
            if self.trainer.is_global_zero and self.origin.checkpoint is None and not self.hparams["linear_probe"]:
                print(head, flush=True)
            if self.trainer.is_global_zero and frozen(self.model):
                print(describe(self.model), flush=True)
        # from_pretrained leaves the network in eval mode, and `fit` does not change that (lightning #20105)
        self.model.train()
        # read now, since the pretrained folder may be deleted during training
        texts = torch.from_numpy(self.origin.texts_read().view(np.int64))
        self.archive = Archive(
            data.encoder, data.label_names, self.model.config, texts, data.key, self.origin.adapter()
        )
        self.task = self.archive.task
        use_partial_last_layer(self.model)
        self._pack()
        if self._packed is None:
            self.speed_up(self.model)
        self.step_means = RunningMeans(["loss", "accuracy"])
        self.epoch_means = RunningMeans(["loss", "accuracy"])
        self.eval_loss = WeightedMean()
        rows = max((len(data.splits[name]) for name in ("val", "test") if name in data.splits), default=0)
        self.eval_metrics = self.task.metrics(rows)
        self._evaluated: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._is_built = True

    def _pack(self) -> None:
        """Decides how the network is computed: packed where that is possible, else by transformers."""
        trainer, network = self.trainer, self.model
        assert network is not None
        dtype = {"bf16-mixed": torch.bfloat16, "32-true": torch.float32}.get(trainer.precision)
        self._packed = self._steps = None
        if dtype and is_supported(network, trainer.strategy.root_device):
            self._packed = PackedBert(network, dtype, self.hparams["torch_compile"])

    def on_fit_start(self) -> None:
        """Fits the head with `linear_probe`, unless the run is resumed."""
        super().on_fit_start()
        weights = self._training_weights()
        self._class_weights = None if weights is None else weights.to(self.device)
        if self.hparams["linear_probe"] and self._begins_anew:
            self._probe()

    def _training_weights(self) -> torch.Tensor | None:
        """What `class_weights` asks for, float32 of shape (labels,)."""
        weights = self.hparams["class_weights"]
        if isinstance(weights, dict):
            return named_weights(weights, self.task.labels)
        if weights is None:
            return None
        counts = torch.tensor(list(self.data.prepared.classes(windows=True).values()))
        return self.task.balanced_weights(counts, len(self.data.lengths("train")))

    def _probe(self) -> None:
        trainer: Any = self.trainer
        assert self.model is not None
        rows = self.data.train_rows_once()
        if trainer.is_global_zero:
            print(f"Linear probe: reading {len(self.data.splits['train']):,} reviews", flush=True)
        batches = map(trainer.strategy.batch_to_device, itertools.islice(rows, 1 if trainer.fast_dev_run else None))
        with trainer.precision_plugin.forward_context():
            right = probing.probe(self.model, batches, self.task, self._class_weights)
        # DDP made the ranks' weights equal before this, and machines may round differently
        head = probing.head_of(self.model)
        head.load_state_dict(trainer.strategy.broadcast({name: w.cpu() for name, w in head.state_dict().items()}))
        if trainer.is_global_zero:
            print(f"Linear probe: right about {right:.1%} of what it read, before any step", flush=True)

    # ---- steps -----------------------------------------------------------------------------------------------------

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits of shape (rows, labels) for token ids and their mask, both of shape (rows, tokens)."""
        assert self.model is not None
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.float()

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Adds `lengths`, a list of the tokens of each window, while asking for them does not wait for a GPU.

        For bf16 on a CPU, it adds padding too: see `few_widths`.
        """
        batch = batch | {"lengths": batch["attention_mask"].sum(dim=1).tolist()}
        in_bf16_on_cpu = self.device.type == "cpu" and self.trainer.precision.startswith("bf16")
        return with_few_widths(batch, self.data.hparams["max_length"]) if in_bf16_on_cpu else batch

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The mean loss over the rows of the step on all ranks."""
        if (steps := self._graphed_steps()) is not None:
            logits, losses = steps(batch["input_ids"], batch["attention_mask"], batch["labels"], sum(batch["lengths"]))
        else:
            logits = self._logits_of_reviews(batch)
            losses = self.row_losses(logits, batch["labels"])
        real = (batch["labels"] != IGNORED_LABEL).float()
        self.update_means("loss", losses.detach(), real)
        right = self.task.right(logits.detach(), batch["labels"]).float()
        self.update_means("accuracy", right, real.reshape(len(real), -1)[:, 0])
        return self.mean_over_step(losses.sum(), batch.get("labels_of_step", real.sum()))

    def _graphed_steps(self) -> GraphedSteps | None:
        """Training steps as CUDA graphs, where no other rank and no other batch has a share in the gradients."""
        trainer = self.trainer
        alone = isinstance(trainer.strategy, SingleDeviceStrategy) and trainer.accumulate_grad_batches == 1
        if self._steps is None and self._packed is not None and alone:
            rows = self.data.hparams["batch_size"]
            self._steps = GraphedSteps(self._packed, rows, self.row_losses, self.task.label_shape)
        return self._steps

    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """Nothing to do after a graphed step, which has written the gradients."""
        if self._steps is None:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        """Nothing to do after a graphed step, which has written the gradients."""
        if self._steps is None:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def clip_gradient_norm(self, limit: float) -> torch.Tensor:
        return self._steps.clip(limit) if self._steps else super().clip_gradient_norm(limit)

    def tokens_computed(self, batch: Batch) -> int:
        if self._packed is None:
            return super().tokens_computed(batch)
        n_tokens = sum(batch["lengths"])
        return self._steps.tokens_computed(n_tokens, len(batch["labels"])) if self._steps else n_tokens

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The training loss of each label, in the shape of `labels`: (rows,), or (rows, labels) where a text may have
        several. 0 for a filler row. A subclass may have another loss.
        """
        return self.task.losses(logits, labels, self._class_weights)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        """Adds a batch to the metrics of the epoch; returns its logits, for callbacks that need single rows."""
        return {"logits": self._evaluate(batch)}

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        """Adds a batch to the metrics of the test; returns its logits, for callbacks that need single rows."""
        return {"logits": self._evaluate(batch)}

    def _evaluate(self, batch: Batch) -> torch.Tensor:
        logits = self._logits_of_reviews(batch)
        real = (batch["labels"] != IGNORED_LABEL).float()
        self.eval_loss.update(self.task.losses(logits, batch["labels"]), weight=real)
        # the metrics take rows out by a mask, which waits for a GPU: once, at the end
        self._evaluated.append((self.task.probabilities(logits), batch["labels"]))
        if len(self._evaluated) * logits.numel() > AT_ONCE:
            self._update_metrics()
        return logits

    def _logits_of_reviews(self, batch: Batch) -> torch.Tensor:
        """Logits of shape (reviews, labels), also if a review has several windows."""
        n = len(batch["labels"])
        # as many windows at a time as there are reviews, so that memory does not grow with the number of windows
        parts = zip(batch["input_ids"].split(n), batch["attention_mask"].split(n), strict=True)
        if self._packed is None:
            logits = torch.cat([self(ids, mask) for ids, mask in parts])
        else:
            sizes = [sum(batch["lengths"][i : i + n]) for i in range(0, len(batch["lengths"]), n)]
            packed = [pack(ids, mask.sum(dim=1), size) for (ids, mask), size in zip(parts, sizes, strict=True)]
            logits = torch.cat([self._packed(tokens) for tokens in packed])
        return mean_over_windows(logits, batch["review"], n) if "review" in batch else logits

    def on_validation_epoch_end(self) -> None:
        self._finish_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._finish_evaluation("test")

    def _finish_evaluation(self, prefix: str) -> None:
        self._update_metrics()
        computed = self.eval_metrics.compute()
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self.task = self.task.tuned(computed)
            self.archive.config.update(self.task.settings)
        overall, self.by_class = self.task.evaluate(computed)
        loss = self.eval_loss.compute()
        self.eval_loss.reset()
        self.eval_metrics.reset()
        figures = {"loss": loss, **overall}
        self.log_evaluation(prefix, {name: value.float() for name, value in figures.items()}, ("loss", "accuracy"))

    def _update_metrics(self) -> None:
        if self._evaluated:
            probabilities, labels = map(torch.cat, zip(*self._evaluated, strict=True))
            self._evaluated.clear()
            self.eval_metrics.update(probabilities, labels)

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves out what LoRA does not train."""
        super().on_save_checkpoint(checkpoint)
        assert self.model is not None
        if left_out := {f"{WEIGHTS}{name}" for name in frozen(self.model)}:
            for state in set(STATES) & checkpoint.keys():
                checkpoint[state] = {name: w for name, w in checkpoint[state].items() if name not in left_out}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what LoRA did not train. Without a Trainer, as in `load_from_checkpoint`, builds the network."""
        if self._trainer is not None:
            assert self.model is not None
            if any(f"{WEIGHTS}{name}" not in checkpoint["state_dict"] for name in frozen(self.model)):
                opened = Checkpoint(Path("this file"), checkpoint)
                add_base(opened, Archive.of(opened))
            # a learning-rate finder restores a checkpoint too, from before the first step
            self._begins_anew = checkpoint["global_step"] == 0
            super().on_load_checkpoint(checkpoint)
        elif self.model is None:
            opened = Checkpoint(Path("this file"), checkpoint)
            self.model = network_in(opened, Archive.of(opened))
            merged = {f"{WEIGHTS}{name}": weight for name, weight in self.model.state_dict().items()}
            others = {name: w for name, w in checkpoint["state_dict"].items() if not name.startswith(WEIGHTS)}
            checkpoint["state_dict"] = merged | others

    def check_resumption(self, checkpoint: dict[str, Any]) -> None:
        """Raises UserError if the options of the optimizer or of the initialisation differ."""
        for name in ("pooling", "linear_probe", "lora", "class_weights", "monitor"):
            # an earlier version had no such option, and did what is now the default
            default = inspect.signature(BertClassifier).parameters[name].default
            before = {name: checkpoint["hyper_parameters"].get(name, default)}
            if changed_options(before, {name: self.hparams[name]}):
                raise UserError(f"the run to resume began with model.{name}={before[name]}: resume with that value")
        super().check_resumption(checkpoint)
