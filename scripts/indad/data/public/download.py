"""Files over HTTP that survive a bad line: resumed, retried with growing pauses, checked.

The transfer itself is pooch's; what is here is what happens between two attempts.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from indad.core import disk
from indad.core.errors import DataError
from indad.core.progress import Progress, ignore

logger = logging.getLogger("indad")

#: An attempt that brought more bytes than this was no failure: the count starts anew.
WORTHWHILE = 1_000_000
#: Bytes to leave free on the disk.
RESERVE = 200_000_000

_PASSING = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Patience:
    """How long a bad line is put up with.

    Attributes:
        attempts: failures in a row before a server that answers is given up.
        unanswered: attempts at a server that never answered, so that a machine without a network
            hears of it soon.
        pause: seconds before the second attempt; each further pause is twice as long.
        longest: seconds at most that a server may ask to wait (``Retry-After``).
        connect: seconds to wait for a connection.
        stall: seconds without a byte after which a connection counts as dead.
    """

    attempts: int = 5
    unanswered: int = 2
    pause: float = 1.0
    longest: float = 120.0
    connect: float = 10.0
    stall: float = 60.0


PATIENCE = Patience()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_space(folder: Path, needed: int) -> None:
    """Make sure that ``needed`` bytes fit on the disk of ``folder``, with a reserve.

    Raises:
        DataError: they do not.
    """
    if said := disk.shortage(folder, needed, RESERVE):
        raise DataError(said)


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    patience: Patience = PATIENCE,
    progress: Progress = ignore,
) -> str:
    """Fetch ``url`` to ``path``, which appears whole and checked or not at all.

    What a broken transfer has brought stays beside ``path`` in a ``.part`` file. The next call
    goes on from there if a hash will tell whether the pieces belong together.

    Args:
        url: an http or https address.
        path: the file to write; its folder must exist.
        sha256: what the file must hash to; None if unknown.
        patience: when to give up.
        progress: called with megabytes.

    Returns:
        The file's SHA-256.

    Raises:
        DataError: with the reason alone: the server refuses, the line breaks again and again, the
            disk is too small, or the hash is another.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError("not an http or https address")
    # A part is continued only from the address it came from.
    part = path.with_name(f".{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
    if sha256 is None:
        part.unlink(missing_ok=True)
    resumed = part.exists()
    _transfer(url, part, patience, progress)
    found = sha256_of(part)
    if sha256 not in (None, found):
        part.unlink()
        if not resumed:
            raise DataError(f"its sha256 is {found}, not {sha256}")
        logger.info("%s: the part from before was bad, starting anew", url)
        return download(url, path, sha256=sha256, patience=patience, progress=progress)
    part.replace(path)
    return found


def _transfer(url: str, part: Path, patience: Patience, progress: Progress) -> None:
    """Fill ``part``, in as many attempts as it takes."""
    import requests

    failures = 0
    bar = _Bar(progress)
    while True:
        before = _size(part)
        wanted_pause = 0.0
        try:
            _receive(url, part, patience, bar)
            return
        except requests.HTTPError as error:
            response = error.response
            reason = f"HTTP {response.status_code} {response.reason}"
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if _whole(response) == before:
                    return
                part.unlink()  # longer than the file is now: of no use
            elif response.status_code not in _PASSING:
                raise DataError(reason) from None
            asked = response.headers.get("Retry-After", "")
            wanted_pause = float(asked) if asked.isdigit() else 0.0
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            reason = _reason(error, patience)
        except requests.RequestException as error:
            raise DataError(f"{type(error).__name__}: {error}") from None
        except OSError as error:
            raise DataError(f"cannot write {part}: {error.strerror}") from None
        after = _size(part)
        failures = 1 if after - before > WORTHWHILE else failures + 1
        if failures >= (patience.attempts if bar.answered else patience.unanswered):
            kept = f", {after:,} bytes came" if after else ""
            raise DataError(f"{reason} ({failures} attempts in a row{kept})")
        pause = max(patience.pause * 2 ** (failures - 1), min(wanted_pause, patience.longest))
        logger.info("%s: %s; next attempt in %g s, from byte %d", url, reason, pause, after)
        time.sleep(pause)


def _receive(url: str, part: Path, patience: Patience, bar: _Bar) -> None:
    """Append to ``part`` what is missing, in one attempt."""
    import pooch
    import requests

    with part.open("ab") as file:
        offset = file.tell()
        bar.file = file

        def inspect(response: Any, **_: Any) -> None:
            bar.answered = True
            if response.status_code not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
                return
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise DataError("the server sends a web page, not a file: see it in a browser")
            if response.status_code == HTTPStatus.OK:  # all of it, whatever was asked for
                file.truncate(0)
                bar.whole = int(response.headers.get("Content-Length", 0))
                check_space(part.parent, bar.whole)
                return
            if not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                file.truncate(0)
                raise requests.ConnectionError("the server sent another part than was asked for")
            bar.whole = _whole(response)
            check_space(part.parent, bar.whole - offset)

        # Compressed on the way, bytes could not be counted.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=2**18,
            headers=headers,
            timeout=(patience.connect, patience.stall),
            hooks={"response": inspect},
        )(url, file, None)


class _Bar:
    """The progress bar pooch moves: megabytes of the whole file, earlier attempts included.

    Attributes:
        file: what is written to.
        whole: bytes of the whole file, 0 if unknown.
        answered: whether the server ever answered.
        total: set by pooch, of one attempt; not used.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.file: IO[bytes]
        self.whole = self.total = 0
        self.answered = False

    def update(self, _: int) -> None:
        if self.whole:
            total = math.ceil(self.whole / 1e6)
            self.progress(math.floor(self.file.tell() / self.whole * total), total)

    def reset(self) -> None:
        """Nothing to do: the file's length is what counts."""

    close = reset


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _whole(response: Any) -> int:
    """Read the whole file's length from ``Content-Range``; 0 if it is not told."""
    match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else 0


def _reason(error: Exception, patience: Patience) -> str:
    """Say in a few words why a connection failed."""
    text = str(error)
    for known, meaning in {
        "Read timed out": f"stalled, nothing came for {patience.stall:g} s",
        "timed out": f"no answer within {patience.connect:g} s",
        "IncompleteRead": "the connection broke off",
        "Connection broken": "the connection broke off",
        "Connection aborted": "the connection broke off",
        "Name or service not known": "the server's name is not known (no network?)",
        "name resolution": "the server's name is not known (no network?)",
        "nodename nor servname": "the server's name is not known (no network?)",
        "Connection refused": "connection refused",
        "Network is unreachable": "the network is unreachable",
    }.items():
        if known in text:
            return meaning
    return f"connection failed ({text[:200]})"
