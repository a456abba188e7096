"""Damage to a file, as a disk or a killed process leaves it: for Hypothesis to draw."""

from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

Kind = Literal["flip", "truncate", "zero the rest", "zero 16 bytes", "append"]


@dataclass(frozen=True)
class Damage:
    """What happens to a file.

    Attributes:
        kind: of the damage.
        place: of the first byte that changes, from 0 (the file's start) to below 1 (its end).
        bit: that is flipped.
    """

    kind: Kind
    place: float
    bit: int

    def of(self, content: bytes) -> bytes:
        """The damaged content."""
        at = int(self.place * len(content))
        if self.kind == "flip":
            return content[:at] + bytes([content[at] ^ 1 << self.bit]) + content[at + 1 :]
        if self.kind == "truncate":
            return content[:at]
        if self.kind == "zero the rest":
            return content[:at] + bytes(len(content) - at)
        if self.kind == "zero 16 bytes":
            return content[:at] + bytes(len(content[at : at + 16])) + content[at + 16 :]
        return content + bytes([1 << self.bit]) * 16


DAMAGE = st.builds(
    Damage,
    kind=st.sampled_from(["flip", "flip", "truncate", "zero the rest", "zero 16 bytes", "append"]),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
