"""Reads YAML that may be damaged or hostile: of bounded size, and with one kind of error."""

from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from src.system.errors import one_line

# the longest config here has 3,000; aliases may repeat a part of the file, and repeat that again (a billion laughs)
_MOST_CHARACTERS = 250_000


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        OSError: the file cannot be read.
        ValueError: as `parse_yaml`.
    """
    with path.open("rb") as stream:
        return parse_yaml(stream.read(4 * (_MOST_CHARACTERS + 1)))


def parse_yaml(content: bytes | str) -> Any:
    """The value of a YAML text.

    Raises:
        ValueError: it is no YAML in UTF-8, is too large once its aliases are resolved, or holds itself.
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"it has more than {_MOST_CHARACTERS:,} characters")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _count_characters(node, {}) > _MOST_CHARACTERS:
            raise ValueError(f"its aliases make it longer than {_MOST_CHARACTERS:,} characters")
        return loader.construct_document(node)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # what PyYAML raises where a value is not what its tag says, as in `!!int ""`
    except (yaml.YAMLError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(one_line(error)) from error


def _count_characters(node: yaml.Node, known: dict[yaml.Node, int | None]) -> int:
    """The characters of a node's scalars, and one for each node. `known` has None for a node that holds this one."""
    if node not in known:
        known[node] = None
        if isinstance(node, yaml.ScalarNode):
            known[node] = 1 + len(node.value)
        else:
            parts = chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
            known[node] = 1 + sum(_count_characters(part, known) for part in parts)
    count = known[node]
    if count is None:
        raise ValueError("it holds itself")
    return count
