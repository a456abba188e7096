"""A pre-trained BERT as a Hugging Face folder: both heads, the tokenizer, and what it has read."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, BertForPreTraining

from src.data.fingerprints import save_hashes
from src.exporting.model_card import write_pretrainer_card
from src.models.archive import PretrainerArchive, load_weights
from src.models.folder import save_network, save_tokenizer
from src.runs.reading import Checkpoint
from src.system.errors import UserError
from src.system.quiet import quiet

_TOLERANCE = 1e-5
_ROWS = 8


def export_pretrainer(folder: Path, name: str, checkpoint: Checkpoint) -> list[str]:
    """Writes everything into `folder`, checks it against the checkpoint, and returns lines that say so.

    Args:
        folder: to write to.
        name: of the model.
        checkpoint: of a pre-training.

    Raises:
        UserError: what was written lacks weights, or gives other logits than the checkpoint.
    """
    archive = PretrainerArchive.of(checkpoint)
    network = BertForPreTraining._from_config(archive.config, dtype=torch.float32)
    load_weights(checkpoint, network)
    save_network(folder, network)
    # all positions of the network may be used in fine-tuning, however long the sequences were here
    save_tokenizer(folder, archive.tokenizer, archive.config.max_position_embeddings, "right")
    save_hashes(folder, archive.texts.numpy().view(np.uint64))
    difference = _difference(folder, network, archive.sequence_length)
    if not difference <= _TOLERANCE:  # NaN too
        raise UserError(f"the export failed its check: its logits differ by {difference:.1e}")
    write_pretrainer_card(folder, name, checkpoint.content, checkpoint.path, len(archive.texts))
    return [f"model.safetensors: logits of both heads as the checkpoint's, to {difference:.1e}, on random sequences"]


@torch.inference_mode()
def _difference(folder: Path, network: BertForPreTraining, length: int) -> float:
    """The largest between the logits of `network` and of what `transformers` reads from the folder."""
    ids = torch.randint(network.config.vocab_size, (_ROWS, length), generator=torch.Generator().manual_seed(0))
    expected = network.eval()(input_ids=ids)
    both, only_tokens = (_read(kind, folder)(input_ids=ids) for kind in (BertForPreTraining, AutoModelForMaskedLM))
    pairs = (
        (expected.prediction_logits, both.prediction_logits),
        (expected.seq_relationship_logits, both.seq_relationship_logits),
        (expected.prediction_logits, only_tokens.logits),
    )
    return max(float((a - b).abs().max()) for a, b in pairs)


def _read(kind: Any, folder: Path) -> Any:
    with quiet():
        network, report = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if report["missing_keys"]:
        raise UserError(f"the export failed its check: {kind.__name__} misses {sorted(report['missing_keys'])[0]}")
    return network
