"""Whether products in bf16 are fast follows from the processor, and from what oneDNN is allowed to use."""

import pytest
import torch

from src.system.processor import multiplies_bf16


@pytest.mark.parametrize(
    ("has", "limit", "fast"),
    [
        ({"avx512_f": True}, None, False),
        ({"avx512_bf16": True}, None, True),
        ({"amx_bf16": True}, None, True),
        ({"avx512_bf16": True}, "ALL", True),
        ({"avx512_bf16": True}, "avx512_core_bf16", True),
        ({"avx512_bf16": True}, "AVX512_CORE", False),
        ({"amx_bf16": True}, "AVX2", False),
    ],
)
def test_bf16_is_fast(has: dict[str, bool], limit: str | None, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert multiplies_bf16() == fast
