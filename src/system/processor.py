"""What the processor can do."""

import os

import torch

_WITH_BF16 = ("BF16", "FP16", "AMX", "AVX10")


def multiplies_bf16() -> bool:
    """Whether the CPU has instructions for matrix products in bf16: AVX512-BF16 or AMX.

    Without them, bf16 is slower than fp32. PyTorch leaves products in bf16 to oneDNN, whose variable
    ONEDNN_MAX_CPU_ISA can rule them out: ONEDNN_MAX_CPU_ISA=AVX512_CORE.
    """
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
    if limit not in ("ALL", "DEFAULT") and not any(name in limit for name in _WITH_BF16):
        return False
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
