"""Launch variables with impossible values are refused before any wait."""

import pytest

from src.system.errors import UserError
from src.system.rendezvous import check_launch_variables, check_rendezvous


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"MASTER_PORT": "abc"}, "MASTER_PORT=abc must be a whole number"),
        ({"MASTER_PORT": "99999"}, "from 1 to 65535"),
        ({"MASTER_PORT": "0"}, "from 1 to 65535"),
        ({"RANK": "x"}, "RANK=x"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK=-1"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 must be below WORLD_SIZE=2"),
    ],
)
def test_refused(values: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words):
        check_launch_variables()


def test_a_node_that_the_run_does_not_have() -> None:
    with pytest.raises(UserError, match=r"NODE_RANK=2 must be below trainer\.num_nodes=2"):
        check_rendezvous(node_rank=2, num_nodes=2)


def test_an_unknown_host_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "nohost.invalid")
    monkeypatch.setattr("src.system.rendezvous._SECONDS_FOR_A_NAME", 0.0)
    with pytest.raises(UserError, match=r"MASTER_ADDR=nohost\.invalid is no host"):
        check_rendezvous(node_rank=0, num_nodes=1)
