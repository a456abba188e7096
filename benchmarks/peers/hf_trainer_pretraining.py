"""The peer for pre-training: `BertForPreTraining` trained by the Hugging Face Trainer.

    python -m benchmarks.peers.hf_trainer_pretraining --model DIR --rows DIR --output_dir DIR

The rows are prepared pairs of segments (`input_ids`, `token_type_ids`, `next_sentence_label`).
`DataCollatorForLanguageModeling` masks them anew in every batch, and pads to the longest row of the batch.
"""

import argparse
from pathlib import Path

from datasets import load_from_disk
from transformers import (
    AutoTokenizer,
    BertForPreTraining,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
    set_seed,
)

from benchmarks.peers.recorder_callback import HuggingFaceProbe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--output_dir", required=True)
    args = parser.parse_args()
    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    trainer = Trainer(
        model=BertForPreTraining.from_pretrained(args.model),
        args=TrainingArguments(
            output_dir=args.output_dir,
            num_train_epochs=1,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            weight_decay=0.01,
            warmup_steps=0.1,
            seed=args.seed,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=load_from_disk(args.rows),
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
        processing_class=tokenizer,
        callbacks=[HuggingFaceProbe()],
    )
    trainer.train()
    trainer.state.save_to_json(str(Path(args.output_dir) / "trainer_state.json"))


if __name__ == "__main__":
    main()
