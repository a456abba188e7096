"""What `fit` prints at its end."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]


def test_a_pretraining_is_to_be_exported_and_fine_tuned(run_cli: Run, tiny_pretraining: list[str]) -> None:
    status, out, err = run_cli("fit", *tiny_pretraining, "--trainer.max_epochs=1")
    assert status == 0, err
    best = "lightning_logs/version_0/checkpoints/best.ckpt"
    assert "Best validation MLM loss: " in out
    assert f"Export it:       python -m src export --ckpt_path {best} --output my-bert\n" in out
    command = "python -m src fit --config configs/imdb.yaml --model.model_name_or_path my-bert"
    assert f"Fine-tune it:    {command}\n" in out
    assert "See the curves:  tensorboard --logdir lightning_logs\n" in out
