"""Files that appear on disk complete or not at all."""

import contextlib
import glob
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: This machine's name, for names of files that only it may remove.
HOST = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())[:40] or "host"
#: Seconds after which a temporary file of another host counts as left over.
_FORGOTTEN = 7 * 24 * 3600


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary name; on success sync it and rename it to ``path``.

    It is in the same folder, because a rename is atomic only within a file system. It begins with a
    dot and keeps the suffix, so that no rule and no glob matches it. If the block raises, the
    temporary file or folder is removed and ``path`` is left unchanged. Temporary files of killed
    processes are removed first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(
        f".{path.stem}.{HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp{path.suffix}"
    )
    try:
        yield temporary
        if temporary.is_dir():
            if path.exists():
                shutil.rmtree(path)
        else:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        _remove(temporary)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary names of ``path`` whose process has ended."""
    pattern = re.compile(
        rf"\.{re.escape(path.stem)}\.(.+)-(\d+)-[0-9a-f]{{8}}\.tmp{re.escape(path.suffix)}"
    )
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*.tmp*"):
        if not (match := pattern.fullmatch(left.name)):
            continue
        with contextlib.suppress(FileNotFoundError):
            if match[1] == HOST:
                gone = not process_exists(int(match[2]))
            else:  # its processes cannot be seen
                gone = time.time() - left.stat().st_mtime > _FORGOTTEN
            if gone:
                _remove(left)


def process_exists(process: int) -> bool:
    """Return whether a process exists; for a negative number, any process of that group."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` atomically; line ends are not translated."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys to ``path`` atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return the text of `write_json`."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
