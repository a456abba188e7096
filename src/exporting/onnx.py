"""A classifier as ONNX: in fp32, and with its weight matrices quantised to 8 bits.

Both take `input_ids` and `attention_mask`, int64 of shape (rows, tokens), and give `logits`, float32 of shape
(rows, labels); rows and tokens are dynamic.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from src.models.kernels.last_layer import compute_last_layer_at_cls_only
from src.system.errors import UserError

# LayerNormalization is one operator since 17
_OPSET = 17


class _Logits(nn.Module):
    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def check_installed() -> None:
    """Raises UserError where the packages of the extra `onnx` are missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed, which --onnx and --int8 need: pip install -c constraints.txt -e '.[onnx]'"
        ) from error


def write_onnx(network: PreTrainedModel, path: Path) -> None:
    """Writes `network` in fp32, of ONNX's own operators.

    The exporter that traces is taken, not torch.export's: only its graph, with attention written out, is one in which
    ONNX Runtime's optimiser finds the attention (torch 2.13, onnxruntime 1.32), and it takes 1 second, not 10.
    """
    network = copy.deepcopy(network).cpu().eval()
    network.set_attn_implementation("eager")
    compute_last_layer_at_cls_only(network)
    rows = torch.ones((2, 8), dtype=torch.int64)
    mask = torch.ones_like(rows)
    mask[1, 4:] = 0
    axes = {0: "rows", 1: "tokens"}
    with warnings.catch_warnings(), _quiet(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of tracing; the export is checked on reviews of other shapes
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


def write_int8(source: Path, target: Path, network: PreTrainedModel) -> None:
    """Quantises the ONNX file `source` for ONNX Runtime: weights to 8 bits once, activations as they come.

    ONNX Runtime's transformer optimiser comes first: it joins attention, GELU and the norms into operators of its own,
    some of which have 8-bit kernels (QAttention), worth 1.09 times the speed here. In fp32 that won 1.04 times, too
    little to tie that file to one runtime.
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
        # by way of a file, which names the domain of the joined operators; a model in memory does not
        joined = target.with_suffix(".joined.onnx")
        fused.save_model_to_file(str(joined))
        quantize_dynamic(
            joined,
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            # 7 of the 8 bits: without VNNI, products of 8 and 8 bits are summed in 16, and would saturate
            reduce_range=True,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        joined.unlink()


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back what the libraries log of their passes; errors are exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
