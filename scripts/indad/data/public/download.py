"""Download files over HTTP: retried, resumed after a broken connection, and checked."""

import hashlib
import logging
import math
import re
import time
from http import HTTPStatus
from pathlib import Path

import requests
from urllib3 import Retry
from urllib3.exceptions import InvalidHeader

from indad.core import disk
from indad.core.checksum import sha256_file
from indad.core.errors import DataError
from indad.core.progress import Progress, ignore

logger = logging.getLogger("indad")

#: Bytes that must stay free on the disk.
RESERVE = 200_000_000
#: A transfer that brought more bytes than this before it broke is not counted as a failure.
WORTHWHILE = 1_000_000
#: Bytes written at a time.
PIECE = 2**18

#: HTTP errors that may pass.
RETRIED = (408, 425, 429, 500, 502, 503, 504)
#: Failures in a row after which a download fails, from a server that has answered and from one that
#: has not. The second number is smaller, so that a computer without a network fails soon.
ATTEMPTS, UNANSWERED = 5, 2
#: Seconds before another attempt, doubled after each further failure; and the longest pause, also
#: if the server asks for a longer one (``Retry-After``).
PAUSE, LONGEST_PAUSE = 1.0, 120.0
#: Seconds to wait for a connection, and without data after which a connection counts as broken.
CONNECT, STALL = 10.0, 60.0


def check_space(folder: Path, needed: int) -> None:
    """Check that ``needed`` bytes and a reserve fit on the disk of ``folder``.

    Raises:
        DataError: they do not.
    """
    if problem := disk.shortage(folder, needed, RESERVE):
        raise DataError(problem)


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    progress: Progress = ignore,
) -> str:
    """Download ``url`` to ``path``, which appears complete and checked, or not at all.

    An unfinished transfer stays next to ``path`` in a hidden ``.part`` file. If ``sha256`` is
    known, so that a mixture of two versions is noticed, the next call continues it.

    Args:
        url: an http or https address.
        path: the file to write; its folder must exist.
        sha256: the expected SHA-256; None if unknown.
        progress: called with megabytes done and in total.

    Returns:
        The file's SHA-256.

    Raises:
        DataError: the server refuses, the connection breaks again and again, the disk is too
            small, or the hash differs. The message is the reason alone.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError("not an http or https address")
    # One name per address, so that a part is only continued from the address it came from.
    part = path.with_name(f".{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
    if sha256 is None:
        part.unlink(missing_ok=True)
    resumed = part.exists()
    _Transfer(url, part, progress).run()
    found = sha256_file(part)
    if sha256 not in (None, found):
        part.unlink()
        if not resumed:
            raise DataError(f"its sha256 is {found}, not {sha256}")
        logger.info("%s: the part of an earlier run was damaged, downloading all of it", url)
        return download(url, path, sha256=sha256, progress=progress)
    part.replace(path)
    return found


class _FailedError(Exception):
    """An attempt failed; another may succeed, after the ``pause`` in seconds that is asked for."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class _Transfer:
    """Downloads one address into a ``.part`` file, in as many requests as it takes."""

    def __init__(self, url: str, part: Path, progress: Progress) -> None:
        self.url, self.part, self.progress = url, part, progress
        self.answered = False
        self.etag = ""

    def run(self) -> None:
        """Fill the file; raises as ``download``."""
        failures = 0
        while True:
            before = self._size()
            try:
                self._request(before)
                return
            except _FailedError as error:
                reason, pause = str(error), error.pause
            except OSError as error:
                raise DataError(f"cannot write {self.part}: {error.strerror}") from None
            size = self._size()
            failures = 1 if size - before > WORTHWHILE else failures + 1
            if failures >= (ATTEMPTS if self.answered else UNANSWERED):
                received = f", {size:,} bytes received" if size else ""
                raise DataError(f"{reason} ({failures} attempts in a row{received})")
            if pause is None:
                pause = PAUSE * 2 ** (failures - 1)
            pause = min(pause, LONGEST_PAUSE)
            logger.info("%s: %s; next attempt in %g s, from byte %d", self.url, reason, pause, size)
            time.sleep(pause)

    def _request(self, offset: int) -> None:
        """Request the rest of the file, and append it."""
        headers = {"Accept-Encoding": "identity"}  # compressed data cannot be continued
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self.etag:  # a server then sends a changed file from its beginning
                headers["If-Range"] = self.etag
        try:
            response = requests.get(
                self.url, headers=headers, timeout=(CONNECT, STALL), stream=True
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _FailedError(_reason(error)) from None
        except requests.RequestException as error:
            raise DataError(f"{type(error).__name__}: {error}") from None
        self.answered = True
        with response:
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if _total(response) != offset:
                    self.part.unlink()
                    raise _FailedError("the part is longer than the file")
            elif response.ok:
                self._save(response, offset)
            else:
                reason = f"HTTP {response.status_code} {response.reason}"
                if response.status_code in RETRIED:
                    raise _FailedError(reason, _asked_pause(response))
                raise DataError(reason)

    def _save(self, response: requests.Response, offset: int) -> None:
        """Write the content to the file, from ``offset`` on if the server continues there."""
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise DataError("the server sends a web page, not a file: open it in a browser")
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:  # the whole file
            offset, total = 0, int(response.headers.get("Content-Length", 0))
        elif response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            total = _total(response)
        else:
            self.part.unlink(missing_ok=True)
            raise _FailedError("the server sent another part than was requested")
        etag = response.headers.get("ETag", "")
        self.etag = "" if etag.startswith("W/") else etag
        check_space(self.part.parent, total - offset)
        megabytes = math.ceil(total / 1e6)
        with self.part.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            try:
                for piece in response.iter_content(PIECE):
                    file.write(piece)
                    if total:
                        self.progress(math.floor(file.tell() / total * megabytes), megabytes)
            except requests.RequestException as error:
                raise _FailedError(_reason(error)) from None

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0


def _total(response: requests.Response) -> int:
    """Return the length of the whole file from ``Content-Range``; 0 if it is unknown."""
    match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else 0


def _asked_pause(response: requests.Response) -> float | None:
    try:
        return Retry().parse_retry_after(response.headers["Retry-After"])
    except (KeyError, InvalidHeader):
        return None


def _reason(error: Exception) -> str:
    """Explain in a few words why a connection failed."""
    text = str(error)
    for known, meaning in {
        "Read timed out": f"stalled, no data for {STALL:g} s",
        "timed out": f"no answer within {CONNECT:g} s",
        "Connection broken": "the connection broke off",
        "Connection aborted": "the connection broke off",
        "Failed to resolve": "the server's name is not known (no network?)",
        "Connection refused": "connection refused",
        "Network is unreachable": "the network is unreachable",
    }.items():
        if known in text:
            return meaning
    return f"connection failed ({text[:200]})"
