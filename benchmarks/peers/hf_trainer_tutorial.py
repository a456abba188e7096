"""Peer A: the tutorial's text classification script for the Hugging Face Trainer, with the tutorial's settings.

    python -m benchmarks.peers.hf_trainer_tutorial --model DIR --dataset reviews.csv --reviews 1000 --eval_reviews 500

Reviews are padded to the model's 512 tokens; batch size 8, learning rate 5e-5, 3 epochs. Differences from the tutorial:
the rows (the same as ours), no evaluation during training, and a callback that measures time.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

from benchmarks.peers.recorder_callback import HuggingFaceProbe


def parse(doc: str | None) -> argparse.Namespace:
    """The options of both peers."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True, help="a csv with the columns text, label, source")
    parser.add_argument("--reviews", type=int, default=1000)
    parser.add_argument("--eval_reviews", type=int, default=500)
    parser.add_argument("--held_back", type=int, default=500, help="rows after the evaluated ones, not used")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--bf16", action="store_true", help="products in bf16, weights in fp32")
    parser.add_argument("--correct", type=Path, help="file for which evaluated rows are correct (.npy)")
    parser.add_argument("--output_dir", required=True)
    return parser.parse_args()


def select_rows(options: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Rows to train on, the first of the shuffled split; and rows to evaluate, the last before the held-back ones."""
    dataset = load_dataset("csv", data_files=options.dataset, split="train")
    dataset = dataset.filter(lambda row: row["source"] == "imdb").shuffle(seed=42)
    end = len(dataset) - options.held_back
    return dataset.select(range(options.reviews)), dataset.select(range(end - options.eval_reviews, end))


def settings(options: argparse.Namespace, **more: Any) -> TrainingArguments:
    """The Trainer's defaults, without checkpoints and reports."""
    return TrainingArguments(
        output_dir=options.output_dir,
        num_train_epochs=options.epochs,
        max_steps=options.max_steps,
        seed=options.seed,
        bf16=options.bf16,
        use_cpu=not torch.cuda.is_available(),  # the Trainer refuses bf16 on a CPU that it was not told of
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        **more,
    )


def accuracy(prediction: Any) -> dict[str, float]:
    """For the Trainer's `compute_metrics`."""
    return {"accuracy": float((prediction.predictions.argmax(axis=-1) == prediction.label_ids).mean())}


def train_and_evaluate(trainer: Trainer, evaluation: Dataset, options: argparse.Namespace) -> None:
    """Trains, then evaluates, unless `max_steps` cut the training short; or writes which rows are correct."""
    trainer.train()
    trainer.state.save_to_json(str(Path(options.output_dir) / "trainer_state.json"))
    if options.correct:
        predicted: Any = trainer.predict(evaluation)
        np.save(options.correct, predicted.predictions.argmax(axis=-1) == predicted.label_ids)
    elif options.max_steps < 0:
        print(trainer.evaluate())


def main() -> None:
    options = parse(__doc__)
    set_seed(options.seed)
    train, evaluation = select_rows(options)
    tokenizer = AutoTokenizer.from_pretrained(options.model)

    def tokenize(rows: dict[str, Any]) -> Any:
        return dict(tokenizer(rows["text"], padding="max_length", truncation=True)) | {"labels": rows["label"]}

    train = train.map(tokenize, batched=True, remove_columns=train.column_names)
    evaluation = evaluation.map(tokenize, batched=True, remove_columns=evaluation.column_names)
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2),
        args=settings(options),
        train_dataset=train,
        eval_dataset=evaluation,
        compute_metrics=accuracy,
        callbacks=[HuggingFaceProbe()],
    )
    train_and_evaluate(trainer, evaluation, options)


if __name__ == "__main__":
    main()
