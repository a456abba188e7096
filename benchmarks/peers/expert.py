"""Peer B: the Hugging Face Trainer as someone would set it who knows it well.

    python -m benchmarks.peers.expert --model DIR --dataset reviews.csv --reviews 1000 --eval_reviews 500

As peer A, but each batch is padded to its own longest review, and batches are of reviews of like length. The batches
for evaluation stay at 8: in random order larger ones have more padding.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import transformers.trainer_pt_utils
from datasets import load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from benchmarks.speed.probe import hugging_face_probe

# batches that the Trainer sorts by length at a time, with 1,000 reviews in batches of 8
_SORTED_BATCHES = 31


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
    parser.add_argument("--bf16", action="store_true", help="for GPUs: products in bf16, the weights in fp32")
    parser.add_argument("--correct", type=Path, help="writes whether each evaluated row is right here (.npy)")
    parser.add_argument("--output_dir", required=True)
    args = parser.parse_args()
    set_seed(args.seed)

    if args.reviews < 1000:
        # The Trainer sorts a quarter of a small data set at a time: with 248 reviews it would compute 11% of padding,
        # with the 1,000 that they stand for 3%. So that the sample is fair to it, it sorts here as it does with 1,000.
        plan = transformers.trainer_pt_utils.get_length_grouped_indices
        transformers.trainer_pt_utils.get_length_grouped_indices = partial(plan, mega_batch_mult=_SORTED_BATCHES)

    dataset = load_dataset("csv", data_files=args.dataset, split="train")
    dataset = dataset.filter(lambda row: row["source"] == "imdb").shuffle(seed=42)
    end = len(dataset) - args.held_back
    train = dataset.select(range(args.reviews))
    evaluation = dataset.select(range(end - args.eval_reviews, end))

    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def tokenize(rows: dict[str, Any]) -> Any:
        encoded = tokenizer(rows["text"], truncation=True)
        return dict(encoded) | {"labels": rows["label"], "length": [len(ids) for ids in encoded["input_ids"]]}

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
            bf16=args.bf16,
            train_sampling_strategy="group_by_length",
            logging_steps=10,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=train,
        eval_dataset=evaluation,
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
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
