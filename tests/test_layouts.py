"""A miniature of each public data set becomes a category that can be indexed."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from conftest import save_image
from indad.cli import check, main, override
from indad.core import checksum
from indad.core.errors import ConfigError, DataError
from indad.data import manifest
from indad.data.examine import LEAST_SEEN
from indad.data.folder_layout import Reading
from indad.data.images import Geometry
from indad.data.public import archives, catalogue, sources
from indad.data.public.layouts import LAYOUTS
from indad.evaluation import saturated_overlap
from indad.pipeline.config import Config
from indad.pipeline.config_files import load_config, merged
from indad.pipeline.dataset import Dataset
from indad.pipeline.presentation import deciding_part, size_notes
from indad.pipeline.settings import category_jobs, job_settings

RNG = np.random.default_rng(0)


def photo(path: Path) -> Path:
    return save_image(path, RNG.integers(0, 255, (24, 24, 3), dtype=np.uint8))


def mask(path: Path, side: int = 5, value: int = 255) -> Path:
    pixels = np.zeros((24, 24), np.uint8)
    pixels[:side, :side] = value
    return save_image(path, pixels)


def make_mvtec(root: Path, category: str) -> None:
    for i in range(3):
        photo(root / category / f"train/good/{i:03d}.png")
    photo(root / category / "test/good/000.png")
    photo(root / category / "test/scratch/000.png")
    mask(root / category / "ground_truth/scratch/000_mask.png")
    (root / category / "license.txt").write_text("licence")


def make_visa(root: Path, category: str) -> None:
    rows = []
    for split, label, names in (
        ("train", "normal", ("0000", "0001", "0002")),
        ("test", "normal", ("0003",)),
        ("test", "anomaly", ("000",)),
    ):
        for name in names:
            kind = "Anomaly" if label == "anomaly" else "Normal"
            image = f"{category}/Data/Images/{kind}/{name}.JPG"
            photo(root / image)
            drawn = f"{category}/Data/Masks/Anomaly/{name}.png" if label == "anomaly" else ""
            if drawn:
                mask(root / drawn, value=1)  # VisA's masks hold small numbers
            rows.append([category, split, label, image, drawn])
    table = root / "split_csv/1cls.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("a", newline="") as file:
        writer = csv.writer(file)
        if not file.tell():
            writer.writerow(["object", "split", "label", "image", "mask"])
        writer.writerows(rows)


def make_btad(root: Path, category: str) -> None:
    for i in range(3):
        photo(root / category / f"train/ok/{i:04d}.bmp")
    photo(root / category / "test/ok/0000.bmp")
    photo(root / category / "test/ko/0000.bmp")
    mask(root / category / "ground_truth/ko/0000.png")


def make_mvtec_loco(root: Path, category: str) -> None:
    for split, count in (("train/good", 3), ("validation/good", 2), ("test/good", 1)):
        for i in range(count):
            photo(root / category / f"{split}/{i:03d}.png")
    for kind in ("logical_anomalies", "structural_anomalies"):
        photo(root / category / f"test/{kind}/000.png")
        mask(root / category / f"ground_truth/{kind}/000/000.png", 4)
        mask(root / category / f"ground_truth/{kind}/000/001.png", 6, value=128)
    (root / category / "defects_config.json").write_text("[]")


def make_mvtec_ad_2(root: Path, category: str) -> None:
    for split, count in (("train/good", 3), ("validation/good", 2), ("test_public/good", 1)):
        for i in range(count):
            photo(root / category / f"{split}/{i:03d}_regular.png")
    photo(root / category / "test_public/bad/000_regular.png")
    mask(root / category / "test_public/ground_truth/bad/000_regular_mask.png")
    photo(root / category / "test_private/000_regular.png")


def make_magnetic_tile(root: Path, category: str) -> None:
    for i in range(5):
        photo(root / f"MT_Free/Imgs/exp1_num_{i}.jpg")
        mask(root / f"MT_Free/Imgs/exp1_num_{i}.png", 0)
    for kind in ("MT_Crack", "MT_Blowhole"):
        photo(root / f"{kind}/Imgs/exp2_num_1.jpg")
        mask(root / f"{kind}/Imgs/exp2_num_1.png")
        photo(root / f"{kind}/Imgs/exp2_num_2.jpg")
        mask(root / f"{kind}/Imgs/exp2_num_2.png", 0)
    (root / "README.md").write_text("read me")


def make_kolektor_sdd2(root: Path, category: str) -> None:
    for split, good, bad in (("train", 3, 1), ("test", 1, 1)):
        for i in range(good + bad):
            photo(root / f"{split}/{10000 + i}.png")
            mask(root / f"{split}/{10000 + i}_GT.png", 0 if i < good else 5)
    shutil.copy(root / "train/10000.png", root / "train/10000 (copy).png")


def make_aitex(root: Path, category: str) -> None:
    fabric = category.removeprefix("fabric_")
    for i in range(1, 9):
        photo(root / f"NODefect_images/2306881-2100{fabric}u/{i:04d}_000_{fabric}.png")
    for number, code, masks in ((10, "006", ["mask"]), (44, "019", ["mask1", "mask2"])):
        name = f"{number:04d}_{code}_{fabric}"
        photo(root / f"Defect_images/{name}.png")
        for side, each in enumerate(masks, 4):
            mask(root / f"Mask_images/{name}_{each}.png", side)
    photo(root / "Defect_images/0100_025_08.png")  # a fabric without good strips


def make_bsdata(root: Path, category: str) -> None:
    def record(name: str, kind: int = 2, label: bool = False) -> dict:
        photo(root / f"data/{name}.jpg")
        if label:
            (root / "label").mkdir(exist_ok=True)
            shape = {
                "label": "Pitting",
                "points": [[2, 2], [9, 2], [9, 9]],
                "shape_type": "polygon",
            }
            content = {"shapes": [shape], "imageHeight": 24, "imageWidth": 24, "imageData": ""}
            (root / f"label/{name}.json").write_text(json.dumps(content))
        annotations = f"{name}.json" if label else None
        return {"filename": f"{name}.jpg", "type": kind, "annotations": annotations}

    images = [record(f"01_20082811{i:02d}14_277500_315_crop_2") for i in range(9)]
    images += [record("01_200902053521_585000_090_crop_2", label=True)]
    images += [record("01_200908225219_437500_315_crop_1", label=True)]
    images += [record("01_200916071922_635000_270_crop_1")]
    images += [record("spindle_1", kind=1, label=True)]
    (root / "image_data.json").write_text(json.dumps({"images": images}))


def make_kolektor_sdd(root: Path, category: str) -> None:
    for item in range(1, 6):
        for part in range(2):
            photo(root / f"kos{item:02d}/Part{part}.jpg")
            mask(root / f"kos{item:02d}/Part{part}_label.bmp", 5 if (item, part) == (2, 1) else 0)


def make_mvtec_3d_ad(root: Path, category: str) -> None:
    for i in range(3):
        photo(root / category / f"train/good/rgb/{i:03d}.png")
    for kind in ("good", "hole"):
        photo(root / category / f"test/{kind}/rgb/000.png")
        mask(root / category / f"test/{kind}/gt/000.png", 0 if kind == "good" else 5)
    photo(root / category / "validation/good/rgb/000.png")
    (root / category / "train/good/xyz").mkdir()
    (root / category / "train/good/xyz/000.tiff").write_bytes(b"a point cloud")


#: For each data set: its maker, and the numbers of training, good and defective test images.
MINIATURES = {
    "mvtec_ad": (make_mvtec, 3, 1, {"scratch": 1}),
    "mpdd": (make_mvtec, 3, 1, {"scratch": 1}),
    "visa": (make_visa, 3, 1, {"anomaly": 1}),
    "btad": (make_btad, 3, 1, {"ko": 1}),
    "mvtec_loco_ad": (
        make_mvtec_loco, 3, 1, {"logical_anomalies": 1, "structural_anomalies": 1}
    ),
    "mvtec_ad_2": (make_mvtec_ad_2, 3, 1, {"bad": 1}),
    "magnetic_tile": (make_magnetic_tile, 3, 2, {"crack": 1, "blowhole": 1}),
    "kolektor_sdd2": (make_kolektor_sdd2, 3, 1, {"defect": 1}),
    "kolektor_sdd": (make_kolektor_sdd, 7, 2, {"defect": 1}),
    "mvtec_3d_ad": (make_mvtec_3d_ad, 3, 1, {"hole": 1}),
    "aitex": (make_aitex, 6, 2, {"broken_yarn": 1, "fuzzyball": 1}),
    "bsdata": (make_bsdata, 7, 2, {"pitting": 2}),
}  # fmt: skip
OPTIONS = {"magnetic_tile": {"good": 2}}


def pack(root: Path, archive: Path, top: str) -> Path:
    """Pack a folder as its data set's archive is: below ``top``."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in files:
                packed.write(path, f"{top}{path.relative_to(root)}")
        return archive
    with tarfile.open(
        archive, f"w:{archive.suffix.removeprefix('.').replace('tar', '')}"
    ) as packed:
        for path in files:
            packed.add(path, f"{top}{path.relative_to(root)}")
    return archive


def make_category(name: str, category: str, place: str, tmp_path: Path) -> Path:
    """Make a category as the workflow does: find a place, then take the category from it."""
    entry = catalogue.load()[name]
    record = tmp_path / "record.json"
    found = archives.obtain(
        entry, [catalogue.Place.of({"from": place, "sha256": sha256(place)}, mine=True)],
        [category], tmp_path / "downloads",
    )  # fmt: skip
    checksum.write_json(record, found)
    folder = tmp_path / "made" / category
    sources.fetch(
        folder, tmp_path / "receipt.json", source=name, category=category,
        options=sources.check_options(name, OPTIONS.get(name, {}), "options"),
        download=archives.Download(record, [category], tmp_path / "downloads"),
    )  # fmt: skip
    return folder


def sha256(place: str) -> str | None:
    path = Path(place)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_becomes_a_category(tmp_path, name, form):
    make, train, good, defects = MINIATURES[name]
    entry = catalogue.load()[name]
    category, other = entry.categories[0], entry.categories[-1]
    root = tmp_path / "original"
    for each in dict.fromkeys((category, other)):
        make(root, each)
    place = str(root) if form == "folder" else str(pack(root, tmp_path / entry.file, "top/"))
    folder = make_category(name, category, place, tmp_path)
    table = manifest.build(folder, Reading(mask_suffix=entry.layout.mask_suffix))
    counts = table.groupby(["split", "defect"]).size().to_dict()
    expected = {("train", "good"): train, ("test", "good"): good}
    assert counts == expected | {("test", defect): n for defect, n in defects.items()}
    assert (table.loc[table["label"] == 1, "mask"] != "").all()
    assert (table.loc[table["label"] == 0, "mask"] == "").all()
    # Nothing of the archive stays unpacked, and the original is not touched.
    assert not list((tmp_path / "downloads").glob("unpacked*"))
    assert len(list(root.rglob("*.*"))) > 0


def test_the_masks_of_loco_stay_separate_beside_their_saturations(tmp_path):
    make_mvtec_loco(tmp_path / "loco", "pushpins")
    make_category("mvtec_loco_ad", "pushpins", str(tmp_path / "loco"), tmp_path)
    settings = {"source": "mvtec_loco_ad", "categories": ["pushpins"]}
    made = Dataset.from_config("loco", settings, tmp_path / "results", tmp_path / "downloads")
    assert made.request["layout"] == LAYOUTS["mvtec_loco"].version == 2
    assert (made.metrics, made.reading.mask_suffix) == (("spro_05",), ("/*",))
    table = manifest.build(tmp_path / "made/pushpins", made.reading)
    for row in table[table["label"] == 1].itertuples():
        folder = f"ground_truth/{row.defect}/000"
        names = [name for name, _ in manifest.mask_files(row)]
        assert names == [f"{folder}/000.png", f"{folder}/001.png"]
    assert (tmp_path / "made/pushpins" / saturated_overlap.FILE).is_file()


def test_both_masks_of_a_fabric_are_used_and_a_fourth_of_its_good_strips_tests(tmp_path):
    make_aitex(tmp_path / "a", "fabric_03")
    folder = make_category("aitex", "fabric_03", str(tmp_path / "a"), tmp_path)
    united = np.asarray(Image.open(folder / "ground_truth/fuzzyball/0044_019_03_mask.png"))
    assert (united > 0).sum() == 25
    tested = sorted(path.name for path in (folder / "test/good").iterdir())
    assert tested == ["0004_000_03.png", "0008_000_03.png"]


def test_every_layout_and_data_set_has_a_miniature():
    assert set(MINIATURES) == set(catalogue.load())
    assert {entry.layout.picture for entry in catalogue.load().values()} == {
        layout.picture for layout in LAYOUTS.values()
    }


def test_a_listed_file_that_is_missing_is_named(tmp_path):
    make_visa(tmp_path / "visa", "candle")
    missing = tmp_path / "visa/candle/Data/Images/Normal/0001.JPG"
    missing.unlink()
    with pytest.raises(DataError, match=r"visa, from .*: .*0001.JPG: missing, but the data set"):
        make_category("visa", "candle", str(tmp_path / "visa"), tmp_path)
    assert not (tmp_path / "made/candle").exists()


def test_all_places_that_fail_are_listed_with_what_to_do(tmp_path):
    entry = catalogue.load()["mpdd"]
    bad = tmp_path / "MPDD.zip"
    bad.write_bytes(b"not what it should be")
    (tmp_path / "empty").mkdir()
    mine = [
        catalogue.Place.of({"from": str(bad), "sha256": "0" * 64}, mine=True),
        catalogue.Place.of(str(tmp_path / "empty"), mine=True),
        catalogue.Place.of("/no/such/place", mine=True),
    ]
    with pytest.raises(DataError) as error:
        archives.obtain(entry, mine, ["tubes"], tmp_path / "downloads")
    message = str(error.value)
    for part in (
        f"{bad}: its sha256 is {sha256(str(bad))}, not 000",
        "does not contain tubes; expected <category>/train/good/*.png",
        "/no/such/place: no such file or folder",
        f"To get it by hand: download MPDD.zip from {entry.homepage} and put it into "
        f"{tmp_path / 'downloads'}",
        "datasets: {mpdd: {source: mpdd, mirrors: [/data/MPDD.zip]}}",
    ):
        assert part in message


def test_an_archive_with_another_hash_is_not_used(tmp_path):
    entry = catalogue.load()["mvtec_ad"]
    make_mvtec(tmp_path / "original", "bottle")
    pack(tmp_path / "original", tmp_path / "mine.tar.xz", "")
    place = catalogue.Place.of(str(tmp_path / "mine.tar.xz"), mine=True)
    only_mine = dataclasses.replace(entry, places=())
    with pytest.raises(DataError, match="not cf4313b13603.*To use it anyway, configure it as"):
        archives.obtain(only_mine, [place], ["bottle"], tmp_path / "downloads")


def test_an_archive_placed_by_hand_is_found_first_and_must_not_change(tmp_path):
    entry = catalogue.load()["mpdd"]
    make_mvtec(tmp_path / "original", "tubes")
    archive = pack(tmp_path / "original", tmp_path / "downloads" / entry.file, "")
    record = tmp_path / "record.json"
    found = archives.obtain(entry, [], ["tubes"], tmp_path / "downloads")
    assert found["path"] == str(archive)
    assert found["verified"] is False  # no hash is known of this data set
    checksum.write_json(record, found)
    archive.write_bytes(archive.read_bytes() + b" ")
    with (
        pytest.raises(DataError, match=r"MPDD.zip: the archive was removed or changed since"),
        archives.category_tree(
            entry, "tubes", archives.Download(record, ["tubes"], tmp_path / "downloads")
        ),
    ):
        pass


def chosen(*arguments: str):
    """The settings of a command line, and what is said of them."""
    parsed = main.parse(["all", *arguments])
    settings, _, notes = override.override(parsed)
    return settings, notes


def test_a_folder_with_some_categories_of_a_public_data_set(tmp_path):
    place = ("--dataset", "visa", "--data-root", str(tmp_path))
    make_visa(tmp_path, "capsules")
    make_visa(tmp_path, "candle")
    settings, (absent,) = chosen(*place)
    expected = {"mirrors": [str(tmp_path)], "categories": ["candle", "capsules"]}
    assert settings["datasets"] == {"visa": expected}
    assert absent.startswith(f"visa: {tmp_path} does not have cashew, chewinggum, fryum")
    settings, lines = chosen(*place, "--category", "capsules")
    assert settings["datasets"]["visa"] == expected | {"categories": ["capsules"]}
    assert lines == []
    with pytest.raises(ConfigError, match="--category fryum: not in .*, which has candle"):
        chosen(*place, "--category", "fryum")
    with pytest.raises(ConfigError, match="a run downloads, converts or makes visa first"):
        check.run(main.parse(["check", *place]), Console())


def rearrange_visa(original: Path, folder: Path) -> None:
    """Copy VisA's images as its authors' script and anomalib do."""
    with (original / "split_csv/1cls.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            kind = "good" if row["label"] == "normal" else "bad"
            target = folder / row["object"] / row["split"] / kind
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(original / row["image"], target)
            if row["mask"]:
                drawn = np.where(np.asarray(Image.open(original / row["mask"])) > 0, 255, 0)
                name = f"{row['object']}/ground_truth/bad/{Path(row['mask']).name}"
                save_image(folder / name, drawn.astype(np.uint8))


@pytest.mark.parametrize("top", ["VisA_pytorch/1cls", "visa_pytorch", ""])
def test_every_arrangement_of_visa_gives_the_same_category(top, tmp_path):
    make_visa(tmp_path / "original", "candle")
    copies = tmp_path / "copies"
    rearrange_visa(tmp_path / "original", copies / top)
    # Copies by the splits with two classes lack the masks of the other split.
    two = copies / Path(top).parent / "2cls_fewshot/candle"
    if top.endswith("1cls"):
        shutil.copytree(copies / top / "candle", two)
    settings, _ = chosen("--dataset", "visa", "--data-root", str(copies))
    assert settings["datasets"]["visa"] == {"mirrors": [str(copies)], "categories": ["candle"]}
    made = []
    for place in (tmp_path / "original", copies, pack(copies, tmp_path / "copies.tar", "")):
        folder = make_category("visa", "candle", str(place), tmp_path / f"from_{place.name}")
        table = manifest.build(folder)
        made.append(table[["image", "split", "label", "defect", "mask", "width", "height"]])
    assert len(made[0]) == 5
    assert made[0].equals(made[1])
    assert made[0].equals(made[2])


def test_mvtec_ad_and_its_relatives_by_their_layout(tmp_path):
    make_mvtec(tmp_path / "ad", "bottle")
    settings, (absent,) = chosen("--dataset", "mvtec_ad", "--data-root", str(tmp_path / "ad"))
    expected = {"path": str(tmp_path / "ad"), "categories": ["bottle"]}
    assert settings["datasets"] == {"mvtec_ad": expected}
    assert "does not have cable, capsule" in absent
    make_mvtec_loco(tmp_path / "loco", "pushpins")  # train/good as in MVTec AD, but other masks
    settings, _ = chosen("--dataset", "mvtec_loco_ad", "--data-root", str(tmp_path / "loco"))
    expected = {"mirrors": [str(tmp_path / "loco")], "categories": ["pushpins"]}
    assert settings["datasets"] == {"mvtec_loco_ad": expected}


#: Height and width of images of public data sets, as their authors publish them.
SIZES = {
    "mvtec_ad": [(900, 900), (1024, 1024)], "mpdd": [(1024, 1024)],
    "visa": [(1000, 1500), (1168, 1284)], "btad": [(1600, 1600), (600, 800)],
    "mvtec_loco_ad": [(1280, 1600), (1600, 800), (1000, 1700), (850, 1700)],
    "mvtec_ad_2": [(1024, 2232), (1056, 4224), (1900, 1400)],
    "aitex": [(256, 4096), (256, 3796)], "bsdata": [(460, 1130), (645, 1540)],
    "magnetic_tile": [(250, 380)], "kolektor_sdd2": [(630, 230)],
    "kolektor_sdd": [(1240, 500), (1270, 500)], "mvtec_3d_ad": [(400, 400), (800, 800), (500, 800)],
}  # fmt: skip


def settings_of(config: Config) -> dict[str, dict]:
    """The settings of all jobs on the first category, by the job's name."""
    (dataset, category), *_ = config.categories
    found = {}
    for job in category_jobs(config):
        rule, _, at, *rest = job.split("/")
        if at == category:
            names = dict.fromkeys(
                ("geometry", "extractor", "model", "experiment"), "".join(rest[:1])
            )
            found[job] = job_settings(config, rule, {"dataset": dataset, "category": at, **names})
    return found


@pytest.mark.parametrize("name", catalogue.load())
def test_public_data_sets_are_seen_whole(name, tmp_path):
    plain = Config.read(merged(load_config(None), {"run": {"datasets": [name]}}))
    geometry = plain.extractor("wrn50", name).geometry
    assert all(geometry.share_seen(*size) >= LEAST_SEEN for size in SIZES[name])
    # `indad run` and `snakemake --config` have the same settings of all jobs.
    settings, _ = chosen("--dataset", name)
    command = Config.read(merged(load_config(None), settings))
    assert settings_of(command) == settings_of(plain)
    (line, *_), resized = [*size_notes(plain), ""], plain.datasets[name].resize
    if resized:
        assert line.startswith(f"{name}: whole images are resized to {resized[0]} x {resized[1]}")
        assert (geometry.resize, geometry.crop) == (tuple(resized), None)
    # An extractor's own size, or another one of the data set, replaces it.
    own = {"run": {"datasets": [name]}, "extractors": {"wrn50": {"crop": 200}}}
    made = Config.read(merged(load_config(None), own))
    assert made.extractor("wrn50", name).geometry == Geometry(256, (200, 200))
    assert not size_notes(made)
    own = {"run": {"datasets": [name]}, "datasets": {name: {"resize": None}}}
    made = Config.read(merged(load_config(None), own))
    assert made.extractor("wrn50", name).geometry == Geometry(256, (224, 224))


def test_data_sets_of_one_run_have_their_own_sizes():
    changes = {"datasets": ["mvtec_ad", "visa"], "experiments": ["PatchCore-10", "AnomalyDINO"]}
    made = Config.read(merged(load_config(None), {"run": changes}))
    assert list(made.geometries("mvtec_ad")) == ["256-224", "448-448"]
    assert list(made.geometries("visa")) == ["256x384", "448-448"]
    assert made.of_one_size("visa", "256x384") == []
    (line,) = size_notes(made)
    assert line.startswith("visa: whole images are resized to 256 x 384 for wrn50, as set for")
    assert "resize" not in deciding_part(made)["extractors"]["wrn50"]
    jobs = category_jobs(made)
    assert "decode/visa/candle/256x384" in jobs
    assert "decode/visa/candle/256-224" not in jobs
