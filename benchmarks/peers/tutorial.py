"""Peer A: the text classification tutorial's script with the Hugging Face Trainer, its settings left as they are.

    python -m benchmarks.peers.tutorial --model DIR --dataset reviews.csv --reviews 1000 --eval_reviews 500

Reviews are padded to the model's 512 tokens, in batches of 8, at learning rate 5e-5, over 3 epochs. What differs from
the tutorial: the rows (the same as ours), no evaluation within training, and a callback that reads the clock.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

from benchmarks.speed.probe import hugging_face_probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True, help="a csv with the columns text, label, source")
    parser.add_argument("--reviews", type=int, default=1000)
    parser.add_argument("--eval_reviews", type=int, default=500)
    parser.add_argument("--held_back", type=int, default=500, help="rows behind those evaluated, left alone")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--correct", type=Path, help="writes whether each evaluated row is right here (.npy)")
    parser.add_argument("--output_dir", required=True)
    args = parser.parse_args()
    set_seed(args.seed)

    dataset = load_dataset("csv", data_files=args.dataset, split="train")
    dataset = dataset.filter(lambda row: row["source"] == "imdb").shuffle(seed=42)
    end = len(dataset) - args.held_back
    train = dataset.select(range(args.reviews))
    evaluation = dataset.select(range(end - args.eval_reviews, end))

    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def tokenize(rows: dict[str, Any]) -> Any:
        return dict(tokenizer(rows["text"], padding="max_length", truncation=True)) | {"labels": rows["label"]}

    train = train.map(tokenize, batched=True, remove_columns=train.column_names)
    evaluation = evaluation.map(tokenize, batched=True, remove_columns=evaluation.column_names)

    def compute_metrics(prediction: Any) -> dict[str, float]:
        return {"accuracy": float((prediction.predictions.argmax(axis=-1) == prediction.label_ids).mean())}

    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2),
        args=TrainingArguments(
            output_dir=args.output_dir,
            num_train_epochs=args.epochs,
            max_steps=args.max_steps,
            seed=args.seed,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=train,
        eval_dataset=evaluation,
        compute_metrics=compute_metrics,
        callbacks=[hugging_face_probe()],
    )
    trainer.train()
    trainer.state.save_to_json(str(Path(args.output_dir) / "trainer_state.json"))
    if args.correct:
        predicted: Any = trainer.predict(evaluation)
        np.save(args.correct, predicted.predictions.argmax(axis=-1) == predicted.label_ids)
    elif args.max_steps < 0:
        print(trainer.evaluate())


if __name__ == "__main__":
    main()
