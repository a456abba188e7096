"""What a teacher is told: sentences that say what each class means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from src.system.errors import UserError
from src.system.yaml_reading import read_yaml


@dataclass(frozen=True)
class Lesson:
    """What a teacher is told.

    Attributes:
        sentences: of each class, by its name.
        prior: the share of the texts that each class has.
        keep: the share of the texts that is taught, the surest.
    """

    sentences: Mapping[str, Sequence[str]]
    prior: Mapping[str, float]
    keep: float

    @classmethod
    def read(cls, path: Path) -> Self:
        """The lesson of a YAML file, which has `sentences`, and may have `prior` (else equal) and `keep` (else 0.5).

        Raises:
            UserError: it cannot be read, or says something else.
        """
        try:
            content: Any = read_yaml(path)
        except (OSError, ValueError) as error:
            raise UserError(f"the sentences in {path} cannot be read: {error}") from error
        known = ("sentences", "prior", "keep")
        if not isinstance(content, dict) or "sentences" not in content or set(content) - set(known):
            raise UserError(f"{path} must have `sentences`, and may have `prior` and `keep`, and nothing else")
        sentences = content["sentences"]
        if not isinstance(sentences, dict) or len(sentences) < 2 or not all(map(_are_sentences, sentences.values())):
            raise UserError(f"{path}: `sentences` must be a list of sentences for each of two or more classes")
        if any(isinstance(name, bool) or not isinstance(name, str | int) for name in sentences):
            raise UserError(f"{path}: put the names of the classes between quotes, as YAML reads no and yes as others")
        named = {str(name): list(each) for name, each in sentences.items()}
        shares = content.get("prior", dict.fromkeys(sentences, 1 / len(sentences)))
        if not isinstance(shares, dict) or {str(name) for name in shares} != set(named):
            raise UserError(f"{path}: `prior` must have a share for each class of `sentences`, as in {{neg: 0.5, …}}")
        if not all(_is_share(share) for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
            raise UserError(f"{path}: `prior` is {shares}; these must be positive numbers whose sum is 1")
        keep = content.get("keep", 0.5)
        if not _is_share(keep):
            raise UserError(f"{path}: `keep` is {keep!r}; it must be a number above 0, at most 1")
        return cls(named, {str(name): float(share) for name, share in shares.items()}, float(keep))


def _are_sentences(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) and each.strip() for each in value)


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
