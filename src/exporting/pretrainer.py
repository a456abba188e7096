"""Export of a pre-trained BERT: a Hugging Face folder with both heads, the tokenizer, and hashes of its corpus."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, BertForPreTraining, PreTrainedModel

from src.data.fingerprints import save_hashes
from src.exporting.model_card import write_pretrainer_card
from src.models.checkpoint_format import PretrainerArchive, load_weights
from src.models.exported_folder import save_network, save_tokenizer
from src.runs.checkpoint_reading import Checkpoint
from src.system.errors import UserError
from src.system.pretrained import new_network
from src.system.quiet import quiet

_TOLERANCE = 1e-5
_ROWS = 8


def export_pretrainer(folder: Path, name: str, checkpoint: Checkpoint, repository: str | None = None) -> list[str]:
    """Writes a pre-trained BERT to `folder`, compares it with the checkpoint, and reports the difference in one line.

    Args:
        folder: an empty folder.
        name: of the model, for the card.
        checkpoint: of a `BertPretrainer`.
        repository: of the Hub that the folder will be uploaded to, for the card.

    Raises:
        UserError: the folder lacks weights, or gives other logits than the checkpoint.
    """
    archive = PretrainerArchive.of(checkpoint)
    with torch.device("meta"):  # names and shapes first, which take no memory
        load_weights(checkpoint, new_network(AutoModelForPreTraining, archive.config))
    network = new_network(AutoModelForPreTraining, archive.config)
    assert isinstance(network, BertForPreTraining)
    load_weights(checkpoint, network)
    save_network(folder, network)
    # fine-tuning may use all positions of the network, whatever the sequence length of the pre-training
    save_tokenizer(folder, archive.tokenizer, archive.config.max_position_embeddings, "right")
    save_hashes(folder, archive.texts.numpy().view(np.uint64))
    difference = _difference(folder, network, archive.sequence_length)
    if not difference <= _TOLERANCE:  # NaN too
        raise UserError(f"the export failed its check: its logits differ by {difference:.1e}")
    write_pretrainer_card(folder, name, checkpoint, len(archive.texts), repository)
    return [f"model.safetensors: logits of both heads as the checkpoint's, to {difference:.1e}, on random sequences"]


@torch.inference_mode()
def _difference(folder: Path, network: BertForPreTraining, length: int) -> float:
    """The largest difference in a logit between `network` and the model that `transformers` loads from the folder."""
    ids = torch.randint(network.config.vocab_size, (_ROWS, length), generator=torch.Generator().manual_seed(0))
    expected = network.eval()(input_ids=ids)
    both = _read(AutoModelForPreTraining, folder)(input_ids=ids)
    pairs = (
        (expected.prediction_logits, both.prediction_logits),
        (expected.seq_relationship_logits, both.seq_relationship_logits),
        (expected.prediction_logits, _read(AutoModelForMaskedLM, folder)(input_ids=ids).logits),
    )
    return max(float((a - b).abs().max()) for a, b in pairs)


def _read(kind: type[AutoModelForPreTraining] | type[AutoModelForMaskedLM], folder: Path) -> PreTrainedModel:
    with quiet():
        network, report = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if report["missing_keys"]:
        raise UserError(f"the export failed its check: {kind.__name__} lacks {sorted(report['missing_keys'])[0]}")
    result: PreTrainedModel = network
    return result
