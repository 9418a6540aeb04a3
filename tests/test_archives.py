"""Archives from elsewhere are unpacked whole, or refused; nothing gets out of their folder."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from indad import archives
from indad.errors import DataError

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
    archives.unpack(archive, folders, lambda category, parts: category in parts[:-1])
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_only_what_is_asked_for_is_unpacked(tmp_path, name):
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


def special(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("one/link.png")
    info.type, info.linkname = kind, "../../target"
    return info


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = make(tmp_path / "a.tar", {}, special(kind))
    with pytest.raises(DataError, match="link.png is a link or a device: refused"):
        unpack(archive, tmp_path / "out", "one")


def test_links_in_a_zip_are_refused(tmp_path):
    info = zipfile.ZipInfo("one/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = make(tmp_path / "a.zip", {}, info)
    with pytest.raises(DataError, match="link.png is a link or a device: refused"):
        unpack(archive, tmp_path / "out", "one")


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS", 1000)
    archive = make(tmp_path / "a.zip", {"one/zeros.png": bytes(10_000_000)})
    with pytest.raises(DataError, match="unpacks to more than .* bytes: refused"):
        unpack(archive, tmp_path / "out", "one")


def test_the_same_name_twice_is_refused(tmp_path):
    archive = make(tmp_path / "a.tar", {"one/a.png": b"1", "one//a.png": b"2"})
    with pytest.raises(DataError, match="one//a.png comes twice"):
        unpack(archive, tmp_path / "out", "one")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.xz"])
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_archive_is_damaged(tmp_path, name, keep, rng):
    archive = make(tmp_path / name, {f"one/{i}.png": rng.bytes(5000) for i in range(20)})
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    with pytest.raises(DataError, match=r"a\.\S+: .*(damaged|cut off|cannot be unpacked)"):
        unpack(archive, tmp_path / "out", "one")


def test_a_web_page_is_no_archive(tmp_path):
    page = tmp_path / "a.tar.xz"
    page.write_text("<!DOCTYPE html><html>Please accept our cookies</html>")
    with pytest.raises(DataError, match="it is a web page, not an archive"):
        unpack(page, tmp_path / "out", "one")
