"""`python -m src serve`: answers requests for predictions by HTTP."""

import importlib.util
import socket
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from src.system.errors import UsageError, UserError, tell
from src.system.imports import quick_imports

_DESCRIPTION = """\
Labels texts over HTTP: POST /predict takes {"text": "…"} or {"text": ["…", "…"]} as JSON. The texts of all requests
are computed in common batches. GET /health tells that the server answers, GET /openapi.json how it is asked, and /docs
shows that as a page, for which the browser loads Swagger UI from cdn.jsdelivr.net.
SIGTERM and SIGINT end it after the requests that have begun, which get a minute.
"""
_SECONDS_TO_FINISH = 60


def main(args: list[str]) -> int:
    """Runs `serve ARGS` and returns its exit status."""
    try:
        _serve(_parse(args))
    except (UserError, OSError) as error:
        return tell(error)
    return 0


def _parse(args: list[str]) -> Any:
    parser = ArgumentParser(
        prog="python -m src serve", description=_DESCRIPTION, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument(
        "--ckpt_path",
        required=True,
        help="a checkpoint (a file, or `best` or `last` of the newest run), a folder written by `export`, or an .onnx "
        "file in one",
    )
    parser.add_argument("--port", type=int, default=8000, help="TCP port; 0 takes a free one")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on. The default is reached from this machine only; 0.0.0.0 is all its networks: there "
        "are no passwords and no TLS, so put a proxy before it",
    )
    try:
        options = parser.parse_args(args)
    except ArgumentError as error:
        raise UsageError(str(error)) from error
    if not 0 <= options.port <= 65535:
        raise UsageError(f"--port is {options.port}; it must be between 0 and 65535")
    return options


def _serve(options: Any) -> None:
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"serve needs {package}: pip install -c constraints.txt -e '.[serve]'")
    with _listen(options.host, options.port) as listener:
        with quick_imports():
            import uvicorn

            from src.inference.classifier import load
            from src.runs.directories import find_model
            from src.serving.application import application

        classifier = load(find_model(options.ckpt_path))
        classifier.logits(["a"])  # what is wrong with the weights is told now, not to the first client
        config = uvicorn.Config(
            application(classifier, options.ckpt_path),
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"Serving {options.ckpt_path} on http://{host}:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UserError: the port is taken, or this machine has no such address.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]  # Python repeats the address
        raise UserError(f"cannot listen on {host}, port {port}: {reason}: name another --port or --host") from error
