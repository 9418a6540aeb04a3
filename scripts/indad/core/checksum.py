"""Seals: a digest of a whole product file inside the file, compared before anything is parsed.

Storage fails silently, and the libraries that read HDF5 and safetensors check little: a flipped bit
is read as another number, or ends the process. So every byte of a sealed file counts towards its
digest (XXH3, 128 bits: against damage and mix-ups, not against forgery; it costs less than reading
the file), and a reader sees a file only once its digest has been found right.

An HDF5 product has its seal in the user block, the bytes before the HDF5 data proper that the
format leaves to applications: a line of text, ``head -1 FILE`` shows it. A safetensors product has
it in its header.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import xxhash

from indad.core import atomic, disk
from indad.core.errors import StoreError

#: Bytes of the user block; HDF5 allows powers of two from 512.
BLOCK = 4096
#: Bytes hashed at a time: what stays in a CPU's cache.
PIECE = 4 << 20
#: Hex digits of a digest, and what stands in their place while it is computed.
DIGITS = 32
_OPEN = b"0" * DIGITS
_LINE = re.compile(rb"indad-sealed ([a-z]{1,20}) ([1-9]\d{0,5}) ([1-9]\d{0,17}) ([0-9a-f]{32})\n")
#: The name of a seal in a safetensors header, as it stands there: JSON inside JSON.
FIELD = "indad_seal"
_FIELD = re.compile(rb'\\"' + FIELD.encode() + rb'\\": \\"([0-9a-f]{32})\\"')
#: The name of a seal in a JSON record.
JSON_FIELD = "xxh3_128_of_the_rest"
#: Longest safetensors header that is looked at.
MOST_HEADER = 16 << 20
_AGAIN = "delete it and run again"


@dataclass(frozen=True)
class Seal:
    """What a file says of itself.

    Attributes:
        digest: XXH3-128, hex, of all bytes of the file, zeros in place of the digest.
        at: where in the file the digest stands.
        kind, version: what an HDF5 file holds and in which layout; "" and 0 for safetensors.
    """

    digest: str
    at: int
    kind: str = ""
    version: int = 0


def _digest(file: IO[bytes], at: int) -> str:
    """Hash an open file from its beginning, with zeros for the digest at ``at``."""
    file.seek(0)
    digest = xxhash.xxh3_128(file.read(at))
    file.seek(at + DIGITS)
    digest.update(_OPEN)
    piece = bytearray(PIECE)
    view = memoryview(piece)
    while count := file.readinto(piece):  # type: ignore[attr-defined]
        digest.update(view[:count])
    return digest.hexdigest()


def _put(path: Path, at: int) -> None:
    with path.open("rb+", buffering=0) as file:
        digest = _digest(file, at)
        file.seek(at)
        file.write(digest.encode())


def _stated(path: Path, what: str) -> Seal:
    """Read the seal of a file, without comparing it.

    Raises:
        StoreError: the file is missing, has no seal, or has another length than its seal says.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(BLOCK)
            if match := _LINE.match(head):
                if int(match[3]) != size:
                    raise StoreError(
                        f"{path}: damaged: {size} bytes, its seal says {int(match[3])}; {_AGAIN}"
                    )
                return Seal(match[4].decode(), match.start(4), match[1].decode(), int(match[2]))
            length = int.from_bytes(head[:8], "little")
            if 2 < length <= min(MOST_HEADER, size - 8):
                file.seek(8)
                found = list(_FIELD.finditer(file.read(length)))
                if len(found) == 1:
                    return Seal(found[0][1].decode(), 8 + found[0].start(1))
    except FileNotFoundError:
        raise StoreError(f"{path}: no such {what}") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from None
    raise StoreError(
        f"{path}: no {what} sealed by this project: damaged, made by an older version, or foreign; "
        f"{_AGAIN}"
    )


def check(path: Path, what: str = "product") -> Seal:
    """Compare a file with its seal.

    Raises:
        StoreError: the file is missing, not sealed, or differs from what was sealed.
    """
    seal = _stated(path, what)
    try:
        with path.open("rb", buffering=0) as file:
            found = _digest(file, seal.at)
    except OSError as error:
        raise StoreError(f"{path}: damaged: cannot be read ({error.strerror}); {_AGAIN}") from None
    if found != seal.digest:
        raise StoreError(
            f"{path}: damaged: its content does not match its seal (XXH3 {found}, sealed "
            f"{seal.digest}); {_AGAIN}"
        )
    return seal


def recorded_digest(path: Path) -> str:
    """Return the digest that a sealed file states of itself; costs the same for any size.

    Raises:
        StoreError: the file is missing or has no seal.
    """
    return _stated(path, "product").digest


def read_summary(path: Path) -> dict[str, Any]:
    """Return a sealed HDF5 file's summary, without looking at the rest of it; {} if it has none.

    For estimates only: that the file is whole is not checked.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with path.open("rb") as file:
        first, _, rest = file.read(BLOCK).partition(b"\n")
    try:
        found = json.loads(rest.partition(b"\n")[0]) if _LINE.fullmatch(first + b"\n") else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def create_hdf5(
    path: Path,
    kind: str,
    version: int,
    *,
    room: int = 0,
    summary: Callable[[h5py.File], dict[str, Any]] = lambda file: {},
) -> Iterator[h5py.File]:
    """Write an HDF5 file that appears, sealed, only when the block ends without an error.

    Args:
        path: the file.
        kind: what it holds, in lower-case letters.
        version: of its layout, at least 1.
        room: bytes that will be written.
        summary: says what `told` is to return of the file, from the file when it is written.

    Raises:
        DiskError: they do not fit on the disk.
    """
    disk.require_room(path, room)
    with atomic.replacing(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=BLOCK) as file:
            yield file
            told = json.dumps(summary(file)).encode() + b"\n"
        size = temporary.stat().st_size
        line = b"indad-sealed %s %d %d %s\n" % (kind.encode(), version, size, _OPEN)
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{kind!r}, {version}: not a kind and a version for a seal")
        with temporary.open("rb+") as block:
            # What has no room for its summary goes without: it is a convenience.
            block.write(line + told if len(line + told) <= BLOCK else line)
        _put(temporary, match.start(4))


def open_hdf5(path: Path, kind: str, version: int, what: str, *, verify: bool = True) -> h5py.File:
    """Open an HDF5 file for reading, once its seal has been found right.

    Args:
        path: the file.
        kind: what it must hold.
        version: the layout it must have.
        what: ``kind`` in words, for messages.
        verify: False compares kind, version and length only. For a look at names and sizes in a
            file of gigabytes, never for what becomes a figure.

    Raises:
        StoreError: the file is missing, damaged, not sealed by this project, or of another kind or
            version.
    """
    seal = check(path, what) if verify else _stated(path, what)
    if (seal.kind, seal.version) != (kind, version):
        raise StoreError(
            f"{path}: holds {seal.kind or 'a model'}, schema version {seal.version}; this library "
            f"reads {kind}, version {version}: {_AGAIN}"
        )
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"{path}: not a readable HDF5 file ({error}); {_AGAIN}") from None


def with_placeholder(header: dict[str, Any]) -> str:
    """Return a safetensors description as JSON, with room for the seal of `seal_safetensors`."""
    return json.dumps(header | {FIELD: _OPEN.decode()}, sort_keys=True)


def write_safetensors_checksum(path: Path) -> None:
    """Seal a safetensors file whose metadata holds what `sealable` returned."""
    _put(path, _stated(path, "file").at)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as JSON with a digest of it, atomically."""
    atomic.write_json(path, {**value, JSON_FIELD: _digest_of(value)})


def read_json(path: Path, what: str = "record") -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        StoreError: the file is missing, damaged or edited, be it in a blank.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        stated = value.pop(JSON_FIELD)
    except FileNotFoundError:
        raise StoreError(f"{path}: no such {what}; run again") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise StoreError(f"{path}: damaged {what} ({error}); {_AGAIN}") from None
    if stated != _digest_of(value) or text != atomic.json_text({**value, JSON_FIELD: stated}):
        raise StoreError(f"{path}: damaged or edited {what}; {_AGAIN}")
    return value


def _digest_of(value: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())
