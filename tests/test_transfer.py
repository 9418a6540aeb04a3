"""Downloads from a server that breaks, stalls, redirects, refuses or corrupts."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from indad.core import disk
from indad.core.errors import DataError
from indad.data.public import download

CONTENT = np.random.default_rng(0).bytes(3_000_000)
#: Where a transfer breaks: the incomplete piece after it is lost.
CUT = 4 * 2**18
ETAG = '"version 1"'
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers requests with the behaviours of ``plan``, one after the other, then with the file."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[str] = []
        self.seen: list[str | None] = []  # the Range header of each request
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.tar.xz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Silence."""

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        requested = self.headers.get("Range")
        self.server.seen.append(requested)
        what = self.server.plan.pop(0) if self.server.plan else "serve"
        start = int(requested.removeprefix("bytes=").rstrip("-")) if requested else 0
        empty = {"Content-Length": "0"}
        if what == "hang up":
            self.close_connection = True
            return
        if what.isdigit():
            self.answer(int(what), empty | ({"Retry-After": "3"} if what == "429" else {}))
            return
        if what == "redirect":
            self.answer(302, empty | {"Location": "/elsewhere.tar.xz"})
            return
        if what == "page":
            self.answer(200, empty | {"Content-Type": "text/html; charset=utf-8"})
            return
        if what == "changed" and self.headers.get("If-Range") == ETAG:  # the file is another one
            what = "no resume"
        if what == "no resume":
            start = 0
        body = CONTENT[start:]
        if what in ("corrupt", "changed"):
            body = bytes(len(body))
        if requested and start >= len(CONTENT):
            self.answer(416, empty | {"Content-Range": f"bytes */{len(CONTENT)}"})
            return
        headers = {"ETag": ETAG, "Content-Length": str(len(body))}
        if requested and what != "no resume":
            first = start + 7 if what == "other part" else start
            headers["Content-Range"] = f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"
        self.answer(206 if "Content-Range" in headers else 200, headers)
        if what == "reset":
            self.close_connection = True
        elif what == "cut":
            self.wfile.write(body[: CUT + 1000])
            self.close_connection = True
        elif what == "drip":
            self.wfile.write(body[:300_000])
            self.close_connection = True
        elif "stall" in what:
            self.wfile.write(b"" if "empty" in what else body[: CUT + 1000])
            self.wfile.flush()
            self.server.released.wait(10)
        else:
            with contextlib.suppress(ConnectionError):  # the client may have hung up
                self.wfile.write(body)


def fetch(url: str, path: Path, *, sha256: str | None = SHA256, **options) -> str:
    return download.download(url, path, sha256=sha256, **options)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, seconds in (("PAUSE", 0.01), ("CONNECT", 0.5), ("STALL", 0.3)):
        monkeypatch.setattr(download, name, seconds)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize(
    ("plan", "ranges"),
    [
        ([], [None]),
        (["redirect"], [None, None]),
        (["cut"], [None, f"bytes={CUT}-"]),
        (["cut", "cut"], [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"]),
        (["stall"], [None, f"bytes={CUT}-"]),
        (["503", "502", "cut"], [None, None, None, f"bytes={CUT}-"]),
        (["cut", "no resume"], [None, f"bytes={CUT}-"]),
        (["cut", "changed"], [None, f"bytes={CUT}-"]),
        (["cut", "redirect"], [None, f"bytes={CUT}-", f"bytes={CUT}-"]),
        (["cut", "other part"], [None, f"bytes={CUT}-", None]),
        (["reset", "hang up"], [None, None, None]),
    ],
    ids=[
        *("whole", "redirect", "cut", "cut twice", "stall", "busy", "no resume", "changed"),
        *("moved", "other part", "hang up"),
    ],
)
def test_broken_connections_are_resumed(server, tmp_path, plan, ranges):
    server.plan = list(plan)
    path = tmp_path / "data.tar.xz"
    steps = []
    found = fetch(server.url, path, progress=lambda done, total: steps.append((done, total)))
    assert found == SHA256
    assert path.read_bytes() == CONTENT
    assert server.seen == ranges
    assert steps[-1] == (3, 3)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (["404"], "HTTP 404 Not Found"),
        (["403"], "HTTP 403 Forbidden"),
        (["503"] * 5, r"HTTP 503 Service Unavailable \(5 attempts in a row\)"),
        (["drip"] * 5, r"the connection broke off \(5 attempts in a row, 1,310,720 bytes received"),
        (["stall"] + ["empty stall"] * 5, r"stalled, no data for 0.3 s \(5 attempts in a row"),
        (["corrupt"], "its sha256 is .*, not "),
        (["page"], "the server sends a web page, not a file"),
    ],
    ids=["404", "403", "503", "drip", "stall", "corrupt", "page"],
)
def test_failures_are_explained_and_leave_no_file(server, tmp_path, plan, reason):
    server.plan = list(plan)
    with pytest.raises(DataError, match=reason):
        fetch(server.url, tmp_path / "data.tar.xz")
    assert not (tmp_path / "data.tar.xz").exists()


@pytest.mark.parametrize(
    ("part", "sha256", "ranges"),
    [
        ("kept", SHA256, [f"bytes={CUT}-"]),
        ("kept", None, [None]),  # without a hash: the file may have changed in the meantime
        ("damaged", SHA256, [f"bytes={CUT}-", None]),
        ("complete", SHA256, [f"bytes={len(CONTENT)}-"]),
        ("longer than the file", SHA256, [f"bytes={len(CONTENT) + 4}-", None]),
    ],
)
def test_a_later_run_resumes(server, tmp_path, part, sha256, ranges):
    path = tmp_path / "data.tar.xz"
    server.plan = ["cut", "404"]
    with pytest.raises(DataError, match="404"):
        fetch(server.url, path, sha256=sha256)
    (left,) = tmp_path.iterdir()
    content = {
        "kept": left.read_bytes(),
        "damaged": bytes(left.stat().st_size),
        "complete": CONTENT,
        "longer than the file": CONTENT + b"more",
    }
    left.write_bytes(content[part])
    server.seen.clear()
    assert fetch(server.url, path, sha256=sha256) == SHA256
    assert server.seen == ranges
    assert path.read_bytes() == CONTENT


def test_the_server_may_ask_for_a_pause(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.plan = ["503", "429", "503"]
    fetch(server.url, tmp_path / "data.tar.xz")
    assert pauses == [0.01, 3, 0.04]
    pauses.clear()
    server.plan = ["429"]
    monkeypatch.setattr(download, "LONGEST_PAUSE", 2)
    fetch(server.url, tmp_path / "more.tar.xz")
    assert pauses == [2]


def test_a_full_disk_is_noticed_before_the_transfer(server, tmp_path, monkeypatch):
    usage = disk.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        disk.shutil, "disk_usage", lambda _: usage._replace(free=download.RESERVE + 1000)
    )
    with pytest.raises(DataError, match="not enough disk space in .* MB needed"):
        fetch(server.url, tmp_path / "data.tar.xz")
    assert not (tmp_path / "data.tar.xz").exists()


def test_unreachable_servers_fail_soon(server, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="not an http or https address"):
        fetch("ftp://example.org/x", tmp_path / "x")
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"connection refused \(2 attempts in a row\)"):
        fetch(url, tmp_path / "x")
    monkeypatch.setattr(download, "UNANSWERED", 1)
    unknown = "http://no-such-host.invalid/x"
    with pytest.raises(DataError, match=r"name is not known .no network.. \(1 attempts"):
        fetch(unknown, tmp_path / "x")
