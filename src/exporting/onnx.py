"""Export of a classifier to ONNX: in fp32, and with its weight matrices quantised to int8.

Both files take `input_ids` and `attention_mask`, int64 of shape (rows, tokens), and return `logits`, float32 of shape
(rows, labels). Rows and tokens are dynamic.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from src.data.tokenization import Encoder
from src.inference.classifier import pad
from src.models.kernels.last_layer import use_partial_last_layer
from src.system.errors import UserError, one_line

_OPSET = 17  # the first with LayerNormalization as one operator


class _Logits(nn.Module):
    """The network with logits as its only output, as the exporter needs it."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


_NOT_COVERED = {"longformer"}  # its traced graph fails on another number of rows


def check_family(config: PretrainedConfig) -> None:
    """Raises UserError if networks of this model type are known not to be exportable; others are tried."""
    if config.model_type in _NOT_COVERED:
        raise UserError(
            f"the model type {config.model_type!r} cannot be exported to ONNX: export it without --onnx and --int8"
        )


def check_installed() -> None:
    """Raises UserError if a package of the extra `onnx` is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed, which --onnx and --int8 need: pip install -c constraints.txt -e '.[onnx]'"
        ) from error


def write_onnx(network: PreTrainedModel, encoder: Encoder, path: Path) -> None:
    """Writes `network`, which reads the tokens of `encoder`, in fp32 with standard ONNX operators.

    This uses the tracing exporter and eager attention. In the graph of torch.export ONNX Runtime's optimiser does not
    find the attention (torch 2.13, onnxruntime 1.32), and it takes 10 seconds in place of 1.

    Raises:
        UserError: the exporter does not know what this network does.
    """
    network = copy.deepcopy(network).cpu().eval()
    network.set_attn_implementation("eager")
    use_partial_last_layer(network)
    # texts, since some networks look for the token at their end, of which one is padded
    windows = [windows[0] for windows in encoder.encode(["a", "a " * 8])]
    rows, mask = map(torch.from_numpy, pad(windows, encoder.tokenizer.pad_token_id or 0))
    axes = {0: "rows", 1: "tokens"}
    with warnings.catch_warnings(), _quiet(), torch.inference_mode():
        warnings.simplefilter("ignore")  # about tracing; the export is compared on reviews of other shapes
        try:
            torch.onnx.export(
                _Logits(network),
                (rows, mask),
                str(path),
                dynamo=False,
                opset_version=_OPSET,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "rows"}},
            )
        except (RuntimeError, TypeError, ValueError) as error:
            kind = network.config.model_type
            raise UserError(f"the model type {kind!r} cannot be exported to ONNX: {one_line(error)[:300]}") from error


def write_int8(source: Path, target: Path, network: PreTrainedModel) -> None:
    """Quantises the ONNX file `source` for ONNX Runtime: weights once, activations dynamically.

    ONNX Runtime's transformer optimiser first fuses attention, GELU and the norms into operators of its own, some of
    which have int8 kernels (QAttention). That made int8 1.09 times as fast, and fp32 1.04 times, which is too little to
    tie the fp32 file to one runtime.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer

    config = network.config
    with _quiet():
        fused = optimizer.optimize_model(
            str(source),
            model_type="bert",
            num_heads=getattr(config, "num_attention_heads", 0),
            hidden_size=getattr(config, "hidden_size", 0),
            opt_level=0,
        )
        # through a file, which names the domain of the fused operators; a model in memory does not
        fused_file = target.with_suffix(".fused.onnx")
        fused.save_model_to_file(str(fused_file))
        try:
            quantize_dynamic(
                fused_file,
                target,
                weight_type=QuantType.QInt8,
                per_channel=True,
                # 7 bits: CPUs without VNNI add up products of two 8-bit numbers in 16 bits, which would saturate
                reduce_range=True,
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        except ValueError as error:  # onnx does not notice that it could not write its intermediate files
            raise UserError(
                f"the int8 file could not be made ({one_line(error)}): is there space left for it and in $TMPDIR?"
            ) from error
        fused_file.unlink()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' warnings about their passes. Errors are exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
