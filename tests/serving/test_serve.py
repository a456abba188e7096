"""`serve`, by HTTP from outside: whose answer is whose, what is refused and how, and the end."""

import asyncio
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.inference.classifier import load, probabilities
from src.serving import batching
from src.serving.batching import Batcher, BusyError
from tests.docs.pages import blocks
from tests.docs.test_commands import HOW_TO
from tests.processes import wait
from tests.serving.conftest import serving
from tests.synthetic import WORDS

Run = Callable[..., tuple[int, str, str]]
JSON = "application/json"


def ask(port: int, method: str, path: str, body: bytes | None = None, kind: str = JSON) -> tuple[int, Any]:
    """The status and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if answer.headers["Content-Type"] == JSON else content.decode()
    finally:
        connection.close()


def predict(port: int, text: str | list[str]) -> list[dict[str, Any]]:
    status, answer = ask(port, "POST", "/predict", json.dumps({"text": text}).encode())
    assert status == 200, answer
    found: list[dict[str, Any]] = answer["predictions"]
    return found


# ---- answers -------------------------------------------------------------------------------------------------------


def test_a_text_or_a_list_gets_what_the_classifier_says(port: int, model: Path) -> None:
    texts = ["great " * 200, "", "awful", " \n", "wonderful\0film"]
    answers = predict(port, texts)
    classifier = load(model)
    expected = probabilities(classifier.logits([texts[i] for i in (0, 2, 4)]), classifier.task)
    for answer, of_text in zip([answers[i] for i in (0, 2, 4)], expected, strict=True):
        assert answer["label"] == classifier.labels[of_text.argmax()]
        assert answer["score"] == pytest.approx(of_text.max(), abs=2e-6)
        assert list(answer["probabilities"].values()) == pytest.approx(list(of_text), abs=2e-6)
    empty = {"label": None, "score": None, "probabilities": None}
    assert [answers[1], answers[3]] == [empty, empty]
    assert predict(port, "awful")[0]["score"] == pytest.approx(answers[2]["score"], abs=2e-6)


def test_no_request_is_lost_or_answered_with_anothers_label(port: int, model: Path) -> None:
    """24 clients at once, with texts of both labels and of many probabilities."""
    rng = np.random.default_rng(0)
    of_label = [WORDS[:5] + WORDS[10:], WORDS[5:]]  # without the words of the other label
    texts = [" ".join(rng.choice(of_label[i % 2], size=int(n))) for i, n in enumerate(rng.integers(2, 40, size=120))]
    classifier = load(model)
    expected = probabilities(classifier.logits(texts), classifier.task)[:, 0]
    assert 30 < (expected > 0.5).sum() < 90
    assert len(set(expected.round(5))) > 10
    with ThreadPoolExecutor(24) as clients:
        found = list(clients.map(lambda i: predict(port, texts[i % 120])[0]["probabilities"]["neg"], range(480)))
    np.testing.assert_allclose(found, np.tile(expected, 4), atol=2e-6)


def test_health_and_the_description_of_the_interface(port: int, model: Path) -> None:
    status, health = ask(port, "GET", "/health")
    assert (status, health) == (200, {"status": "ok", "model": str(model), "labels": ["neg", "pos"]})
    assert ask(port, "GET", "/openapi.json")[1]["paths"].keys() >= {"/predict", "/health"}
    assert "swagger" in ask(port, "GET", "/docs")[1]


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_the_requests_of_the_how_to_work(port: int) -> None:
    lines = [line for code in blocks(HOW_TO, "bash") for line in code.splitlines() if line.startswith("curl ")]
    assert len(lines) == 3
    for line, awaited in zip(lines, ("predictions", "predictions", "status"), strict=True):
        words = shlex.split(line.replace(":8000", f":{port}"))
        assert awaited in json.loads(subprocess.check_output(["curl", "-s", *words[1:]]))


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b'{"text": ', 422, "no JSON"),
        (b'{"text": "a\0b"}', 422, "no JSON"),
        (b"", 422, "Content-Type"),
        (b"[]", 422, "Content-Type"),
        (b"{}", 422, "text: Field required"),
        (b'{"text": null}', 422, "text: Input should be a valid string"),
        (b'{"text": []}', 422, "text: List should have at least 1 item"),
        (b'{"text": ["a", 3]}', 422, "text.1: Input should be a valid string"),
        (b'{"text": "\\ud83d"}', 422, "text: Input should be a valid string"),
        (b"\xff\xfe", 422, "no JSON"),
        (b"[" * 100_000, 422, "no JSON: it is not in UTF-8, or nested too deeply"),
        (b'{"text": "\xff"}', 422, "no JSON: it is not in UTF-8"),
        (json.dumps({"text": "a " * 500_000}).encode(), 422, "text: String should have at most 100000 characters"),
        (json.dumps({"text": ["a"] * 10_000}).encode(), 422, "text: List should have at most 256 items"),
        (b'{"text": "' + b"a " * 4_000_000 + b'"}', 413, "Too Large"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(port: int, body: bytes, status: int, words: str) -> None:
    found, answer = ask(port, "POST", "/predict", body)
    assert found == status
    said = answer if isinstance(answer, str) else answer["detail"]
    assert words in said
    assert len(said) < 200
    assert predict(port, "great")[0]["label"] == "pos"


def test_json_needs_its_content_type(port: int) -> None:
    status, answer = ask(port, "POST", "/predict", b'{"text": "a"}', "application/x-www-form-urlencoded")
    assert status == 422
    assert "Content-Type: application/json" in answer["detail"]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--port=70000"], 2, "between 0 and 65535"),
        (["--port=http"], 2, "port"),
        (["--host=192.0.2.1", "--port=0"], 1, "cannot listen on 192.0.2.1"),
        (["--port=0", "--ckpt_path=nowhere.ckpt"], 1, "no checkpoint nowhere.ckpt"),
        (["--port=0", "--ckpt_path=."], 1, "no config.json"),
    ],
)
def test_mistakes_are_told_in_one_line(options: list[str], status: int, words: str, run_cli: Run, model: Path) -> None:
    found, _, err = run_cli("serve", f"--ckpt_path={model}", *options)
    assert found == status
    assert len(err.splitlines()) == 1
    assert words in err


def test_a_port_that_is_taken_is_told_in_one_line(port: int, run_cli: Run, model: Path) -> None:
    status, _, err = run_cli("serve", f"--ckpt_path={model}", f"--port={port}")
    assert status == 1
    assert (
        err
        == f"error: cannot listen on 127.0.0.1, port {port}: Address already in use: name another --port or --host\n"
    )


def test_a_missing_extra_is_named(run_cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    status, _, err = run_cli("serve", "--ckpt_path=best")
    assert status == 1
    assert err == "error: serve needs uvicorn: pip install -c constraints.txt -e '.[serve]'\n"


# ---- the page ------------------------------------------------------------------------------------------------------


def test_the_page_and_its_parts_come_from_here_and_may_load_nothing_else(port: int) -> None:
    for path in ("/", "/page.js", "/shading.js", "/shading.css"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        assert "default-src 'none'; script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "://" not in answer.read().decode()
        connection.close()


def test_an_explanation_has_the_whole_text_and_its_windows(port: int, model: Path) -> None:
    text = "the film was great <b>, " * 30 + "awful \U0001f642"
    status, found = ask(port, "POST", "/explain", json.dumps({"text": f" {text} "}).encode())
    assert status == 200
    assert "".join(piece["text"] for piece in found["pieces"]) == text
    assert found["together"] == 2
    assert len(found["windows"]) == len(load(model).encoder.encode([text])[0]) > 1
    assert found["label"] == found["for"] == "pos"
    assert found["against"] == "neg"
    prediction = predict(port, text)[0]
    assert found["score"] == pytest.approx(prediction["score"], abs=2e-6)


@pytest.mark.parametrize(
    ("text", "words"), [(" \n", "at least 1 character"), ("a " * 10_001, "at most 20000 characters")]
)
def test_a_text_that_is_not_explained(port: int, text: str, words: str) -> None:
    status, found = ask(port, "POST", "/explain", json.dumps({"text": text}).encode())
    assert status == 422
    assert words in found["detail"]


@pytest.mark.parametrize("text", ["\0", "\x1c", "\u200b", "x"])
def test_a_text_without_words_is_explained(port: int, text: str) -> None:
    status, found = ask(port, "POST", "/explain", json.dumps({"text": text}).encode())
    assert status == 200
    assert "".join(piece["text"] for piece in found["pieces"]) == text


# ---- clients that go, and the end ----------------------------------------------------------------------------------


def test_a_client_that_goes_away_leaves_the_server_working(port: int) -> None:
    body = json.dumps({"text": ["great " * 50] * 256}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for sent in (head[:20], head, head + body[:50], head + body):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(sent)
    assert predict(port, "great")[0]["label"] == "pos"


def test_what_nobody_waits_for_is_not_computed_and_a_full_queue_refuses(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = load(model)
    begun, going_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def slow(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        begun.set()
        assert going_on.wait(30)
        seen.extend(ids[:, 0])
        return classifier.network(ids, mask)

    async def calls() -> None:
        batcher = Batcher(replace(classifier, network=slow), 2)
        computing = asyncio.create_task(batcher.run())
        first = asyncio.create_task(batcher.logits([[1]]))
        await asyncio.to_thread(begun.wait, 30)
        left, stays = (asyncio.create_task(batcher.logits([[i]] * 3)) for i in (2, 3))
        await asyncio.sleep(0)
        monkeypatch.setattr(batching, "_MOST_WAITING", 6)
        with pytest.raises(BusyError):
            await batcher.logits([[4]] * 3)
        left.cancel()
        await asyncio.sleep(0)  # it leaves
        last = asyncio.create_task(batcher.logits([[4]] * 3))
        going_on.set()
        assert (await first).shape == (1, 2)
        np.testing.assert_allclose(await stays, np.repeat(classifier.logits_of_tokens([[[3]]]), 3, axis=0), atol=1e-6)
        await last
        computing.cancel()

    asyncio.run(calls())
    assert seen == [1, 3, 3, 3, 4, 4, 4]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_what_is_in_flight(model: Path, signum: int) -> None:
    body = json.dumps({"text": "great"}).encode()
    with serving(model, Path("log")) as (port, process):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.putrequest("POST", "/predict")
        connection.putheader("Content-Type", JSON)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:4])
        assert ask(port, "GET", "/health")[0] == 200  # so it has seen the headers before
        assert process.pid is not None
        os.kill(process.pid, signum)
        process.join(0.5)
        assert process.is_alive()
        with pytest.raises(OSError):  # noqa: PT011
            ask(port, "GET", "/health")
        connection.send(body[4:])
        answer = connection.getresponse()
        assert json.loads(answer.read())["predictions"][0]["label"] == "pos"
        assert wait(process, 30) == 128 + signum
    assert Path("log").read_text().splitlines()[1:] == [f"stopped by {signal.Signals(signum).name}"]
