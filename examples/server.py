"""A text classifier as a web service whose requests are answered in batches: pip install edgemin-hf fastapi uvicorn.

ARTEFACT=runs/quickstart/artefact uvicorn --app-dir examples server:app
curl -d '{"texts": ["Where is my card?"]}' -H 'content-type: application/json' localhost:8000/predict
"""

import asyncio
import os
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from edgemin_hf.runtime import load

LARGEST_BATCH = 32
WAIT = 0.002
"""Seconds for which the first request of a batch waits for others: a few passes of the graph, no more."""


class Texts(BaseModel):
    """What is asked."""

    texts: Annotated[list[str], Field(min_length=1, max_length=256)]


async def answer_batches(model, queue):
    """Take requests off the queue, answer as many together as came in a moment, and tell each its rows."""
    while True:
        asked = [await queue.get()]
        await asyncio.sleep(WAIT)
        while not queue.empty() and sum(len(texts) for texts, _ in asked) < LARGEST_BATCH:
            asked.append(queue.get_nowait())
        try:
            # In a thread: the graph leaves Python, and meanwhile further requests come in.
            rows = await asyncio.to_thread(model.predict_proba, [text for texts, _ in asked for text in texts])
        except Exception as error:  # is these requests' answer; the next ones are tried
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            continue
        first = 0
        for texts, future in asked:
            if not future.done():  # as it is where the client went
                future.set_result(rows[first : first + len(texts)])
            first += len(texts)


@asynccontextmanager
async def life(app):
    """Load the artefact before the first request, and check that it computes here what it should."""
    app.state.model, app.state.queue = load(os.environ["ARTEFACT"], verify=True), asyncio.Queue()
    task = asyncio.create_task(answer_batches(app.state.model, app.state.queue))
    yield
    task.cancel()


app = FastAPI(lifespan=life)


@app.post("/predict")
async def predict(asked: Texts, request: Request):
    """Return each text's label and its probability."""
    future = asyncio.get_running_loop().create_future()
    await request.app.state.queue.put((asked.texts, future))
    labels = request.app.state.model.labels
    return [{"label": labels[row.argmax()], "score": float(row.max())} for row in await future]
