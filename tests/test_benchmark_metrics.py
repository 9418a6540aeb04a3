"""The metrics of MVTec LOCO AD (sPRO) and MVTec AD 2 (SegF1) equal slow references."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from snakemake.utils import validate

import evaluate as evaluate_script
from conftest import ROOT, make_job, save_image
from indad.core.errors import DataError
from indad.data import decode, manifest
from indad.data.folder_layout import Reading
from indad.data.images import Geometry
from indad.evaluation import saturated_overlap, scores, segmentation
from indad.evaluation.metrics import IMAGE_METRICS, PIXEL_METRICS, curve_parts
from indad.evaluation.saturated_overlap import Defect, Saturation, au_spro, read_defects
from indad.evaluation.sorted_scores import SortedScores
from indad.methods.base import Scores
from indad.pipeline.config import Config
from indad.pipeline.config_files import load_config, merged
from indad.pipeline.settings import job_settings
from small_run import SMALL

ENTRIES = [
    {"defect_name": "more", "pixel_value": 255, "saturation_threshold": 8,
     "relative_saturation": False},
    {"defect_name": "less", "pixel_value": 254, "saturation_threshold": 0.5,
     "relative_saturation": True},
]  # fmt: skip


def plain_au_spro(maps, defects, kinds, limit: float = 0.05) -> float:
    """Flag what scores at least each threshold in turn, and count the pixels of each defect."""
    areas = []
    for kind in sorted(set(kinds) - {"", None}):
        chosen = [i for i, each in enumerate(kinds) if each in ("", kind)]
        shown = [(i, d) for i in chosen for d in defects[i] if d.mask.any()]
        normal = {i: ~np.any([d.mask for d in defects[i]], axis=0) for i in chosen if defects[i]}
        normal = {i: normal.get(i, np.ones(maps[i].shape, bool)) for i in chosen}
        if not shown or not any(each.any() for each in normal.values()):
            continue
        points = [(0.0, 0.0)]
        for threshold in sorted({x for i in chosen for x in maps[i].ravel()}, reverse=True):
            wrong = sum(np.sum(maps[i][normal[i]] >= threshold) for i in chosen)
            found = [min(np.sum(maps[i][d.mask] >= threshold) / d.saturation, 1) for i, d in shown]
            points.append((wrong / sum(each.sum() for each in normal.values()), np.mean(found)))
        area = 0.0
        for (x0, y0), (x1, y1) in pairwise(points):
            if x0 < limit:
                end = min(x1, limit)
                y_end = y1 if x1 == x0 else y0 + (y1 - y0) * (end - x0) / (x1 - x0)
                area += (end - x0) * (y0 + y_end) / 2
        areas.append(area / limit)
    return float(np.mean(areas)) if areas else math.nan


@st.composite
def scored_defects(draw):
    """Maps with ties, and defects that overlap, are empty or cover everything."""
    count = draw(st.integers(1, 4))
    maps = draw(arrays(np.float32, (count, 4, 5), elements=st.integers(-3, 3).map(float)))
    kinds = draw(st.lists(st.sampled_from(["", "a", "b", None]), min_size=count, max_size=count))
    defects = []
    for kind in kinds:
        masks = draw(st.lists(arrays(bool, (4, 5)), max_size=3 if kind else 0))
        saturations = draw(st.lists(st.integers(1, 30), min_size=3, max_size=3))
        pairs = zip(masks, saturations, strict=False)
        defects.append([Defect(m, Saturation(s, False).pixels(int(m.sum()))) for m, s in pairs])
    return maps, defects, kinds


@settings(max_examples=100, deadline=None)
@given(scored_defects(), st.sampled_from([0.05, 0.3, 1.0]))
def test_spro_equals_the_reference(case, limit):
    maps, defects, kinds = case
    expected = plain_au_spro(maps, defects, kinds, limit)
    found = au_spro(maps, defects, kinds, limit=limit)
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(
    maps=arrays(np.float32, (3, 6, 5), elements=st.integers(-9, 9).map(lambda x: x / 8)),
    regions=arrays(np.int32, (6, 5), elements=st.integers(0, 2)),
    block=st.sampled_from([1, 100, 400, 2000]),
)
def test_saturated_curves_sorted_on_disk_are_the_same(maps, regions, block):
    """A region's count continues from piece to piece, also in ties that are counted, not read."""
    images = [(each, np.where(regions, regions + 2 * i, 0)) for i, each in enumerate(maps)]
    whole, ordered = SortedScores(images), SortedScores(images, block=block)
    if not whole.positives or not whole.negatives:
        return
    saturation = np.maximum(whole.area / 2.5, 1)  # no whole numbers
    one, other = (
        sum(part.aupro(0.3) for part in curve_parts(each, saturation)) for each in (whole, ordered)
    )
    assert other == pytest.approx(one, abs=1e-12)
    one, other = (sum(p.aupro(0.3) for p in curve_parts(whole, s)) for s in (None, whole.area))
    assert other == pytest.approx(one, abs=1e-12)  # saturated by the whole area is AUPRO


def test_spro_by_hand():
    """Half of a defect with a saturation of half its area is found completely."""
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    values = np.zeros((4, 4), np.float32)
    values[0, :2] = 1
    for saturation, expected in ((2, 1.0), (4, 0.5)):
        found = au_spro([values], [[Defect(mask, saturation)]], ["a"], limit=1e-9)
        assert found == pytest.approx(expected, abs=1e-6)
    # The average over kinds counts both kinds the same, however many defects they have.
    one, none = Defect(mask, 2.0), Defect(np.roll(mask, 1, axis=0), 2.0)
    kinds, defects = ["a", "b", "b"], [[one], [none], [none, none]]
    assert au_spro([values] * 3, defects, kinds, limit=1e-9) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(
    ("saturation", "area", "scale", "pixels"),
    [
        (Saturation(8, False), 20, 1.0, 8.0),
        (Saturation(8, False), 5, 1.0, 5.0),  # larger than the defect
        (Saturation(8, False), 20, 0.25, 2.0),
        (Saturation(8, False), 20, 0.01, 1.0),
        (Saturation(0.5, True), 5, 0.25, 2.0),  # rounded down
        (Saturation(0.5, True), 1, 1.0, 1.0),
        (Saturation(1.0, True), 7, 1.0, 7.0),
    ],
)
def test_saturation_in_pixels(saturation, area, scale, pixels):
    assert saturation.pixels(area, scale) == pixels


def plain_seg_f1(maps, masks, good) -> float:
    values = np.concatenate([maps[i].ravel() for i in np.flatnonzero(good)]).astype(float)
    flagged = maps > np.float32(values.mean() + 3 * values.std())
    found, wrong, missed = (flagged & masks).sum(), (flagged & ~masks).sum(), (masks & ~flagged)
    return 2 * found / (2 * found + wrong + missed.sum())


@settings(max_examples=80, deadline=None)
@given(
    maps=arrays(np.float32, (4, 6, 5), elements=st.integers(0, 40).map(lambda x: x**2 / 8)),
    masks=arrays(bool, (2, 6, 5)),
)
def test_seg_f1_equals_the_reference(maps, masks):
    masks = np.concatenate([np.zeros((2, 6, 5), bool), masks])
    at = segmentation.threshold(maps[:2])
    found = segmentation.f1(zip(maps, masks, strict=True), at)
    if not masks.any() and not (maps > at).any():
        assert np.isnan(found)
        return
    assert found == pytest.approx(plain_seg_f1(maps, masks, [1, 1, 0, 0]), abs=1e-12)


def test_seg_f1_of_degenerate_maps():
    constant, nothing = np.full((3, 4), 0.1, np.float32), np.zeros((3, 4), bool)
    at = segmentation.threshold([constant, constant])
    assert at == np.float32(0.1)
    assert segmentation.f1([(constant, ~nothing)], at) == 0  # no pixel is above
    assert np.isnan(segmentation.f1([(constant, nothing)], at))
    unseen = np.full((3, 4), scores.UNSEEN, np.float32)
    assert segmentation.threshold([constant, unseen]) == at
    assert np.isnan(segmentation.f1([(constant, ~nothing)], segmentation.threshold([])))


def category(folder: Path) -> Path:
    """A category in MVTec LOCO AD's layout: images of 48 x 40 with two defects that overlap."""
    rng = np.random.default_rng(0)
    for name in ("train/good/0", "test/good/0", "test/good/1", "test/logical/0", "test/dent/0"):
        save_image(folder / f"{name}.png", rng.integers(0, 255, (40, 48, 3), dtype=np.uint8))
    for kind, value, place in (
        ("logical/0/000", 255, np.s_[4:14, 4:24]),
        ("logical/0/001", 254, np.s_[10:20, 20:30]),
        ("dent/0/000", 254, np.s_[30:34, 30:40]),
    ):
        pixels = np.zeros((40, 48), np.uint8)
        pixels[place] = value
        save_image(folder / f"ground_truth/{kind}.png", pixels)
    (folder / saturated_overlap.FILE).write_text(json.dumps(ENTRIES))
    return folder


def indexed(folder: Path) -> pd.DataFrame:
    return manifest.build(folder, Reading(mask_suffix=("/*",)))


@pytest.mark.parametrize("evaluate_at", ["input", "original"])
def test_a_job_computes_what_the_data_set_asks_for(tmp_path, evaluate_at):
    folder = category(tmp_path / "pushpins")
    rows = indexed(folder)
    geometry = Geometry(20, None)
    decode.decode(rows, folder, tmp_path / "p.h5", geometry=geometry)
    manifest.write(rows, tmp_path / "rows.csv")
    truth = decode.Pixels(tmp_path / "p.h5", rows).ground_truth(rows)
    maps = np.random.default_rng(1).random((4, 20, 24), np.float32)
    maps += 0.5 * np.stack([truth.mask[i] for i in range(4)])
    with scores.create(truth, tmp_path / "s.csv", tmp_path / "m.h5") as writer:
        writer.write(range(4), Scores(maps.max(axis=(1, 2)), maps))
        made_with = {"features_made_with": {"manifest_sha256": manifest.content_hash(rows)}}
        writer.finish(0.5, made_with)
    asked = {
        "evaluate_at": evaluate_at, "resize": 20, "crop": None, "resamples": 20, "seed": 0,
        "level": 0.95,
    }  # fmt: skip
    names = {"table": "s.csv", "maps": "m.h5", "manifest": "rows.csv", "pixels": "p.h5"}
    tables = []
    for metrics in ([], ["spro_05", "seg_f1"]):
        evaluate_script.main(
            make_job(
                settings=asked | {"metrics": metrics}, params={"folder": str(folder)},
                input={key: tmp_path / name for key, name in names.items()},
                output={"metrics": tmp_path / "metrics.csv", "resamples": tmp_path / "r.h5"},
                wildcards={"dataset": "d", "category": "c", "experiment": "X", "seed": "0"},
            )
        )  # fmt: skip
        tables.append(pd.read_csv(tmp_path / "metrics.csv").set_index("metric"))
        assert tuple(tables[-1].index) == IMAGE_METRICS + PIXEL_METRICS + tuple(metrics)
    pd.testing.assert_frame_equal(tables[0], tables[1].head(len(tables[0])))
    values = tables[1]["value"]
    # A pixel of the maps has the area of four pixels of the image files: so has a saturation.
    full = scores.FullSize.from_settings(str(folder), asked)
    files = scores.ScoreFiles(tmp_path / "s.csv", tmp_path / "m.h5", tmp_path / "p.h5")
    scored, truth = scores.read_with_truth(files, rows, full)
    shown = [scored.maps[i] for i in range(4)]
    test = rows[rows["split"] == "test"]
    defects = list(read_defects(test, folder, None if full else geometry))
    kinds = ["" if row.label == 0 else row.defect for row in test.itertuples()]
    assert [kinds.count(each) for each in ("", "dent", "logical")] == [2, 1, 1]
    several = defects[kinds.index("logical")]
    assert [each.saturation for each in several] == ([8, 50] if full else [2, 12])
    assert [each.mask.sum() for each in several] == ([200, 100] if full else [50, 25])
    assert values["spro_05"] == pytest.approx(plain_au_spro(shown, defects, kinds), abs=1e-9)
    masks = np.stack([truth.mask[i] for i in range(4)])
    good = np.array([each == "" for each in kinds])
    assert values["seg_f1"] == pytest.approx(plain_seg_f1(np.stack(shown), masks, good), abs=1e-9)


def test_a_mask_without_a_saturation_is_named(tmp_path):
    folder = category(tmp_path / "pushpins")
    rows = indexed(folder)
    (folder / saturated_overlap.FILE).write_text(json.dumps(ENTRIES[:1]))
    with pytest.raises(DataError, match=r"dent/0/000.png: its pixels have the values \[254\]"):
        list(read_defects(rows[rows["split"] == "test"], folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read .*; the metric spro_05 needs it"),
        ("{", "no list of saturations"),
        ('[{"pixel_value": 255}]', "no list of saturations"),
        (json.dumps([ENTRIES[0] | {"pixel_value": 0}]), "wrong pixel_value"),
        (json.dumps([ENTRIES[1] | {"saturation_threshold": 1.5}]), "out of range"),
        (json.dumps([ENTRIES[0], ENTRIES[1] | {"pixel_value": 255}]), "several entries"),
    ],
)
def test_damaged_saturations_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    with pytest.raises(DataError, match=rf"s\.json: .*{message}"):
        saturated_overlap.read(tmp_path / "s.json")


def settings_of(path: Path, metrics: list[str]) -> dict:
    changes = {"run": {"datasets": ["mine"], "experiments": ["PaDiM"]}} | {
        "datasets": {"mine": {"path": str(path), "metrics": metrics, "mask_suffix": "/*"}}
    }
    written = merged(merged(load_config(None), SMALL), changes)
    validate(written, schema=str(ROOT / "workflow/schemas/config.schema.yaml"))  # the defaults
    run = {"dataset": "mine", "category": "pushpins", "experiment": "PaDiM", "seed": "0"}
    return job_settings(Config.parse(written), "evaluate", run)


def test_changed_saturations_evaluate_again_where_they_are_used(tmp_path):
    file = category(tmp_path / "pushpins") / saturated_overlap.FILE
    without, before = settings_of(tmp_path, ["aupro_05"]), settings_of(tmp_path, ["spro_05"])
    assert before == without | {
        "metrics": ["spro_05"], "saturations": [[254, 0.5, True], [255, 8, False]],
    }  # fmt: skip
    file.write_text(json.dumps([ENTRIES[0], ENTRIES[1] | {"saturation_threshold": 0.6}]))
    assert settings_of(tmp_path, ["spro_05"]) != before
    assert settings_of(tmp_path, ["aupro_05"]) == without
    file.unlink()
    with pytest.raises(DataError, match="the metric spro_05 needs it"):
        settings_of(tmp_path, ["spro_05"])
