"""Checksums inside product files, compared before a file is parsed.

Storage can damage a file without an error, and the libraries that read HDF5 and safetensors check
little: they return a wrong number for a flipped bit, or crash. So each of these files contains a
digest of all its bytes (XXH3, 128 bits: against damage and mix-ups, not against forgery; it costs
less than reading the file), and a file is opened only after its digest was compared.

An HDF5 file has its checksum in the user block, the bytes before the HDF5 data that the format
leaves to applications. It is a line of text: ``head -1 FILE`` shows it. A safetensors file has it
in its header, a JSON record in a field of its own.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import xxhash

from indad.core import atomic, disk
from indad.core.errors import StoreError

#: Bytes of the user block; HDF5 allows powers of two from 512.
BLOCK = 4096
#: Bytes hashed at a time: they stay in a CPU's cache.
PIECE = 4 << 20
#: Products with a checksum inside.
_SUFFIXES = (".h5", ".safetensors")
#: Hex digits of a digest, and their placeholder while it is computed.
DIGITS = 32
_PLACEHOLDER = b"0" * DIGITS
_LINE = re.compile(rb"indad-sealed ([a-z]{1,20}) ([1-9]\d{0,5}) ([1-9]\d{0,17}) ([0-9a-f]{32})\n")
#: The key of the checksum in a safetensors header; there it is JSON inside JSON.
FIELD = "indad_seal"
_FIELD = re.compile(rb'\\"' + FIELD.encode() + rb'\\": \\"([0-9a-f]{32})\\"')
#: The key of the checksum in a JSON record.
_JSON_FIELD = "xxh3_128_of_the_rest"
#: Longest safetensors header that is read.
_MOST_HEADER = 16 << 20
_AGAIN = "delete it and run again"


@dataclass(frozen=True)
class Checksum:
    """The checksum that a file records of itself.

    Attributes:
        digest: XXH3-128, hex, of all bytes of the file, with zeros in place of the digest.
        offset: of the digest in the file, in bytes.
        kind, version: content and layout of an HDF5 file; "" and 0 for safetensors.
    """

    digest: str
    offset: int
    kind: str = ""
    version: int = 0


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hex.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(file: IO[bytes], offset: int) -> str:
    """Hash an open file from its beginning, with zeros for the digest at ``offset``."""
    file.seek(0)
    digest = xxhash.xxh3_128(file.read(offset))
    file.seek(offset + DIGITS)
    digest.update(_PLACEHOLDER)
    piece = bytearray(PIECE)
    view = memoryview(piece)
    while count := file.readinto(piece):  # type: ignore[attr-defined]
        digest.update(view[:count])
    return digest.hexdigest()


def _write_digest(path: Path, offset: int) -> None:
    with path.open("rb+", buffering=0) as file:
        digest = _digest(file, offset)
        file.seek(offset)
        file.write(digest.encode())


def _recorded(path: Path, what: str) -> Checksum:
    """Read the checksum that a file records, and compare its length only."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(BLOCK)
            if match := _LINE.match(head):
                if int(match[3]) != size:
                    raise StoreError(
                        f"{path}: damaged: it has {size} bytes instead of {int(match[3])}; {_AGAIN}"
                    )
                return Checksum(match[4].decode(), match.start(4), match[1].decode(), int(match[2]))
            length = int.from_bytes(head[:8], "little")
            if 2 < length <= min(_MOST_HEADER, size - 8):
                file.seek(8)
                found = list(_FIELD.finditer(file.read(length)))
                if len(found) == 1:
                    return Checksum(found[0][1].decode(), 8 + found[0].start(1))
    except FileNotFoundError:
        raise StoreError(f"{path}: no such {what}") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from None
    raise StoreError(
        f"{path}: not a {what} with a checksum of this project: damaged, made by an older version, "
        f"or another kind of file; {_AGAIN}"
    )


def check(path: Path, what: str = "product") -> Checksum:
    """Compute the checksum of a file, compare it with the recorded one and return it.

    Raises:
        StoreError: the file is missing, has no checksum, or does not match it.
    """
    recorded = _recorded(path, what)
    try:
        with path.open("rb", buffering=0) as file:
            found = _digest(file, recorded.offset)
    except OSError as error:
        raise StoreError(f"{path}: damaged: cannot be read ({error.strerror}); {_AGAIN}") from None
    if found != recorded.digest:
        raise StoreError(
            f"{path}: damaged: its content does not match its checksum (XXH3 {found}, recorded "
            f"{recorded.digest}); {_AGAIN}"
        )
    return recorded


def recorded_digest(path: Path) -> str:
    """Return the digest of a file: the one it records of itself, or else its SHA-256.

    A file with a checksum inside, which may have gigabytes, is not read as a whole.

    Raises:
        StoreError: the file cannot be read.
    """
    if path.suffix in _SUFFIXES:
        with suppress(StoreError):  # weights have no checksum inside
            return f"xxh3_128:{_recorded(path, 'product').digest}"
    return _sha256(path)


def compute_digest(path: Path) -> str:
    """Read a whole product and return its digest, of the same kind as `recorded_digest`.

    Raises:
        StoreError: the file cannot be read, or does not match its own checksum.
    """
    return f"xxh3_128:{check(path).digest}" if path.suffix in _SUFFIXES else _sha256(path)


def _sha256(path: Path) -> str:
    try:
        return f"sha256:{sha256_file(path)}"
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from None


@contextmanager
def create_hdf5(path: Path, kind: str, version: int, *, room: int = 0) -> Iterator[h5py.File]:
    """Write an HDF5 file that appears, with a checksum, when the block ends without an error.

    Args:
        path: the file.
        kind: what it contains, in lower-case letters.
        version: of its layout, at least 1.
        room: bytes that will be written.

    Raises:
        DiskError: they do not fit on the disk.
    """
    disk.require_room(path, room)
    with atomic.replacing(path) as temporary:
        # No other process knows the file before it is renamed, and none writes to it later: without
        # HDF5's own locks, file systems that have none can be used.
        with h5py.File(temporary, "w", userblock_size=BLOCK, locking=False) as file:
            yield file
        size = temporary.stat().st_size
        line = b"indad-sealed %s %d %d " % (kind.encode(), version, size)
        with temporary.open("rb+") as block:
            block.write(line + _PLACEHOLDER + b"\n")
        _write_digest(temporary, len(line))


def open_hdf5(path: Path, kind: str, version: int, what: str) -> h5py.File:
    """Open an HDF5 file for reading, after comparing its checksum.

    Args:
        path: the file.
        kind: what it must contain.
        version: the layout it must have.
        what: ``kind`` in words, for messages.

    Raises:
        StoreError: the file is missing, damaged, without a checksum, or of another kind or version.
    """
    found = check(path, what)
    if (found.kind, found.version) != (kind, version):
        raise StoreError(
            f"{path}: contains {found.kind or 'a model'}, schema version {found.version}; this "
            f"library reads {kind}, version {version}: {_AGAIN}"
        )
    return h5py.File(path, "r", locking=False)


def with_placeholder(header: dict[str, Any]) -> str:
    """Return a safetensors header as JSON, with the placeholder of its checksum."""
    return json.dumps(header | {FIELD: _PLACEHOLDER.decode()}, sort_keys=True)


def write_safetensors_checksum(path: Path) -> None:
    """Replace the placeholder in a safetensors file by the file's checksum."""
    _write_digest(path, _recorded(path, "file").offset)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as JSON with a checksum, atomically."""
    atomic.write_text(path, _json_text(value))


def read_json(path: Path, what: str = "record") -> dict[str, Any]:
    """Read a file of `write_json`.

    Raises:
        StoreError: the file is missing, damaged or edited, even in white space only.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        del value[_JSON_FIELD]
    except FileNotFoundError:
        raise StoreError(f"{path}: no such {what}; run again") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{path}: damaged {what} ({error}); {_AGAIN}") from None
    if text != _json_text(value):
        raise StoreError(f"{path}: damaged or edited {what}; {_AGAIN}")
    return value


def _json_text(value: Mapping[str, Any]) -> str:
    digest = xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())
    return atomic.json_text({**value, _JSON_FIELD: digest})
