"""Requests a second and their times: `serve`, beside `transformers.pipeline` behind FastAPI, with 1, 8 and 32 clients.

    python -m benchmarks.speed.serving            # two minutes on 2 cores
    python -m benchmarks.speed.serving --quick    # a smoke run that writes no results

Each request has one review, and each client sends the next one when it has the answer. Server and clients share the
machine's cores. All servers read one folder, written by `python -m src export`, whose model is trained for a few steps.
The answer to each review is known from asking for it alone. `litserve` is measured where it is installed.
"""

import argparse
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT, WORK, ours
from benchmarks.report import markdown_table, publish
from benchmarks.speed.prediction import export, read_texts

SERVERS = {
    "pipeline": "transformers.pipeline behind FastAPI",
    "plain": "our classifier behind FastAPI, a text at a time",
    "litserve": "our classifier behind LitServe, batches of 8",
    "serve": "`python -m src serve`",
}
CLIENTS = (1, 8, 32)
_HOST = "127.0.0.1"


# ---- servers ---------------------------------------------------------------------------------------------------------


def serve(name: str, folder: Path, port: int) -> None:
    """Runs one of the servers that `serve` is compared with, in this process."""
    import uvicorn
    from fastapi import FastAPI

    from src.serving.application import Question

    classify = _pipeline(folder) if name == "pipeline" else classify_with(folder)
    app, lock = FastAPI(), threading.Lock()

    @app.post("/predict")
    def predict(question: Question) -> dict[str, Any]:
        with lock:  # threads that compute at once are slower
            return {"predictions": [{"label": classify([str(question.text)])[0]}]}

    uvicorn.run(app, host=_HOST, port=port, log_level="warning", access_log=False)


def _pipeline(folder: Path) -> Callable[[list[str]], list[str]]:
    from transformers import pipeline

    classify = pipeline("text-classification", str(folder), truncation=True)
    return lambda texts: [answer["label"] for answer in classify(texts)]


def classify_with(folder: Path) -> Callable[[list[str]], list[str]]:
    """Texts to labels, by our classifier of a folder."""
    from src.inference.classifier import load

    classifier = load(folder)
    return lambda texts: [classifier.labels[i] for i in classifier.logits(texts).argmax(axis=-1)]


@contextmanager
def running(name: str, folder: Path, port: int) -> Iterator[None]:
    """Starts a server, waits until it answers, and ends it afterwards."""
    module = "benchmarks.speed.litserve_server" if name == "litserve" else "benchmarks.speed.serving"
    one = [sys.executable, "-m", module, "--one", name, "--folder", str(folder)]
    command = ours("serve", "--ckpt_path", str(folder)) if name == "serve" else one
    log = WORK / "logs" / f"serving-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    ask(connect(port), "a")
                    break
                except (OSError, ValueError, http.client.HTTPException):
                    if process.poll() is not None or time.monotonic() > end:
                        sys.exit(f"error: {name} does not answer: {log.read_text()[-500:]}")
                    time.sleep(0.2)
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            with suppress(ProcessLookupError):  # LitServe's workers outlive it
                os.killpg(process.pid, signal.SIGKILL)


# ---- clients ---------------------------------------------------------------------------------------------------------


def connect(port: int) -> http.client.HTTPConnection:
    """A connection that is kept for the requests of a client."""
    return http.client.HTTPConnection(_HOST, port, timeout=60)


def ask(connection: http.client.HTTPConnection, text: str) -> str:
    """The label of a text."""
    connection.request("POST", "/predict", json.dumps({"text": text}), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    return str(answer["predictions"][0]["label"])


def load(port: int, clients: int, texts: Sequence[str], known: Sequence[str], seconds: float) -> Mapping[str, float]:
    """Requests a second, median and 99th percentile of their times, and answers that are wrong or missing."""
    times: list[float] = []
    wrong = count()
    numbers = count()
    end = time.monotonic() + seconds

    def client() -> None:
        connection = connect(port)
        while (started := time.monotonic()) < end:
            i = next(numbers) % len(texts)
            try:
                if ask(connection, texts[i]) != known[i]:
                    next(wrong)
            except (OSError, ValueError, KeyError, http.client.HTTPException):
                next(wrong)
                connection = connect(port)
            times.append(time.monotonic() - started)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = np.percentile(times, [50, 99])
    return {"rate": len(times) / (time.monotonic() - begun), "p50": p50, "p99": p99, "wrong": next(wrong)}


def render(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """A row for each server; a cell for each number of clients."""
    rows = [
        [SERVERS[name]]
        + [f"{cell['rate']:.1f} / {1000 * cell['p50']:,.0f} / {1000 * cell['p99']:,.0f}" for cell in cells]
        + [sum(int(cell["wrong"]) for cell in cells)]
        for name, cells in found.items()
    ]
    header = ["requests/s / p50 / p99, ms", *(f"{n} client{'s' * (n > 1)}" for n in CLIENTS), "wrong or lost"]
    return markdown_table(header, rows)


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a second each: a smoke run that writes no results")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--one", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=WORK / "runs" / "served", help="an exported model")
    parser.add_argument("--port", type=int, default=8642)
    given = parser.parse_args(args)
    if given.one:
        serve(given.one, given.folder, given.port)
        return
    if not given.folder.is_dir():
        print("Exporting the model to measure", flush=True)
        export(None, given.folder)
    texts = read_texts(8 if given.quick else 48)
    seconds = 1 if given.quick else 6
    found: dict[str, list[Mapping[str, float]]] = {}
    for port, name in enumerate(given.servers, start=given.port):
        if name == "litserve" and importlib.util.find_spec("litserve") is None:
            continue
        with running(name, given.folder, port):
            alone = connect(port)
            known = [ask(alone, text) for text in texts]
            found[name] = [load(port, clients, texts, known, seconds) for clients in CLIENTS]
            print(name, found[name], flush=True)
    table = render(found)
    body = f"{len(texts)} real reviews of at most 256 tokens, one a request, {seconds} s a cell, once.\n\n{table}"
    publish("Serving", body, "benchmarks.speed.serving", args, None if given.quick else "serving")


if __name__ == "__main__":
    main()
