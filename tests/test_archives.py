"""Archives are unpacked completely, or refused; no file is written outside their folder."""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from indad.core.errors import DataError
from indad.data.public import unpack as unpacking

FILES = {
    "top/one/train/good/0.png": b"a" * 1000,
    "top/one/test/cut/0.png": b"b" * 10,
    "top/two/train/good/0.png": b"c",
    "top/readme.txt": b"read me",
    "__MACOSX/top/one/._0.png": b"fork",
    "top/one/.DS_Store": b"junk",
}


def make(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo | zipfile.ZipInfo) -> Path:
    """Write a zip or tar archive, by the suffix, with ``extra`` members of no content."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in files.items():
                packed.writestr(name, content)
            for info in extra:
                packed.writestr(info, b"../../target")
        return path
    kind = {".xz": "w:xz", ".gz": "w:gz", ".tar": "w"}[path.suffix]
    with tarfile.open(path, kind) as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
        for info in extra:
            packed.addfile(info)
    return path


def unpack(archive: Path, folder: Path, *categories: str) -> list[str]:
    """Unpack categories, each below its own folder; return what is there now."""
    folders = {category: folder / category for category in categories}
    for each in folders.values():
        each.mkdir(parents=True)
    unpacking.unpack(archive, folders, lambda category, parts: category in parts[:-1])
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_only_the_categories_asked_for_are_unpacked(tmp_path, name):
    archive = make(tmp_path / name, FILES)
    found = unpack(archive, tmp_path / "out", "one")
    assert found == ["one/top/one/test/cut/0.png", "one/top/one/train/good/0.png"]
    assert (tmp_path / "out/one/top/one/train/good/0.png").read_bytes() == b"a" * 1000
    assert len(unpack(archive, tmp_path / "both", "one", "two")) == 3


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize(
    "name",
    ["../one/evil.png", "/one/evil.png", "one/../../evil.png", "C:/one/evil.png", "one/a\nb.png",
     "..\\one\\evil.png"],
)  # fmt: skip
def test_no_member_leaves_the_folder(tmp_path, suffix, name):
    archive = make(tmp_path / f"a{suffix}", {name: b"evil"})
    with pytest.raises(DataError, match=r"a\.\w+: the name .* leads out of the folder"):
        unpack(archive, tmp_path / "out", "one")
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, "zip"],
)
def test_links_and_devices_are_refused(tmp_path, kind):
    if kind == "zip":
        info = zipfile.ZipInfo("one/link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
    else:
        info = tarfile.TarInfo("one/link.png")
        info.type, info.linkname = kind, "../../target"
    archive = make(tmp_path / ("a.zip" if kind == "zip" else "a.tar"), {}, info)
    with pytest.raises(DataError, match="link.png is a link or a device: refused"):
        unpack(archive, tmp_path / "out", "one")


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "ALWAYS", 1000)
    archive = make(tmp_path / "a.zip", {"one/zeros.png": bytes(10_000_000)})
    with pytest.raises(DataError, match="unpacks to more than .* bytes: refused"):
        unpack(archive, tmp_path / "out", "one")


def test_the_same_name_twice_is_refused(tmp_path):
    archive = make(tmp_path / "a.tar", {"one/a.png": b"1", "one//a.png": b"2"})
    with pytest.raises(DataError, match="one//a.png occurs twice"):
        unpack(archive, tmp_path / "out", "one")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.xz"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_archive_is_damaged(tmp_path, name, keep, rng):
    archive = make(tmp_path / name, {f"one/{i}.png": rng.bytes(5000) for i in range(20)})
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    with pytest.raises(DataError, match=r"a\.\S+: .*(damaged|truncated|cannot be unpacked)"):
        unpack(archive, tmp_path / "out", "one")


def test_a_header_that_fills_the_memory_is_refused(tmp_path):
    """Names and attributes are read into memory, and compress to almost nothing."""
    archive = make(tmp_path / "a.tar.xz", {"one/" + "n" * 2_000_000: b"content"})
    with pytest.raises(DataError, match="a header of 2,0.* bytes"):
        unpack(archive, tmp_path / "out", "one")


def test_a_huge_member_is_refused_before_it_is_read(tmp_path):
    """A header that promises a terabyte: nothing of it is written."""
    info = tarfile.TarInfo("one/huge.png")
    info.size = 10**12
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(10_000))
    with pytest.raises(DataError, match="unpacks to more than 1,000,000,000 bytes: refused"):
        unpack(tmp_path / "a.tar", tmp_path / "out", "one")
    info.size = 10**8
    (tmp_path / "b.tar").write_bytes(info.tobuf() + bytes(10_000))
    with pytest.raises(DataError, match="damaged|truncated"):
        unpack(tmp_path / "b.tar", tmp_path / "more", "one")


def test_other_files_are_refused(tmp_path):
    page = tmp_path / "a.tar.xz"
    page.write_text("<!DOCTYPE html><html>Please accept our cookies</html>")
    with pytest.raises(DataError, match=r"a.tar.xz: not a zip or tar file, or damaged"):
        unpack(page, tmp_path / "out", "one")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_mutated_archives_unpack_inside_or_are_refused(tmp_path, name, rng):
    files = {f"one/{'n' * 120 * i}{i}.png": rng.bytes(50) * 10 for i in range(4)}
    whole = make(tmp_path / name, files).read_bytes()
    box = tmp_path / "box"
    for i in range(100):
        content = np.frombuffer(whole, np.uint8).copy()
        content[rng.integers(0, len(content), rng.integers(1, 8))] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(content.tobytes())
        with contextlib.suppress(DataError):
            unpack(tmp_path / name, box / str(i), "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "box"]
    assert all(path.is_relative_to(box) and not path.is_symlink() for path in box.rglob("*"))
