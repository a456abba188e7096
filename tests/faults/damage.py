"""Ways to damage a nested structure, such as a checkpoint's content or a JSON file: entries lost or of another type."""

import copy
import math
from typing import Any

import torch
from hypothesis import strategies as st

Place = tuple[Any, ...]
"""The keys that lead to an entry."""

LOST = object()
"""In place of an entry: it is not there."""

VALUES = (
    LOST,
    *(None, True, -1, 0, 1, 7, 10**12, 0.5, -0.5, 1e30, math.nan, math.inf),
    *("", "7", "x" * 1000, "../../x", "\0", "\ud800"),
    *([], ["x"], [[]], {}, {"x": 1}, {0: "x"}, (), ("x", 1)),
)

TENSORS = (
    torch.zeros(()),
    torch.tensor(3),
    torch.full((4,), math.nan),
    torch.zeros(2, 3, dtype=torch.int64),
    torch.zeros(0),
    torch.zeros(1).expand(10**12),
    torch.zeros(3, 3).to_sparse(),
    torch.zeros(3, device="meta"),
    torch.zeros(3, dtype=torch.complex64),
)


def paths(content: Any, path: Place = ()) -> list[Place]:
    """The paths of all entries at every level of dicts and lists, the outermost first."""
    found = [path] if path else []
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in entries:
        found += paths(value, (*path, key))
    return found


def damaged(content: Any, path: Place, value: Any) -> Any:
    """A copy of `content` with `value` at `path`; tensors are shared."""
    result = copy.copy(content)
    key, rest = path[0], path[1:]
    if rest:
        result[key] = damaged(content[key], rest, value)
    elif value is LOST:
        del result[key]
    else:
        result[key] = value
    return result


def places(content: Any) -> st.SearchStrategy[Place]:
    """Paths in `content`, the levels alike often, since most of the entries are at the innermost."""
    by_depth: dict[int, list[Place]] = {}
    for path in paths(content):
        by_depth.setdefault(len(path), []).append(path)
    return st.sampled_from(sorted(by_depth)).flatmap(lambda depth: st.sampled_from(by_depth[depth]))
