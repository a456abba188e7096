"""The server of `benchmarks.speed.serving` that is LitServe: our classifier, batched by it.

Its workers are started anew and import this file, so the class stands alone.
"""

import argparse
from pathlib import Path
from typing import Any

import litserve

from benchmarks.speed.serving import classify_with


class Api(litserve.LitAPI):
    def __init__(self, folder: Path) -> None:
        super().__init__(max_batch_size=8, batch_timeout=0.005)
        self.folder = folder

    def setup(self, device: str) -> None:
        self.classify = classify_with(self.folder)

    def decode_request(self, request: dict[str, str]) -> str:
        return request["text"]

    def predict(self, x: list[str]) -> list[str]:
        return self.classify(x)

    def encode_response(self, output: str) -> dict[str, Any]:
        return {"predictions": [{"label": output}]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--one")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    server = litserve.LitServer(Api(given.folder), accelerator="cpu")
    server.run(host="127.0.0.1", port=given.port, generate_client_file=False)
