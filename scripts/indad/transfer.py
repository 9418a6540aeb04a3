"""Files over HTTP that survive a bad line: resumed, retried with growing pauses, checked.

The transfer itself is pooch's; what is here is what happens between two attempts.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import shutil
import time
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from indad.errors import DataError
from indad.progress import Progress, ignore

logger = logging.getLogger("indad")

#: Attempts in a row that may bring less than ``WORTHWHILE`` bytes before a source is given up.
ATTEMPTS = 5
WORTHWHILE = 1_000_000
#: Seconds before the second attempt; each further pause is twice as long.
PAUSE = 1.0
#: Seconds without a byte after which a connection counts as dead.
STALL = 60.0
#: A server may ask for a longer pause, up to this many seconds.
LONGEST_PAUSE = 120.0
#: Bytes to leave free on the disk.
RESERVE = 200_000_000

_PASSING = {408, 425, 429, 500, 502, 503, 504}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str | None) -> str:
    """Return the SHA-256 of ``path``.

    Raises:
        DataError: it is not ``expected``.
    """
    found = sha256_of(path)
    if expected not in (None, found):
        raise DataError(f"its sha256 is {found}, not {expected}")
    return found


def check_space(folder: Path, needed: int) -> None:
    """Make sure that ``needed`` bytes fit on the disk of ``folder``, with a reserve.

    Raises:
        DataError: they do not.
    """
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise DataError(
            f"not enough disk space in {folder}: {needed / 1e9:.1f} GB needed, "
            f"{max(0, free - RESERVE) / 1e9:.1f} GB free"
        )


def download(
    url: str, path: Path, *, sha256: str | None = None, progress: Progress = ignore
) -> None:
    """Fetch ``url`` to ``path``, which appears whole and checked or not at all.

    What a broken transfer has brought stays beside ``path`` in a ``.part`` file, and the next
    call goes on from there.

    Args:
        url: an http or https address.
        path: the file to write; its folder must exist.
        sha256: what the file must hash to; None if unknown.
        progress: called with megabytes.

    Raises:
        DataError: with the reason alone: the server refuses, the line breaks again and again, the
            disk is too small, or the hash is another.
    """
    if not url.startswith(("http://", "https://")):
        raise DataError("not an http or https address")
    # A part is continued only from the address it came from.
    part = path.with_name(f".{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
    resumed = part.exists()
    _transfer(url, part, progress)
    try:
        check_sha256(part, sha256)
    except DataError as error:
        part.unlink()
        if not resumed:
            raise
        logger.info("%s: %s; the part from before was bad, starting anew", url, error)
        download(url, path, sha256=sha256, progress=progress)
        return
    part.replace(path)


def _transfer(url: str, part: Path, progress: Progress) -> None:
    """Fill ``part``, in as many attempts as it takes."""
    import requests

    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        asked_pause = 0.0
        try:
            _receive(url, part, progress)
            return
        except requests.HTTPError as error:
            status = error.response.status_code
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                if _total(error.response) == before:
                    return
                part.unlink()  # longer than the file is now: of no use
            elif status not in _PASSING:
                raise DataError(_reason(error)) from None
            asked = error.response.headers.get("Retry-After", "")
            asked_pause = min(float(asked), LONGEST_PAUSE) if asked.isdigit() else 0.0
            reason = _reason(error)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            reason = _reason(error)
        except requests.RequestException as error:
            raise DataError(f"{type(error).__name__}: {error}") from None
        except OSError as error:
            raise DataError(f"cannot write {part}: {error.strerror}") from None
        after = part.stat().st_size if part.exists() else 0
        failures = 1 if after - before > WORTHWHILE else failures + 1
        if failures >= ATTEMPTS:
            kept = f", {after:,} bytes kept for the next run" if after else ""
            raise DataError(f"{reason} ({ATTEMPTS} attempts{kept})")
        pause = max(PAUSE * 2 ** (failures - 1), asked_pause)
        logger.info("%s: %s; next attempt in %g s, from byte %d", url, reason, pause, after)
        time.sleep(pause)


def _receive(url: str, part: Path, progress: Progress) -> None:
    """Append to ``part`` what is missing, in one attempt."""
    import pooch

    with part.open("ab") as file:
        offset = file.tell()
        bar = _Bar(file, progress)

        def inspect(response: Any, **_: Any) -> None:
            if response.status_code == HTTPStatus.OK:
                file.truncate(0)  # the server does not resume: it sends all of it
                bar.whole = int(response.headers.get("Content-Length", 0))
                check_space(part.parent, bar.whole)
            elif response.status_code == HTTPStatus.PARTIAL_CONTENT:
                if not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                    raise DataError("the server sends another part than was asked for")
                bar.whole = _total(response)
                check_space(part.parent, bar.whole - offset)

        # Compressed on the way, bytes could not be counted.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=2**18,
            headers=headers,
            timeout=STALL,
            hooks={"response": inspect},
        )(url, file, None)


class _Bar:
    """The progress bar pooch moves: megabytes of the whole file, those from before included."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self.file, self.progress = file, progress
        self.whole = 0
        self.total = 0  # set by pooch: of this attempt only

    def update(self, _: int) -> None:
        if self.whole:
            done = self.file.tell() / self.whole
            total = math.ceil(self.whole / 1e6)
            self.progress(math.floor(done * total), total)

    def reset(self) -> None:
        """Nothing to do: the file's length is what counts."""

    close = reset


def _total(response: Any) -> int:
    """Read the whole file's length from ``Content-Range``; 0 if it is not told."""
    match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else 0


def _reason(error: Any) -> str:
    """Say in a few words why an attempt failed."""
    if (response := getattr(error, "response", None)) is not None:
        return f"HTTP {response.status_code} {response.reason}"
    text = str(error)
    if "timed out" in text:
        return f"stalled, nothing came for {STALL:g} s"
    if "IncompleteRead" in text or "Connection broken" in text:
        return "the connection broke off"
    for known in ("Name or service not known", "name resolution", "nodename nor servname"):
        if known in text:
            return "the server's name is not known (no network?)"
    if "Connection refused" in text:
        return "connection refused"
    return f"connection failed ({text[:200]})"
