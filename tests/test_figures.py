"""Figures: which images are chosen, what is drawn, and that every text is legible."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from sklearn.metrics import auc, precision_recall_curve, roc_auc_score, roc_curve

from conftest import ROOT
from indad.core.csv_files import read_csv
from indad.core.errors import StoreError
from indad.data import decode, manifest
from indad.data.ground_truth import GroundTruth
from indad.data.images import Geometry
from indad.evaluation import calibration, cases, scores
from indad.evaluation.metrics import ScoreCurve, regions
from indad.evaluation.scores import ScoreFiles
from indad.methods.base import Scores
from indad.reporting import (
    colours,
    curve_figures,
    defect_figures,
    pictures,
    runtime,
    sheet,
    style,
    tradeoff,
)


def table(labels, values, defects=None) -> pd.DataFrame:
    labels = np.asarray(labels)
    if defects is None:
        defects = np.where(labels == 1, "cut", "good")
    names = [f"test/{defect}/{i:03d}.png" for i, defect in enumerate(defects)]
    return pd.DataFrame(
        {"image": names, "label": labels, "defect": defects, "score": np.asarray(values, float)}
    )


labelled = st.lists(
    st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=25
).filter(lambda rows: 0 < sum(label for label, _ in rows) < len(rows))  # fmt: skip


# -- what is chosen -----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=60))
def test_the_threshold_is_the_default_one_of_predict(rows):
    labels, values = (np.array(each) for each in zip(*rows, strict=True))
    made = table(labels.astype(int), values)
    at = cases.threshold(made)
    if labels.all():
        assert np.isnan(at)
        return
    known = calibration.collect(values.astype(float), np.zeros(len(values)), labels.astype(int))
    expected = calibration.Calibration("", "", "", 0, "", "", {}, 0, *known).at_false_alarms()
    assert at == expected.score
    assert expected.source.startswith(calibration.default_source((~labels).sum()))
    judged = cases.verdicts(made, at)
    assert (judged == cases.MISSED).sum() == (labels & (values <= at)).sum()
    assert (judged == cases.FALSE_ALARM).sum() == (~labels & (values > at)).sum()
    assert (judged == cases.FALSE_ALARM).sum() <= 0.05 * ((~labels).sum() + 1)


def test_few_good_images_are_not_called_false_alarms():
    """With 15 good and 97 defective images, the best F1 would flag almost every image."""
    made = table([0] * 15 + [1] * 97, [*np.linspace(2, 3, 15), *np.linspace(2.2, 4, 97)])
    judged = cases.verdicts(made, cases.threshold(made))
    assert (judged == cases.FALSE_ALARM).sum() == 0
    assert (judged == cases.MISSED).sum() == 43


def test_each_kind_of_defect_is_measured_against_all_good_images(rng):
    defects = np.array(["good"] * 9 + ["cut"] * 5 + ["dent"] * 3)
    labels = (defects != "good").astype(int)
    made = table(labels, rng.random(17).round(1) + 0.3 * labels, defects)
    found = cases.by_defect("X", made).set_index("defect")
    assert list(found.index) == ["cut", "dent"]
    assert found["images"].tolist() == [5, 3]
    for defect in found.index:
        part = made[made["defect"].isin(["good", defect])]
        expected = roc_auc_score(part["label"], part["score"])
        assert found.loc[defect, "image_auroc"] == pytest.approx(expected)
    everything = cases.verdicts(made, cases.threshold(made)) == cases.MISSED
    assert found["missed"].sum() == everything.sum()


def test_a_defect_with_a_name_like_good_is_recognised_by_its_label():
    """The folder gives the label; nothing else does."""
    made = table([0, 0, 1, 1], [1, 2, 3, 4], ["good", "good", "bad", "good_enough"])
    assert cases.defects(made) == ["bad", "good_enough"]


@settings(max_examples=40, deadline=None)
@given(st.lists(labelled, min_size=1, max_size=3), st.integers(1, 4), st.integers(2, 5))
def test_sheets_are_bounded_and_show_errors(experiments, most, kinds):
    count = min(map(len, experiments))
    labels = np.array([int(label) for label, _ in experiments[0]][:count])
    if labels.min() == labels.max():
        return
    defects = np.where(labels == 1, [f"kind{i % kinds}" for i in range(count)], "good")
    tables = [table(labels, [value for _, value in rows[:count]], defects) for rows in experiments]
    judged = cases.consensus(tables)
    shown = cases.notable(judged, most)
    names = [case.image for case in shown]
    assert len(names) == len(set(names)) <= 4 + 2 * most
    wrong = judged.set_index("image")[["missed", "false_alarms"]]
    for why, column in ((cases.MISSED, "missed"), (cases.FALSE_ALARM, "false_alarms")):
        listed = [case.image for case in shown if case.why == why]
        left = wrong.loc[~wrong.index.isin(names), column]
        if len(listed) < most:
            assert (left == 0).all()
        elif len(left):
            assert left.max() <= wrong.loc[listed, column].min()
    median = cases.typical(judged, 3)
    assert len(median) == min(3, 1 + len(set(defects) - {"good"}))
    assert median[0].defect == "good"


def test_cases_are_ranked_by_all_experiments():
    labels = [0, 0, 1, 1, 1]
    one = table(labels, [1, 2, 3, 4, 5])
    other = table(labels, [10, 20, 60, 30, 50])
    judged = cases.consensus([one, other])
    assert judged["image"].str[-7:].tolist() == [f"00{i}.png" for i in (0, 1, 3, 2, 4)]
    found = [(case.why, case.image[-5]) for case in cases.notable(judged, 2)]
    assert found == [
        ("clearest defect", "4"), ("median defect", "2"), ("hardest defect", "3"),
        ("top-scoring good", "1"),
    ]  # fmt: skip
    with pytest.raises(StoreError, match="scored different images"):
        cases.consensus([one, other.iloc[::-1]])


# -- curves ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(labelled)
def test_curves_are_the_plain_ones(rows):
    labels, values = (np.array(each) for each in zip(*rows, strict=True))
    curve = ScoreCurve.from_scores(values.astype(np.float32), labels.astype(np.uint32))
    x, y = curve.roc()
    assert auc(x, y) == pytest.approx(curve.auroc())
    fpr, tpr, _ = roc_curve(labels, values, drop_intermediate=False)
    # scikit-learn also has the points between, on straight lines.
    assert set(np.round(x + 10 * y, 9)) <= set(np.round(fpr + 10 * tpr, 9))
    recall, precision = curve.precision_recall()
    area = np.sum(np.diff(recall) * precision[1:])
    assert area == pytest.approx(curve.average_precision())
    expected, at, _ = precision_recall_curve(labels, values)
    assert set(np.round(precision + 10 * recall, 9)) <= set(np.round(expected + 10 * at, 9)) | {
        round(float(precision[0]), 9)
    }


def test_thinned_curves_look_the_same(rng):
    masks = np.zeros((6, 128, 128), bool)
    masks[:3, 10:60, 5:100] = masks[3:, 80:84, 10:12] = True
    maps = rng.normal(size=masks.shape).astype(np.float32) + 1.5 * masks
    curve = ScoreCurve.from_scores(maps, regions(masks))
    x, y = curve.region_overlap()
    inside = x <= 0.3
    assert auc(x[inside], y[inside]) / 0.3 == pytest.approx(curve.aupro(), abs=1e-2)
    for points in (curve.roc(), (x, y), curve.precision_recall()):
        thinned = curve_figures.thin(*points)
        assert len(thinned[0]) < len(points[0]) / 2
        # Every point left out is within the tolerance of one that stayed.
        kept = np.stack(thinned, axis=1)
        for point in np.stack(points, axis=1)[:: len(points[0]) // 300]:
            assert np.abs(kept - point).max(axis=1).min() <= curve_figures.TOLERANCE
        assert [each[-1] for each in thinned] == [each[-1] for each in points]


# -- what is drawn --------------------------------------------------------------------------------


def illegible(drawn: dict[Text, Bbox], size: np.ndarray) -> list[str]:
    """Return the texts that are too small, cut off or on top of other text."""
    problems = []
    boxes = {text: box for text, box in drawn.items() if text.get_text().strip()}
    for text, box in boxes.items():
        if text.get_fontsize() < style.SMALL:
            problems.append(f"{text.get_text()!r} is {text.get_fontsize()} pt")
        if (box.min < -0.5).any() or (box.max > size + 0.5).any():
            problems.append(f"{text.get_text()!r} is cut off")
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        if (a.min + 1.5 < b.max - 1.5).all() and (b.min + 1.5 < a.max - 1.5).all():
            problems.append(f"{one.get_text()!r} overlaps {other.get_text()!r}")
    return problems


@pytest.fixture
def problems(monkeypatch) -> list[str]:
    """Check the texts of every PNG that is saved; the list holds the illegible ones."""
    problems: list[str] = []
    save, draw = style.save, Text.draw

    def checked(figure, output):
        drawn = {}

        def draw_and_measure(text, renderer, *given):
            draw(text, renderer, *given)
            if text.get_visible():
                drawn[text] = text.get_window_extent(renderer).frozen()

        with pytest.MonkeyPatch.context() as patch:
            if output.suffix == ".png":
                patch.setattr(Text, "draw", draw_and_measure)
            save(figure, output)
        found = illegible(drawn, figure.get_size_inches() * style.DPI)
        problems.extend(f"{output.name}: {problem}" for problem in found)

    monkeypatch.setattr(style, "save", checked)
    return problems


TITLE = "a_data_set_with_a_long_name / a_category_with_an_even_longer_name (first seed)"
EXPERIMENTS = ["SPADE", "PatchCore-WRN50-25-and-a-name-that-never-ends-at-all"]


@pytest.fixture
def products(category, tmp_path, rng):
    """A category with scores and maps of two experiments, each with one error."""
    rows = manifest.build(category)
    decoded = tmp_path / "pixels.h5"
    decode.decode(rows, category, decoded, geometry=Geometry.from_config(32, None))
    with decode.Pixels(decoded) as opened:
        masks = np.stack(list(opened.masks()))
    test = rows[rows["split"] == "test"]
    labels = test["label"].to_numpy().astype(int)
    truth = GroundTruth(
        test["image"].to_numpy(), labels, test["defect"].to_numpy(),
        np.ones(len(test), bool), masks,
    )  # fmt: skip
    found = {}
    for i, name in enumerate(EXPERIMENTS):
        values = labels * 3.0 + np.linspace(1, 1.5, len(labels))
        values[np.flatnonzero(labels == 1 - i)[0]] = 9.0 * i  # a miss, a false alarm
        maps = (rng.random(masks.shape) + masks * 2).astype(np.float32)
        place = tmp_path / f"experiment{i}"
        place.mkdir()
        found[name] = ScoreFiles(place / "scores.csv", place / "maps.h5", decoded)
        write(found[name], Scores(values.astype(np.float32), maps), truth, rows)
    return rows, found


def write(files: ScoreFiles, values: Scores, truth: GroundTruth, rows: pd.DataFrame) -> None:
    made_with = {"features_made_with": {"manifest_sha256": manifest.content_hash(rows)}}
    with scores.create(truth, files.table, files.maps) as writer:
        writer.write(range(len(values.image)), values)
        writer.finish(writer.normal(files.maps.parent), made_with)


def count_colour(path: Path, colour: str) -> int:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.asarray(Image.open(path).convert("RGB")) == wanted).all(axis=-1).sum())


def test_sheets_frame_errors_and_are_legible(products, tmp_path, problems):
    rows, experiments = products
    typical, wrong = tmp_path / "sheet.png", tmp_path / "cases.png"
    pictures.sheets(rows, experiments, typical, wrong, title=TITLE)
    assert not problems
    assert count_colour(wrong, colours.MISSED) > 500


def images_of_size(height: int, width: int, defect: int, rng):
    """Return cases, columns and photos of a good and a defective image, with every verdict."""
    mask = np.zeros((height, width), bool)
    mask[:defect, -defect:] = True
    masks = {"test/good/0.png": None, "test/a_kind_of_defect_with_a_long_name/1.png": mask}
    photos = {name: np.full((height, width, 3), 128, np.uint8) for name in masks}
    columns = []
    for name in EXPERIMENTS:
        images = {}
        for (image, truth), verdict in zip(masks.items(), ("false alarm", "missed"), strict=True):
            found = rng.random((height, width), np.float32)
            found[0, -1] = 2
            images[image] = sheet.Shown(found, truth, -123.456, verdict)
        columns.append(sheet.Column(name, -123.456, 100, 100, -0.00123, 1234.5, images))
    whys = ("false alarm", "hardest defect")
    chosen = [cases.Case(n, n.split("/")[1], why) for n, why in zip(masks, whys, strict=True)]
    return chosen, columns, photos


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """Keep the figures that are saved."""
    kept: list[Figure] = []
    save = style.save

    def keep(figure, output):
        save(figure, output)
        figure.set_dpi(style.DPI)  # as saved, so that sizes are those of the file
        kept.append(figure)

    monkeypatch.setattr(style, "save", keep)
    return kept


@pytest.mark.parametrize(
    ("height", "width", "defect", "enlarged"),
    [(64, 1024, 8, False), (256, 4096, 20, True), (64, 256, 8, False), (256, 629, 60, False),
     (224, 224, 8, False), (256, 128, 40, False), (1024, 1224, 4, True), (1024, 1224, 400, False)],
)  # fmt: skip
def test_sheets_of_any_shape(tmp_path, rng, problems, figures, height, width, defect, enlarged):
    chosen, columns, photos = images_of_size(height, width, defect, rng)
    texts = {"title": TITLE, "remark": "A remark. " * 20, "notes": "A note. " * 60}
    sheet.draw(chosen, columns, photos, tmp_path / "sheet.png", **texts)
    assert not problems
    (figure,) = figures
    written = [text for text in figure.texts if text.get_text().strip()]
    shown = [axis for axis in figure.axes if axis.images and axis.images[0].get_size()[0] > 1]
    boxes = [axis.get_window_extent() for axis in shown]
    per_image = 1 + len(columns) * (3 if enlarged else 1)
    # One of the two images has a defect, which is enlarged as well.
    assert len(shown) == len(chosen) * per_image + enlarged
    # Nothing is cut, and nothing but the outline and the peak is on an image.
    content = " ".join(" ".join(text.get_text().split()) for text in written)
    for expected in (TITLE, "hardest defect: a kind of defect with a long name", EXPERIMENTS[1]):
        assert expected.replace(" ", "") in content.replace(" ", "")
    assert "…" not in content
    frames = [artist for artist in figure.artists if isinstance(artist, Rectangle)]
    assert len(frames) == len(chosen) * len(columns)
    for box in boxes:
        assert min(box.width, box.height) > 0.2 * figure.dpi
        assert not any(box.shrunk(0.98, 0.98).overlaps(t.get_window_extent()) for t in written)
    for axis in shown:
        assert not axis.texts
        assert not axis.patches
        assert len(axis.lines) in (0, 2)
    for frame in frames:
        inside = frame.get_window_extent().padded(-0.035 * figure.dpi)
        assert any(inside.count_contains(box.corners()) == 4 for box in boxes)


def test_a_window_shows_the_peak_at_the_border(tmp_path, rng, figures):
    chosen, columns, photos = images_of_size(256, 4096, 20, rng)
    texts = {"title": "t", "remark": "r", "notes": "n"}
    sheet.draw(chosen, columns, photos, tmp_path / "sheet.png", **texts)
    parts = [axis for axis in figures[0].axes if axis.images[0].get_size() == (128, 128)]
    (peaks,) = {tuple(line.get_xydata()[0]) for axis in parts for line in axis.lines}
    assert peaks == (127, 0)
    assert all(axis.images[0].get_array()[0, -1] == 2 for axis in parts if axis.lines)
    # The photo around both peaks of each image, and around the defect.
    assert len(parts) == 4 * 2 + 1


def test_the_smallest_region_is_enlarged():
    mask = np.zeros((50, 60), bool)
    mask[:20, :30] = mask[40:43, 50:53] = True
    assert tuple(sheet.smallest_region(mask)) == (41, 51)


def test_tall_strips_are_turned_to_lie(products, tmp_path, problems, figures, monkeypatch):
    rows, experiments = products
    tall = {name: np.zeros((160, 10, 3), np.uint8) for name in rows["image"]}
    shown = {name: sheet.Shown(np.eye(160, 10), None, 1.0, "") for name in rows["image"]}
    monkeypatch.setattr(pictures, "read_photos", lambda *_: tall)
    monkeypatch.setattr(
        pictures, "column", lambda name, *_: sheet.Column(name, 1.0, 0, 0, 0.0, 1.0, shown)
    )
    pictures.sheets(rows, experiments, tmp_path / "a.png", tmp_path / "b.png", title=TITLE)
    assert not problems
    assert any("turned by 90 degrees" in " ".join(t.get_text().split()) for t in figures[0].texts)
    # The top is on the left.
    (first, *_) = [axis for axis in figures[0].axes if axis.lines]
    assert first.images[0].get_size() == (10, 160)
    assert first.images[0].get_array()[9, 0] == 1


def draw_all(folder: Path, tables: list[pd.DataFrame], by_pixel: list) -> pd.DataFrame:
    """Draw all figures of a category; return the table of kinds of defects."""
    names = [EXPERIMENTS[i] if i < 2 else f"PatchCore-R18-{i}" for i in range(len(tables))]
    curve_figures.draw_curves(names, tables, by_pixel, folder / "curves.png", title=TITLE)
    defect_figures.draw_scores(names, tables, folder / "scores.png", title=TITLE)
    made = defect_figures.defect_table(names, tables)
    defect_figures.draw_defects(made, folder / "defects.png", title=TITLE)
    return made


def test_figures_of_a_category(products, tmp_path, problems):
    rows, experiments = products
    files = list(experiments.values())
    read = [scores.read_with_truth(each, rows) for each in files]
    curves_ = [curve_figures.pixel_curve(scored.maps, truth) for scored, truth in read]
    masks = np.stack(list(read[0][1].mask))
    assert curves_[0].share == masks.mean() > 0
    made = draw_all(tmp_path, [scored.table for scored, _ in read], curves_)
    assert list(made) == list(cases.DEFECT_COLUMNS)
    # The highest good score of the second experiment is above all scores of defects.
    assert made["missed"].tolist() == [1, 0, 2, 1]
    assert not problems
    other = files[0]._replace(table=files[0].table.with_name("other.csv"))
    other.table.write_text("image,label,defect,score\na.png,0,good,1\nb.png,1,cut,2\n")
    with pytest.raises(StoreError, match=r"other\.csv: not the scores that were written with"):
        scores.read_with_truth(other, rows)
    with pytest.raises(StoreError, match="scores of other images than the manifest's"):
        scores.read_with_truth(files[0], rows[1:])


@pytest.mark.parametrize("kind", ["good", "defective"])
def test_images_of_one_kind_are_shown(products, tmp_path, problems, kind):
    rows, experiments = products
    label = int(kind == "defective")
    rows = rows[(rows["split"] == "train") | (rows["label"] == label)].reset_index(drop=True)
    decoded = tmp_path / "fewer.h5"
    folder = tmp_path / "data/widget"
    decode.decode(rows, folder, decoded, geometry=Geometry.from_config(32, None))
    with decode.Pixels(decoded, rows) as opened:
        truth = opened.ground_truth(rows)
    tables, fewer = [], {}
    for name, files in experiments.items():
        scored = scores.read(files.table, files.maps)
        chosen = (scored.table["label"] == label).to_numpy()
        tables.append(scored.table[chosen].reset_index(drop=True))
        if kind == "defective":
            assert np.isnan(cases.threshold(tables[-1]))
        assert set(cases.verdicts(tables[-1], np.nan)) == {""}
        fewer[name] = files._replace(pixels=decoded)
        values = Scores(tables[-1]["score"].to_numpy(np.float32), np.stack([*scored.maps])[chosen])
        write(fewer[name], values, truth, rows)
    made = draw_all(tmp_path, tables, [None, None])
    assert made["image_auroc"].isna().all()
    assert len(made) == (0 if kind == "good" else 4)
    pictures.sheets(rows, fewer, tmp_path / "a.png", tmp_path / "b.png", title=TITLE)
    assert not problems
    assert Image.open(tmp_path / "b.png").height > 100


@pytest.mark.parametrize(("experiments", "kinds"), [(1, 1), (5, 22)])
def test_figures_of_any_size_are_legible(tmp_path, rng, problems, experiments, kinds):
    defects = np.array(["good"] * 30 + [f"kind_of_defect_{i}" for i in range(kinds)] * 4)
    labels = (defects != "good").astype(int)
    tables = []
    for i in range(experiments):
        values = np.exp(rng.normal(size=len(labels)) + 2 * labels) * 10.0 ** (2 - i)
        tables.append(table(labels, values, defects))
    draw_all(tmp_path, tables, [None] * experiments)
    wide = defect_figures.defect_table(list("ABCDEFGHI"), [tables[0]] * 9)
    defect_figures.draw_defects(wide, tmp_path / "wide.png", title=TITLE)
    assert not problems
    if experiments == 1:
        before = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
        draw_all(tmp_path, tables, [None])
        assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == before
    for name in ("curves", "scores", "defects", "wide"):
        width, height = Image.open(tmp_path / f"{name}.png").size
        assert width <= 1.6 * style.WIDTH * style.DPI
        assert height < 25 * style.DPI


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    """A notebook that imports indad and draws keeps its backend and settings."""
    program = """
import sys
import matplotlib
before = dict(matplotlib.rcParams)
from indad.reporting import curve_figures, defect_figures, diagrams, pictures, style
from indad.reporting import report, tradeoff
from pathlib import Path
with style.drawing(Path(sys.argv[1]), height=1) as figure:
    figure.text(0.1, 0.1, "x")
assert dict(matplotlib.rcParams) == before
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts"), "MPLBACKEND": "svg"}
    subprocess.run([sys.executable, "-c", program, tmp_path / "x.png"], check=True, env=environment)
    assert Image.open(tmp_path / "x.png").width == round(style.WIDTH * style.DPI)


def test_experiments_have_different_lines_and_marks():
    lines = [style.line(i) for i in range(28)]
    assert len({str(sorted(each.items())) for each in lines}) == 28
    marks = [style.marker(i) for i in range(49)]
    assert len({str(sorted(each.items())) for each in marks}) == 49
    assert [each["color"] for each in marks] == [style.line(i)["color"] for i in range(49)]


# -- accuracy against time ------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_is_pareto_optimal(points):
    cost, quality = np.array(points).T
    front = tradeoff.pareto(cost, quality)
    for i, (c, q) in enumerate(points):
        beaten = any(
            (cost[j] <= c and quality[j] >= q and (cost[j] < c or quality[j] > q))
            for j in range(len(points))
        )
        same = any((cost[j], quality[j]) == (c, q) for j in front)
        assert same == (not beaten), i
    assert (np.diff(cost[front]) > 0).all()


def test_time_and_size_of_an_experiment(tmp_path, problems):
    jobs = pd.DataFrame(columns=list(runtime.COLUMNS))
    jobs["stage"] = ["extract", "extract", "score", "score", "score"]
    jobs["name"] = ["r18", "r18", "SPADE", "SPADE", "PaDiM"]
    jobs["category"] = ["a", "b", "a", "b", "a"]
    jobs["images"] = [40, 60, 10, 20, np.nan]
    jobs["compute_seconds"] = [4.0, 4.0, 3.0, 6.0, np.nan]
    jobs["model_mb"] = [np.nan, np.nan, 6.0, 8.0, 1.0]
    jobs["dataset"], jobs["cached"] = "d", False
    jobs.to_csv(tmp_path / "runtime.csv", index=False)
    metrics = pd.DataFrame(
        [("d", each, "image_auroc", value) for each, value in (("SPADE", 0.9), ("PaDiM", 0.8))],
        columns=["dataset", "experiment", "metric", "value"],
    )
    models = {"SPADE": ("spade-1", "r18"), "PaDiM": ("padim-1", "r18")}
    times = read_csv(tmp_path / "runtime.csv", runtime.COLUMNS, "table of run times")
    found = tradeoff.gather(metrics, times, models).set_index("experiment")
    assert found.loc["SPADE", "seconds_per_image"] == pytest.approx(8 / 100 + 9 / 30)
    assert found.loc["SPADE", "model_mb"] == 7
    assert found.loc["SPADE", "image_auroc"] == 0.9
    assert np.isnan(found.loc["PaDiM", "seconds_per_image"])
    assert found.loc["PaDiM", "model_mb"] == 1
    assert found["aupro"].isna().all()
    tradeoff.draw(found.reset_index(), tmp_path / "tradeoff.png")
    assert not problems
    assert Image.open(tmp_path / "tradeoff.png").width > 1000
