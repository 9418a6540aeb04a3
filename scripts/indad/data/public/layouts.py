"""Layouts of public data sets, and their conversion to MVTec AD's layout.

A layout is a function that lists, for a category, which file goes where. Files are linked or
copied, never changed; only if an image has several masks, they are combined into one.
"""

import csv
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from indad.core.errors import DataError
from indad.core.progress import Progress, ignore
from indad.data.files import is_left_out, sub_folders, walk
from indad.data.folder_layout import GOOD, Reading
from indad.data.formats import SUFFIXES
from indad.data.images import mask_pixels
from indad.data.public.unpack import safe_name

logger = logging.getLogger("indad")

#: A file, or several masks to combine, and its path below the category's folder.
Item = tuple[tuple[Path, ...], str]


@dataclass(frozen=True)
class Layout:
    """A layout of images and masks on disk.

    Attributes:
        items: ``items(root, category, *, options...)`` lists what goes where.
        markers: paths that exist below the data set's root, with ``{category}`` in them.
        picture: the layout in one line, for messages.
        native: whether it is MVTec AD's own layout, so that a folder is used where it is.
        single: whether the whole data set is one category.
        shared: folders that every category needs.
        unused: folders that no category needs.
        mask_suffix: option of that name which reads the categories laid out here.
        version: increased when the same data set is laid out in another way.
        arranged: markers of another arrangement of the same files, which ``items`` reads, too.
    """

    items: Callable[..., Iterator[Item]]
    markers: tuple[str, ...]
    picture: str
    native: bool = False
    single: bool = False
    shared: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
    mask_suffix: tuple[str, ...] = Reading.mask_suffix
    version: int = 1
    arranged: tuple[str, ...] = ()

    def wants(self, category: str, parts: tuple[str, ...]) -> bool:
        """Tell whether a category needs a file of an archive.

        Args:
            category: the category.
            parts: the file's path; up to two folders may come before that of the category.
        """
        if self.unused & set(parts[:-1]):
            return False
        return self.single or bool({category, *self.shared} & set(parts[:-1][:3]))

    def root(self, tree: Path, category: str) -> Path:
        """Find the data set's root: ``tree`` itself, or up to two folders below it.

        Raises:
            DataError: there is none, or more than one.
        """
        level, arrangements = [tree], [each for each in (self.markers, self.arranged) if each]
        for _ in range(3):
            found = [
                folder
                for folder in level
                if any(
                    all((folder / marker.format(category=category)).exists() for marker in markers)
                    for markers in arrangements
                )
            ]
            if len(found) > 1:
                raise DataError(f"{category} is in both {found[0]} and {found[1]}: give one")
            if found:
                return found[0]
            inside = (path for folder in level for path in sub_folders(folder))
            level = [path for path in inside if path.name not in self.unused]
        raise DataError(f"{tree} does not contain {category}; expected {self.picture}")

    def place(
        self,
        tree: Path,
        folder: Path,
        category: str,
        options: Mapping[str, Any],
        progress: Progress = ignore,
    ) -> None:
        """Lay out a category in ``folder`` as in MVTec AD.

        Args:
            tree: a folder with the data set in its own layout.
            folder: the category's new folder.
            category: the category.
            options: of this layout.
            progress: called with the number of files done and in total.

        Raises:
            DataError: ``tree`` does not contain the category, a file is missing, or two files would
                get the same name.
        """
        items = list(self.items(self.root(tree, category), category, **options))
        for done, (files, place) in enumerate(items, 1):
            target = folder / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise DataError(f"{files[0]}: another file of that name also becomes {place}")
            if len(files) == 1:
                _link_or_copy(files[0], target)
            else:
                _combine_masks(files, target)
            progress(done, len(items))


def _link_or_copy(source: Path, target: Path) -> None:
    """Make a hard link, which needs no space, or a copy where the file system has no links."""
    if not source.exists():
        raise DataError(f"{source}: missing, but the data set lists it")
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _combine_masks(files: Sequence[Path], target: Path) -> None:
    try:
        union = np.logical_or.reduce([mask_pixels(file) for file in files])
    except ValueError as error:
        raise DataError(f"{files[0].parent}: masks differ in size ({error})") from None
    Image.fromarray(union.astype(np.uint8) * 255).save(target)


def _image_files(folder: Path) -> list[Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        path
        for path in files
        if path.suffix.lower() in SUFFIXES and not is_left_out(path.name) and path.is_file()
    ]


def _images(folder: Path, place: str) -> Iterator[Item]:
    for path in _image_files(folder):
        yield (path,), f"{place}/{path.name}"


def _images_by_kind(folder: Path, place: str) -> Iterator[Item]:
    for kind in sub_folders(folder):
        yield from _images(kind, f"{place}/{kind.name}")


def mvtec(root: Path, category: str) -> Iterator[Item]:
    """MVTec AD itself. All files are listed, so that misplaced images are reported later."""
    folder = root / category
    for split in ("train", "test", "ground_truth"):
        for file in walk(folder / split):
            if file.status is not None:
                place = PurePosixPath(split, *file.parts)
                yield (folder / place,), str(place)


def visa(root: Path, category: str) -> Iterator[Item]:
    """VisA with its one-class split, ``split_csv/1cls.csv``. Every defect is an ``anomaly``.

    The authors' script and anomalib copy the images into the folders of this split. Their copies
    are read without the table, with the same result.
    """
    table = root / "split_csv" / "1cls.csv"
    if not table.exists():
        folder = root / category
        yield from _images(folder / "train" / GOOD, "train/good")
        yield from _images(folder / "test" / GOOD, "test/good")
        yield from _images(folder / "test" / "bad", "test/anomaly")
        for mask in _image_files(folder / "ground_truth" / "bad"):
            yield (mask,), f"ground_truth/anomaly/{mask.stem}_mask{mask.suffix}"
        return
    with table.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = {"object", "split", "label", "image", "mask"}
        if not columns <= set(reader.fieldnames or ()):
            raise DataError(f"{table}: lacks one of the columns {', '.join(sorted(columns))}")
        for row in reader:
            if row["object"] != category:
                continue
            image = root / safe_name(row["image"])
            if row["split"] == "train":
                yield (image,), f"train/good/{image.name}"
            elif row["label"] == "normal":
                yield (image,), f"test/good/{image.name}"
            else:
                mask = root / safe_name(row["mask"])
                yield (image,), f"test/anomaly/{image.name}"
                yield (mask,), f"ground_truth/anomaly/{image.stem}_mask{mask.suffix}"


def btad(root: Path, category: str) -> Iterator[Item]:
    """BTAD, where good images are called ``ok``."""
    folder = root / category
    yield from _images(folder / "train" / "ok", "train/good")
    for kind in sub_folders(folder / "test"):
        yield from _images(kind, f"test/{GOOD if kind.name == 'ok' else kind.name}")
    for kind in sub_folders(folder / "ground_truth"):
        if kind.name != "ok":
            yield from _images(kind, f"ground_truth/{kind.name}")


def mvtec_loco(root: Path, category: str) -> Iterator[Item]:
    """MVTec LOCO AD, with a folder of masks for each image, one mask for each defect.

    ``validation`` is left out. ``defects_config.json`` is what the metric ``spro_05`` needs.
    """
    folder = root / category
    if (config := folder / "defects_config.json").is_file():
        yield (config,), config.name
    yield from _images(folder / "train" / GOOD, "train/good")
    yield from _images_by_kind(folder / "test", "test")
    for kind in sub_folders(folder / "ground_truth"):
        for masks in sub_folders(kind):
            yield from _images(masks, f"ground_truth/{kind.name}/{masks.name}")


def mvtec_ad_2(root: Path, category: str) -> Iterator[Item]:
    """MVTec AD 2: its public test split. ``validation`` and the private splits are left out."""
    folder = root / category
    yield from _images(folder / "train" / GOOD, "train/good")
    for kind in sub_folders(folder / "test_public"):
        if kind.name != "ground_truth":
            yield from _images(kind, f"test/{kind.name}")
    yield from _images_by_kind(folder / "test_public" / "ground_truth", "ground_truth")


def magnetic_tile(root: Path, category: str, *, good: int = 190, seed: int = 0) -> Iterator[Item]:
    """Magnetic Tile: photos (JPEG) and masks (PNG) in one folder for each kind of defect.

    The data set has no split. ``good`` images without a defect, drawn with ``seed``, are for
    testing, the others for training. Defective images whose mask is empty are left out; there are a
    few.

    Raises:
        DataError: there are at most ``good`` images without a defect.
    """
    photos = sorted((root / "MT_Free" / "Imgs").glob("*.jpg"))
    if len(photos) <= good:
        raise DataError(
            f"{root}/MT_Free/Imgs: {len(photos)} images, too few for {good} test images and some "
            "training images; choose a smaller option 'good'"
        )
    held_out = set(np.random.default_rng(seed).permutation(len(photos))[:good].tolist())
    for i, photo in enumerate(photos):
        yield (photo,), f"{'test' if i in held_out else 'train'}/good/{photo.name}"
    for kind in sub_folders(root):
        if not kind.name.startswith("MT_") or kind.name == "MT_Free":
            continue
        defect = kind.name.removeprefix("MT_").lower()
        for photo in sorted((kind / "Imgs").glob("*.jpg")):
            mask = photo.with_suffix(".png")
            if not mask_pixels(mask).any():
                logger.info("left out: %s, its mask is empty", photo)
                continue
            yield (photo,), f"test/{defect}/{photo.name}"
            yield (mask,), f"ground_truth/{defect}/{mask.stem}_mask.png"


def kolektor_sdd2(root: Path, category: str) -> Iterator[Item]:
    """Kolektor SDD2: ``N.png`` and its mask ``N_GT.png``; an image with an empty mask is good.

    The defective images of its training split are left out: training uses good images only.

    Raises:
        DataError: an image has no mask.
    """
    for split in ("train", "test"):
        for image in _image_files(root / split):
            # The archive contains one image twice, as "10301 (copy).png".
            if image.stem.endswith("_GT") or "(copy)" in image.stem:
                continue
            mask = image.with_name(f"{image.stem}_GT.png")
            if not mask_pixels(mask).any():
                yield (image,), f"{split}/good/{image.name}"
            elif split == "test":
                yield (image,), f"test/defect/{image.name}"
                yield (mask,), f"ground_truth/defect/{image.stem}_mask.png"


#: Names of AITEX's codes of defects.
_AITEX_DEFECTS = {
    "002": "broken_end", "006": "broken_yarn", "010": "broken_pick", "016": "weft_curling",
    "019": "fuzzyball", "022": "cut_selvage", "023": "crease", "025": "warp_ball", "027": "knots",
    "029": "contamination", "030": "nep", "036": "weft_crack",
}  # fmt: skip


def aitex(root: Path, category: str) -> Iterator[Item]:
    """AITEX AFID: strips ``NUMBER_DEFECT_FABRIC.png``, whose defect is 000 if they are good.

    The data set has no split. Every fourth good strip of a fabric, by name, is for testing.
    """
    fabric = category.removeprefix("fabric_")
    folders = (_image_files(folder) for folder in sub_folders(root / "NODefect_images"))
    strips = [path for files in folders for path in files if path.stem.endswith(f"_{fabric}")]
    yield from _every_fourth_tested(strips)
    for strip in _image_files(root / "Defect_images"):
        if not strip.stem.endswith(f"_{fabric}"):
            continue
        code = strip.stem.split("_")[1]
        defect = _AITEX_DEFECTS.get(code, f"defect_{code}")
        yield (strip,), f"test/{defect}/{strip.name}"
        # Two strips have two masks, _mask1 and _mask2.
        if masks := tuple(sorted((root / "Mask_images").glob(f"{strip.stem}_mask*.png"))):
            yield masks, f"ground_truth/{defect}/{strip.stem}_mask.png"


def bsdata(root: Path, category: str) -> Iterator[Item]:
    """BSData: ``data/NAME.jpg``, and labelme polygons ``label/NAME.json`` of photos with pitting.

    Its own split is for supervised methods. Here every fourth good photo, by name, is for testing,
    and all with pitting. Two groups are left out: the spindles of type 1, which have no good photo,
    and photos without polygons whose name says that they show a defect (``_1``).
    """
    table, good = root / "image_data.json", []
    try:
        records = json.loads(table.read_text(encoding="utf-8"))["images"]
        names = [(r["filename"], r["annotations"]) for r in records if r["type"] == 2]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{table}: not BSData's list of photos ({error!r})") from None
    for name, polygons in names:
        photo = root / "data" / safe_name(name)
        if polygons:
            label = root / "label" / safe_name(polygons)
            yield (photo,), f"test/pitting/{photo.name}"
            yield (label,), f"ground_truth/pitting/{photo.stem}.json"
        elif not photo.stem.endswith("_1"):
            good.append(photo)
    yield from _every_fourth_tested(good)


def _every_fourth_tested(good: Sequence[Path]) -> Iterator[Item]:
    for number, path in enumerate(sorted(good, key=lambda path: path.name), 1):
        yield (path,), f"{'train' if number % 4 else 'test'}/good/{path.name}"


def kolektor_sdd(root: Path, category: str) -> Iterator[Item]:
    """Kolektor SDD: a folder ``kosNN`` for each item, ``PartN.jpg`` and ``PartN_label.bmp``.

    A photo whose mask is empty is good. The data set has no split: good photos of every fourth item
    are for testing, so that no item is in both splits.
    """
    items = [folder for folder in sub_folders(root) if folder.name.startswith("kos")]
    for number, folder in enumerate(items, 1):
        for photo in _image_files(folder):
            if photo.stem.endswith("_label"):
                continue
            name, mask = f"{folder.name}_{photo.name}", photo.with_name(f"{photo.stem}_label.bmp")
            if mask_pixels(mask).any():
                yield (photo,), f"test/defect/{name}"
                yield (mask,), f"ground_truth/defect/{folder.name}_{photo.stem}_mask.bmp"
            else:
                yield (photo,), f"{'train' if number % 4 else 'test'}/good/{name}"


def mvtec_3d_ad(root: Path, category: str) -> Iterator[Item]:
    """MVTec 3D-AD: its colour images. The point clouds and ``validation`` are left out."""
    folder = root / category
    yield from _images(folder / "train" / GOOD / "rgb", "train/good")
    for kind in sub_folders(folder / "test"):
        yield from _images(kind / "rgb", f"test/{kind.name}")
        if kind.name != GOOD:
            yield from _images(kind / "gt", f"ground_truth/{kind.name}")


LAYOUTS = {
    "mvtec": Layout(mvtec, ("{category}/train/good",), "<category>/train/good/*.png", native=True),
    "visa": Layout(
        visa,
        ("split_csv/1cls.csv", "{category}"),
        "split_csv/1cls.csv and <category>/Data/Images/..., or <category>/train/good, test/good, "
        "test/bad and ground_truth/bad",
        shared=frozenset({"split_csv"}),
        unused=frozenset({"2cls_fewshot", "2cls_highshot"}),
        arranged=("{category}/train/good", "{category}/test/bad", "{category}/ground_truth/bad"),
    ),
    "btad": Layout(btad, ("{category}/train/ok",), "<category>/train/ok/*, test/ok, test/ko"),
    "mvtec_loco": Layout(
        mvtec_loco,
        ("{category}/train/good",),
        "<category>/train/good/*.png, test/..., ground_truth/<kind>/<image>/*.png",
        unused=frozenset({"validation"}),
        mask_suffix=("/*",),
        version=2,
    ),
    "mvtec_ad_2": Layout(
        mvtec_ad_2,
        ("{category}/train/good", "{category}/test_public"),
        "<category>/train/good/*.png, <category>/test_public/...",
        unused=frozenset({"validation", "test_private", "test_private_mixed"}),
    ),
    "magnetic_tile": Layout(
        magnetic_tile, ("MT_Free/Imgs",), "MT_Free/Imgs/*.jpg, MT_Crack/Imgs/*", single=True
    ),
    "aitex": Layout(
        aitex,
        ("Defect_images", "NODefect_images", "Mask_images"),
        "Defect_images/*.png, NODefect_images/<folder>/*.png, Mask_images/*.png",
        shared=frozenset({"Defect_images", "NODefect_images", "Mask_images"}),
    ),
    "bsdata": Layout(
        bsdata,
        ("data", "label", "image_data.json"),
        "data/*.jpg, label/*.json, image_data.json",
        single=True,
        unused=frozenset({"demo", "saved_model"}),
    ),
    "kolektor_sdd": Layout(
        kolektor_sdd, ("kos01",), "kos01/Part0.jpg, kos01/Part0_label.bmp, ...", single=True
    ),
    "mvtec_3d_ad": Layout(
        mvtec_3d_ad,
        ("{category}/train/good/rgb",),
        "<category>/train/good/rgb/*.png, test/<kind>/rgb/*.png, test/<kind>/gt/*.png",
        unused=frozenset({"validation", "xyz"}),
    ),
    "kolektor_sdd2": Layout(
        kolektor_sdd2, ("train", "test"), "train/*.png, train/*_GT.png, test/...", single=True
    ),
}
