"""The example service of docs/service.py answers real requests as `predict` scores."""

from __future__ import annotations

import importlib.util
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import uvicorn

from conftest import ROOT
from drawn_model import RESNET, make_model, save_photos
from indad.evaluation.calibration import Threshold


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path, RESNET, "padim", dimensions=5)


@pytest.fixture
def address(model, monkeypatch):
    """The address of a running service."""
    spec = importlib.util.spec_from_file_location("service", ROOT / "docs/service.py")
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    monkeypatch.setattr(service, "load_model", lambda path: model if path == "M" else None)
    monkeypatch.setenv("INDAD_MODEL", "M")
    server = uvicorn.Server(uvicorn.Config(service.app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def test_requests_of_several_threads_get_the_results_of_predict(tmp_path, model, address):
    images = save_photos(tmp_path)[:4] * 4

    def ask(image):
        with requests.Session() as session:
            session.trust_env = False  # no proxy
            return session.post(f"{address}/predict", data=image.read_bytes(), timeout=60)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, images))
    for image, answer in zip(images, answers, strict=True):
        assert answer.status_code == 200, answer.text
        found, expected = answer.json(), model.predict(image)
        assert found["score"] == expected.score
        assert found["anomalous"] is expected.anomalous
        assert found["threshold"] == model.threshold.score
        assert found["regions"] == [box._asdict() for box in expected.boxes]


def test_what_is_not_a_photo_is_an_error_of_the_client(model, address):
    model.threshold = Threshold(1.5, None, "given")
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(f"{address}/predict", data=b"no photo", timeout=60)
        assert answer.status_code == 422
        assert "the photo cannot be scored: cannot identify image file" in answer.json()["detail"]
        found = session.get(f"{address}/model", timeout=60).json()
    assert found["threshold"]["score"] == 1.5
    assert found["input_size"] == [64, 76]
