"""A callback for the Hugging Face Trainer that records the times of steps and evaluation (speed/recorder.py)."""

from typing import Any

from transformers import TrainerCallback

from benchmarks.speed.recorder import Recorder


class HuggingFaceProbe(TrainerCallback):
    """Records training steps; for evaluation, it takes the time that the Trainer reports."""

    def __init__(self) -> None:
        self.recorder = Recorder()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.recorder.step_begins()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.recorder.step_ends()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.recorder.write()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds = kwargs["metrics"]["eval_runtime"]
        self.recorder.report["evaluation_s"] = seconds
        self.recorder.report["evaluated"] = seconds * kwargs["metrics"]["eval_samples_per_second"]
        self.recorder.write()
