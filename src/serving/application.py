"""The web application of `serve`: predictions by HTTP as JSON, and a page to try them."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Discriminator, Field, StringConstraints, Tag

from src import __version__
from src.inference.classifier import Classifier, mean_over_windows, probabilities
from src.inference.explaining import words as explaining
from src.inference.prediction import BATCH_SIZE_CPU, BATCH_SIZE_GPU
from src.serving.batching import Batcher, BusyError

MOST_TEXTS = 256
MOST_CHARACTERS = 100_000
MOST_CHARACTERS_EXPLAINED = 20_000
_MOST_BYTES = 4 * 2**20
_MOST_GROUPS = 100  # of words that are left out in turn: each costs as much as a text
_SHADING = Path(explaining.__file__).parent / "page"
_PAGE = Path(__file__).parent / "page"
_PAGE_FILES = {
    "": (_PAGE / "index.html", "text/html"),
    "page.js": (_PAGE / "page.js", "text/javascript"),
    "shading.js": (_SHADING / "shading.js", "text/javascript"),
    "shading.css": (_SHADING / "shading.css", "text/css"),
}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

T = TypeVar("T")
Text = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]


def _kind(value: Any) -> str:
    return "list" if isinstance(value, list) else "one"


class Question(BaseModel):
    """One text, or a list of them."""

    text: Annotated[Annotated[Text, Tag("one")] | Annotated[Texts, Tag("list")], Discriminator(_kind)]


class Passage(BaseModel):
    """One text that is not empty."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MOST_CHARACTERS_EXPLAINED)]


class Prediction(BaseModel):
    """What an output file of `predict` says of a text; all is null for an empty one.

    `score` is the probability of the label, null for a model that may give a text several labels.
    """

    label: str | list[str] | None = None
    score: float | None = None
    probabilities: dict[str, float] | None = None


class Answer(BaseModel):
    """The predictions, in the order of the texts."""

    predictions: list[Prediction]


class Refusal(BaseModel):
    """Why there is no answer, in words."""

    detail: str


class Health(BaseModel):
    """That the server answers, and for what."""

    status: str
    model: str
    labels: list[str]


def application(classifier: Classifier, name: str) -> FastAPI:
    """The application of a classifier.

    Args:
        name: of the model, for people.
    """
    batcher = Batcher(classifier, BATCH_SIZE_GPU if classifier.on_gpu else BATCH_SIZE_CPU)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        computing = asyncio.create_task(batcher.run())
        yield
        computing.cancel()

    refusals: dict[int | str, dict[str, Any]] = {status: {"model": Refusal} for status in (422, 503)}
    app = FastAPI(title=name, version=__version__, lifespan=lifespan, max_body_size=_MOST_BYTES, responses=refusals)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(400, _refuse_bytes)

    @app.get("/health")
    async def health() -> Health:
        return Health(status="ok", model=name, labels=classifier.labels)

    @app.post("/predict")
    async def predict(question: Question, request: Request) -> Answer:
        texts = [question.text] if isinstance(question.text, str) else question.text
        return Answer(predictions=await unless_gone(request, _predictions(batcher, texts)))

    @app.post("/explain")
    async def explain(passage: Passage, request: Request) -> dict[str, Any]:
        """Also how much the score falls without each word, or without some words together if there are many."""
        return await unless_gone(request, _explanation(batcher, passage.text))

    def show(page: str) -> Any:
        path, kind = _PAGE_FILES[page]
        return lambda: Response(path.read_bytes(), headers=_PAGE_HEADERS, media_type=kind)

    for page in _PAGE_FILES:
        app.get(f"/{page}", include_in_schema=False)(show(page))
    return app


async def _explanation(batcher: Batcher, text: str) -> dict[str, Any]:
    classifier = batcher.classifier
    words = await run_in_threadpool(explaining.Words.of, text, classifier.encoder)
    groups = words.groups(_MOST_GROUPS)
    logits = await batcher.logits([*words.windows, *(words.without(*group) for group in groups)])
    weights = explaining.weights_by_leaving_out(words, groups, logits, classifier.task)
    found = explaining.explanation(words, weights, logits[: len(words.windows)], classifier.task)
    return {**found, "together": max((len(together) for _, together in groups), default=1)}


async def _predictions(batcher: Batcher, texts: list[str]) -> list[Prediction]:
    classifier = batcher.classifier
    some = [text for text in texts if text.strip()]
    if not some:
        return [Prediction() for _ in texts]
    encoded = await run_in_threadpool(classifier.encoder.encode, some)
    logits = await batcher.logits([window for windows in encoded for window in windows])
    logits = mean_over_windows(logits, [len(windows) for windows in encoded])
    found = iter(probabilities(logits, classifier.task).tolist())
    return [prediction(classifier, next(found)) if text.strip() else Prediction() for text in texts]


def prediction(classifier: Classifier, of_text: list[float]) -> Prediction:
    """What the probabilities of a text say."""
    answer = dict(zip(classifier.task.answer_fields, classifier.task.answer(of_text), strict=True))
    return Prediction(**answer, probabilities=dict(zip(classifier.labels, of_text, strict=True)))


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled where the client goes away first.

    Raises:
        HTTPException: too much work is waiting already.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not working.done():
        working.cancel()
        raise HTTPException(499, "the client has gone")  # nobody reads it
    try:
        return working.result()
    except BusyError as error:
        raise HTTPException(503, "the server has too much to do: try again later", {"Retry-After": "10"}) from error


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    """One sentence, where FastAPI would send back what it was given, however long."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:] if part not in ("one", "list"))
    words = f"{where}: {first['msg']}"
    if first["type"] == "json_invalid":
        words = f"the body is no JSON (character {where}): {first['ctx']['error']}"
    elif not where:
        words = 'send {"text": "…"} with the header Content-Type: application/json'
    return JSONResponse({"detail": words}, 422)


async def _refuse_bytes(_: Request, __: Exception) -> JSONResponse:
    """FastAPI says 400 of what it cannot even parse."""
    return JSONResponse({"detail": "the body is no JSON: it is not in UTF-8, or nested too deeply"}, 422)
