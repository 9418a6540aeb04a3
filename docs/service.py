"""An HTTP service that scores photos with a fitted model.

pip install fastapi uvicorn
INDAD_MODEL=results/models/.../seed0.safetensors uvicorn --app-dir docs service:app

curl --data-binary @photo.png http://127.0.0.1:8000/predict
"""

from __future__ import annotations

import io
import os
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from indad import load_model
from indad.core.errors import DataError

MOST_BYTES = 100_000_000


@asynccontextmanager
async def load(app: FastAPI):
    """Load the model once; all requests share it."""
    app.state.model = load_model(os.environ["INDAD_MODEL"])
    yield


app = FastAPI(title="indad", lifespan=load)


@app.post("/predict")
async def predict(request: Request) -> dict:
    """Score the photo in the body of the request: PNG, JPEG, TIFF, BMP or WebP."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"a photo may have at most {MOST_BYTES} bytes")
    return await run_in_threadpool(score, bytes(body))


def score(body: bytes) -> dict:
    """Score an encoded photo; several threads may do so at once."""
    try:
        result = app.state.model.predict(Image.open(io.BytesIO(body)))
    except (DataError, OSError, Image.DecompressionBombError) as error:
        raise HTTPException(422, f"the photo cannot be scored: {error}") from None
    return {
        "score": result.score,
        "anomalous": result.anomalous,
        "threshold": result.threshold,
        "regions": None if result.boxes is None else [box._asdict() for box in result.boxes],
    }


@app.get("/model")
async def describe() -> dict:
    """Return which model answers."""
    model = app.state.model
    return {"model": model.path.name, "threshold": model.threshold, "input_size": model.input_size}
