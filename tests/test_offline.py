"""What needs the network is fetched by the head; the jobs on the nodes run without one."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

import weights
from conftest import make_job
from indad.core.errors import WeightsError
from indad.features.backbone import load_backbone
from indad.features.checkpoint import own_tensors
from indad.features.store import FeatureStore
from small_run import METRICS, plan, succeed

pytestmark = pytest.mark.slow

BACKBONE = "test_resnet.r160_in1k"
CHANGES = {
    "run": {"datasets": ["drawn"], "experiments": ["SPADE"]},
    "extractors": {
        "tiny": {"backbone": BACKBONE, "layers": ["layer1", "layer2"], "resize": 64, "crop": 64},
    },
    "experiments": {"SPADE": {"method": "spade", "extractor": "tiny", "k_pixel": 3}},
}
LOCAL = ("--until", "weights", "download")
COMMIT = "0123456789" * 4


@contextmanager
def hub(file: Path) -> Iterator[str]:
    """Serve one file as the model hub does, and give the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_GET(self) -> None:
            self._answer(file.read_bytes())

        def _answer(self, body: bytes) -> None:
            found = self.path == f"/timm/{BACKBONE}/resolve/main/model.safetensors"
            self.send_response(200 if found else 404)
            if found:
                self.send_header("ETag", f'"{COMMIT}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(file.stat().st_size))
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
            self.end_headers()
            self.wfile.write(body if found else b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def nowhere(folder: Path) -> dict[str, str]:
    """Return variables under which every known way to a network ends at a closed port."""
    dead = "http://127.0.0.1:9"
    proxies = {name: dead for each in ("http", "https", "all") for name in (f"{each}_proxy",)}
    proxies |= {name.upper(): value for name, value in proxies.items()}
    return proxies | {"HF_ENDPOINT": dead, "HF_HOME": str(folder / "hub"), "no_proxy": ""}


@pytest.fixture(scope="module")
def fetched(tmp_path_factory) -> Path:
    """A folder in which the head has fetched all that comes from a network."""
    folder = tmp_path_factory.mktemp("offline")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = timm.create_model(BACKBONE, pretrained=False)
    published = folder / "published.safetensors"
    safetensors.torch.save_file(model.state_dict(), published)
    with hub(published) as address:
        here = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "hub"), "no_proxy": "127.0.0.1"}
        succeed(folder, *LOCAL, environment=here, **CHANGES)
    shutil.rmtree(folder / "hub")
    return folder


def test_the_head_fetches_the_weights_once(fetched):
    assert plan(fetched, *LOCAL, **CHANGES) == {}
    file = fetched / "results/weights" / f"{BACKBONE}.safetensors"
    ours = safetensors.torch.load_file(file)
    theirs = safetensors.torch.load_file(fetched / "published.safetensors")
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert all(name in ours or name.endswith("num_batches_tracked") for name in theirs)


def test_downloaded_weights_are_timms_own_by_another_way(fetched, monkeypatch):
    file = fetched / "results/weights" / f"{BACKBONE}.safetensors"
    by_file = load_backbone(BACKBONE, layers=["layer1"], downloaded=file)
    model = timm.create_model(BACKBONE, pretrained=False)
    model.load_state_dict(safetensors.torch.load_file(fetched / "published.safetensors"))
    monkeypatch.setattr("indad.features.backbone._download", lambda name: model.eval())
    direct = load_backbone(BACKBONE, layers=["layer1"])
    assert by_file.weights_source == direct.weights_source == f"timm's pretrained {BACKBONE}"
    assert by_file.weights_sha256 == direct.weights_sha256
    ours, theirs = own_tensors(by_file.model), own_tensors(direct.model)
    assert all(ours[name].equal(theirs[name]) for name in ours if "layer1" in name)


def test_the_rest_needs_no_network(fetched):
    """Proxies that lead nowhere; as root also no network at all, loopback included."""
    # A user namespace without a network, where the kernel gives one.
    before = ["unshare", "--net"] if os.geteuid() == 0 and shutil.which("unshare") else []
    succeed(fetched, METRICS, environment=nowhere(fetched), before=before, **CHANGES)
    with FeatureStore(fetched / "results/features/drawn/wood/tiny.h5") as store:
        assert store.made_with["weights"] == "timm"
        assert store.made_with["weights_source"] == f"timm's pretrained {BACKBONE}"


def test_no_network_is_reported_by_the_rule_that_needs_it(tmp_path, monkeypatch):
    def refuse(name: str, pretrained: bool, **_: object) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(timm, "create_model", refuse)
    job = make_job(output={"weights": tmp_path / "w"}, wildcards={"backbone": BACKBONE})
    message = f"backbone {BACKBONE}: could not download timm's .*OSError: connection refused"
    with pytest.raises(WeightsError, match=message):
        weights.main(job)
    assert not list(tmp_path.iterdir())
