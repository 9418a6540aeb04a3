"""The check of a data folder reports everything before anything is computed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from conftest import ROOT, read_image, save_image
from indad.cli import main
from indad.cli.check import cells_of
from indad.data import decode as decoding
from indad.data import manifest
from indad.data.check import check
from indad.data.images import Geometry, decode

WHOLE = Geometry(40, None)


def test_a_good_folder_is_described(category):
    report = check(category, [Geometry((40, 48), None)])
    assert report.problems == []
    cells = ("3", "2", "2 cut\n1 dirt", "3 of 3", "8 48x40", "8 PNG RGB", "none")
    assert cells_of(report) == cells


def test_damage_after_the_header_is_found(category):
    path = category / "test/cut/000.png"
    path.write_bytes(path.read_bytes()[:-300])
    assert len(manifest.build(category)) == 8  # the index cannot see it
    (problem,) = check(category, [WHOLE]).problems
    assert "test/cut/000.png: cannot be decoded" in problem


def test_duplicates_are_reported(category):
    shutil.copy(category / "train/good/001.png", category / "test/good/100.png")
    shutil.copy(category / "train/good/001.png", category / "train/good/100.png")
    flattered, twice = map(str, check(category, [WHOLE]).warnings)
    assert "1 test images are also training images" in flattered
    assert "test/good/100.png = train/good/001.png" in flattered
    assert "1 training images appear twice: train/good/100.png" in twice


@pytest.mark.parametrize("missing", ["all", "one kind"])
def test_masks_that_are_missing_are_counted(category, missing):
    shutil.rmtree(category / ("ground_truth" if missing == "all" else "ground_truth/dirt"))
    (warning,) = check(category, [WHOLE]).warnings
    assert warning.text.startswith("no masks: 3 of 3" if missing == "all" else "1 of 3")
    assert warning.note == (missing == "all")


def test_mixed_sizes_need_a_crop_or_a_square(category, rng):
    save_image(category / "train/good/wide.png", rng.integers(0, 255, (40, 300, 3), dtype=np.uint8))
    (problem,) = check(category, [WHOLE], one_size={WHOLE: ["PaDiM-R18"]}).problems
    assert "images differ in size after the preprocessing" in problem
    assert "PaDiM-R18 cannot use them" in problem
    assert check(category, [WHOLE]).problems == []
    assert check(category, [Geometry(40, (32, 32))]).problems == []
    assert check(category, [Geometry((40, 40), None)]).problems == []
    (problem,) = check(category, [Geometry(40, (48, 48))]).problems
    assert "smaller than the crop" in problem


KINDS = {
    "grey.png": ("L", {}), "bilevel.png": ("1", {}), "alpha.png": ("RGBA", {}),
    "palette.png": ("P", {}), "photo.jpg": ("RGB", {"quality": 95}), "grey.jpeg": ("L", {}),
    "cmyk.jpg": ("CMYK", {}), "b.bmp": ("RGB", {}), "scan.tif": ("RGB", {}),
    "lzw.tiff": ("RGB", {"compression": "tiff_lzw"}), "w.webp": ("RGB", {"lossless": True}),
    "deep.png": ("I;16", {}), "deep.tif": ("I;16", {}), "float.tiff": ("F", {}),
    "UPPER.PNG": ("RGB", {}), "a b (1).png": ("RGB", {}), "größe_漢字.png": ("RGB", {}),
    "good.png": ("RGB", {}), "very_good_mask.png": ("RGB", {}), "dots.v1.2.png": ("RGB", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_and_name_is_read(category, name):
    mode, options = KINDS[name]
    rows, columns = np.mgrid[0:40, 0:48]
    smooth = np.stack([rows * 6, columns * 5, 200 - rows - columns], axis=2).astype(np.uint8)
    base = Image.fromarray(smooth)
    if mode in ("I;16", "F"):
        values = np.asarray(base.convert("L"))
        deep = values.astype(np.uint16) * 257 if mode == "I;16" else values / np.float32(255)
        image = Image.fromarray(deep)
    else:
        image = base.convert(mode)
    for folder in ("train/good", "test/cut"):
        image.save(category / folder / name, **options)
    stem = Path(name).stem
    save_image(category / f"ground_truth/cut/{stem}_mask.png", np.ones((40, 48), np.uint8))
    report = check(category, [WHOLE])
    assert report.problems == []
    assert cells_of(report)[:4] == ("4", "2", "3 cut\n1 dirt", "4 of 4")
    table = manifest.build(category)
    decoding.decode(table, category, category.parent / "p.h5", geometry=WHOLE)
    with decoding.Pixels(category.parent / "p.h5", table) as decoded:
        at = decoded.images("train").index(f"train/good/{name}")
        seen = decoded.read("train", [at])[0]
    if mode in ("L", "I;16", "F"):
        expected = np.asarray(base.convert("L"))[..., None].repeat(3, axis=2).astype(int)
    elif mode in ("RGB", "RGBA"):
        expected = np.asarray(base).astype(int)
    else:  # what the mode loses is lost
        expected = np.asarray(decode(category / "train/good" / name).convert("RGB")).astype(int)
    lossy = name.endswith((".jpg", ".jpeg"))
    assert np.abs(seen - expected).mean() < (2 if lossy else 0.6)
    np.testing.assert_array_equal(seen, read_image(category / "train/good" / name, WHOLE))


def run_check(*arguments: str) -> SimpleNamespace:
    """Run the command in this process: a new one would import everything again."""
    with redirect_stdout(StringIO()) as output:
        code = main.main(["check", *arguments])
    return SimpleNamespace(returncode=code, stdout=output.getvalue())


def test_the_command_is_one():
    command = [sys.executable, str(ROOT / "scripts/run.py"), "check", "--data-root", "/no/such"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "/no/such: data folder not found" in done.stdout
    assert not done.stderr


def test_the_command_prints_a_table_and_all_problems(category):
    done = run_check("--data-root", str(category.parent), "--extractor", "lite0")
    assert done.returncode == 0, done.stdout
    assert "No problem in 1 category, for resize 256, crop 224" in done.stdout
    assert "widget" in done.stdout
    shutil.copytree(category, category.parent / "second")
    (category.parent / "second/train/good/000.png").write_bytes(b"junk")
    (category / "test/cut/000.png").write_bytes(b"")
    done = run_check("--data-root", str(category.parent))
    assert done.returncode == 1
    assert "second/train/good/000.png: cannot be decoded" in done.stdout
    assert "widget/test/cut/000.png: cannot be decoded" in done.stdout
    assert "2 problems" in done.stdout
    # A category itself may be given.
    assert run_check("--data-root", str(category)).returncode == 1
    assert "check needs --data-root DIR" in run_check().stdout


def test_suspicious_masks_and_images_are_reported(category):
    rows, columns = np.mgrid[0:40, 0:48]
    Image.fromarray((rows * columns).astype(np.uint16)).save(category / "train/good/000.png")
    inverted = np.full((40, 48), 255, np.uint8)
    inverted[:9] = 0
    save_image(category / "ground_truth/cut/000_mask.png", inverted)
    (category / "ground_truth/cut/001_mask.png").rename(category / "001_mask.png")
    Image.open(category / "001_mask.png").save(category / "ground_truth/cut/001_mask.jpg")
    (category / "001_mask.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 3
    photo = Image.open(category / "test/dirt/a.png")
    photo.save(category / "test/dirt/a.png", exif=exif)
    report = check(category, [WHOLE])
    assert report.problems == []
    lossy, large, turned, dark = map(str, report.warnings)
    assert "1 masks have values between black and white" in lossy
    assert "1 masks cover more than half of the image" in large
    assert "1 images with a mask are rotated or mirrored" in turned
    assert "1 training images of more than 8 bits are almost black" in dark
    assert "a camera of 11 bits: train/good/000.png" in dark


def test_a_mask_of_the_raw_photo_is_refused(category):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(category / "test/dirt/a.png").save(category / "test/dirt/a.png", exif=exif)
    (problem,) = (
        each for each in check(category, [WHOLE]).problems if "a.png: the mask has" in each
    )
    assert "48 x 40 pixels, its image has 40 x 48; the image is rotated by its EXIF" in problem


def test_values_out_of_range_are_problems(category):
    Image.fromarray(np.full((40, 48), 300, np.float32)).save(category / "train/good/f.tif")
    (problem,) = check(category, [WHOLE]).problems
    assert "train/good/f.tif: its floats range from 300 to 300, not from 0 to 1" in problem


def test_the_command_honours_options_and_suggests_them(category, tmp_path):
    (category / "train/good").rename(category / "train/OK")
    (category / "test/good").rename(category / "test/OK")
    done = run_check("--data-root", str(category.parent))
    assert done.returncode == 2
    assert "'widget' seems to be a category with other folder names" in done.stdout
    # What is suggested, as it is printed, reads the folder.
    suggested = done.stdout[done.stdout.index("    datasets:") :]
    (tmp_path / "mine.yaml").write_text(textwrap.dedent(suggested))
    arguments = ("--configfile", str(tmp_path / "mine.yaml"), "--dataset", "mine")
    for more in ((), ("--data-root", str(category))):
        done = run_check(*arguments, *more)
        assert done.returncode == 0, done.stdout
        assert "No problem in 1 category" in done.stdout
    (tmp_path / "mine.yaml").write_text("datasets: {mine: {path: x, goood: OK}}")
    done = run_check(*arguments)
    assert done.returncode == 2
    assert "datasets.mine.goood: unknown key (did you mean good?)" in done.stdout


def test_a_narrow_terminal_gets_lines_instead_of_a_table(category, capsys):
    console = Console(width=50, force_terminal=True, no_color=True, highlight=False)
    arguments = main.parse(["check", "--data-root", str(category)])
    assert arguments.run(arguments, console) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  defects  2 cut, 1 dirt") for line in lines)
    assert not any("┃" in line for line in lines)


def strips(folder: Path, *sizes: tuple[int, int]) -> Path:
    """Make a category of long images, with defects at their ends."""
    rng = np.random.default_rng(0)
    for place, count in (("train/good", 4), ("test/good", 2), ("test/cut", 2)):
        for i in range(count):
            height, width = sizes[i % len(sizes)]
            pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            save_image(folder / place / f"{i}.png", pixels)
            if place == "test/cut":
                mask = np.zeros((height, width), np.uint8)
                mask[:, : width // 40 if i else width // 3] = 255
                save_image(folder / f"ground_truth/cut/{i}_mask.png", mask)
    return folder


def write_config(path: Path, folder: Path, **extractors: dict) -> Path:
    """Write a configuration that runs PaDiM with each of the extractors."""
    backbone = {"backbone": "resnet18", "weights": "random", "layers": ["layer1"]}
    settings = {
        "run": {"datasets": ["mine"], "experiments": [*extractors]},
        "datasets": {"mine": {"path": str(folder.parent)}},
        "extractors": {name: backbone | more for name, more in extractors.items()},
        "experiments": {name: {"method": "padim", "extractor": name} for name in extractors},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_every_extractor_of_the_run_is_examined(tmp_path):
    folder = strips(tmp_path / "data/strip", (64, 256))
    file = write_config(tmp_path / "c.yaml", folder, near={"crop": 224}, whole={"crop": None})
    done = run_check("--configfile", str(file))
    assert done.returncode == 0, done.stdout
    lines = " ".join(done.stdout.split())
    assert "resize 256, crop 224 for near; resize 256, crop null for whole" in lines
    assert "the centre crop (256-224) hides the rest" in lines
    # As with the run: one of several extractors, and another folder for the data set.
    assert "for near" not in run_check("--configfile", str(file), "--extractor", "whole").stdout
    strips(tmp_path / "other/more", (64, 256), (64, 300))
    done = run_check("--configfile", str(file), "--data-root", str(tmp_path / "other"))
    assert done.returncode == 1
    assert "with preprocessing 256: images differ in size" in " ".join(done.stdout.split())


@pytest.mark.parametrize("sizes", [[(64, 256)], [(64, 256), (96, 300)], [(115, 282), (161, 385)]])
@pytest.mark.parametrize("crop", [(224, 224), None])
@pytest.mark.parametrize("patch", [0, 14])
def test_following_each_remedy_leads_to_a_run_that_works(tmp_path, sizes, crop, patch):
    folder = strips(tmp_path / "part", *sizes)
    first = Geometry(256, crop)
    report = check(folder, [first], one_size={first: ["PaDiM"]}, patches={first: patch})
    warned = [each for each in report.warnings if each.code.startswith("crop-")]
    assert len(warned) >= 2 if crop else not warned
    texts = [each.remedy for each in warned] + [each.split(". Set ")[1] for each in report.problems]
    assert texts or len(sizes) == 1
    for text in {each for remedy in texts for each in remedy.split(" or ")}:
        settings = {"resize": 256, "crop": crop}
        for option in (options := re.findall("'([^']+)'", text)):
            settings |= yaml.safe_load(option)
        geometry = Geometry.from_config(**settings)
        # The other remedy is another method, which takes any size.
        needs = {"one_size": {geometry: ["PaDiM"]}, "patches": {geometry: patch}}
        again = check(folder, [geometry], **(needs if options else {}))
        assert again.problems == []
        if options and patch:
            assert all(side % patch == 0 for side in geometry.output(*sizes[0]))
        assert not any(each.code.startswith("crop-") for each in again.warnings)
        decoding.decode(manifest.build(folder), folder, tmp_path / "pixels.h5", geometry=geometry)


def test_the_tiles_of_each_extractor_are_counted(tmp_path):
    folder = strips(tmp_path / "data/strip", (64, 256), (64, 200))
    extractors = {
        name: {"resize": 64, "crop": None, "tiles": {"size": 64, "overlap": overlap}}
        for name, overlap in (("few", 0), ("many", 32), ("wrong", 30))
    }
    file = write_config(tmp_path / "c.yaml", folder, **extractors)
    settings = yaml.safe_load(file.read_text())
    for each in settings["experiments"].values():
        each["method"] = "spade"
    file.write_text(yaml.safe_dump(settings))
    lines = " ".join(run_check("--configfile", str(file)).stdout.split())
    assert "extractor few sees each image in 4 tiles of at most 64 x 64 pixels" in lines
    assert "extractor many sees each image in 6 to 7 tiles" in lines
    assert "strip: extractor wrong: tiles: the overlap has 30 pixels, which is not" in lines
    assert "extractor wrong sees" not in lines
