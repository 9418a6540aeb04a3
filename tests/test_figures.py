"""Figures show the figures: what is chosen, drawn and called out, and that it can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text
from PIL import Image
from sklearn.metrics import auc, f1_score, precision_recall_curve, roc_auc_score, roc_curve

from conftest import ROOT
from dev import rulegraph, schematics
from indad.core.errors import DataError, StoreError
from indad.data import decode, manifest
from indad.data.ground_truth import GroundTruth
from indad.data.images import Geometry
from indad.evaluation import cases, curves, scores
from indad.evaluation.metrics import ScoreCurve, regions
from indad.methods.base import Scores
from indad.reporting import figures, pictures, runtime, style, tradeoff


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
@given(labelled)
def test_the_threshold_is_that_of_the_best_f1(rows):
    labels, values = (np.array(each) for each in zip(*rows, strict=True))
    made = table(labels.astype(int), values)
    at = cases.threshold(made)
    best = {t: f1_score(labels, values >= t) for t in set(values)}
    assert best[at] == pytest.approx(max(best.values()))
    assert at == max(t for t, f1 in best.items() if f1 == pytest.approx(max(best.values())))
    judged = cases.verdicts(made, at)
    assert (judged == cases.MISSED).sum() == (labels & (values < at)).sum()
    assert (judged == cases.FALSE_ALARM).sum() == (~labels & (values >= at)).sum()


def test_each_kind_of_defect_is_measured_against_all_good_images(rng):
    defects = np.array(["good"] * 9 + ["cut"] * 5 + ["dent"] * 3)
    labels = (defects != "good").astype(int)
    made = table(labels, rng.random(17).round(1) + 0.3 * labels, defects)
    found = cases.by_defect(made).set_index("defect")
    assert list(found.index) == ["cut", "dent"]
    assert found["images"].tolist() == [5, 3]
    for defect in found.index:
        part = made[made["defect"].isin(["good", defect])]
        expected = roc_auc_score(part["label"], part["score"])
        assert found.loc[defect, "image_auroc"] == pytest.approx(expected)
    everything = cases.verdicts(made, cases.threshold(made)) == cases.MISSED
    assert found["missed"].sum() == everything.sum()


def test_a_defect_named_like_the_good_ones_is_told_apart_by_its_label():
    """The folder gives the label; nothing else does."""
    made = table([0, 0, 1, 1], [1, 2, 3, 4], ["good", "good", "bad", "good_enough"])
    assert cases.defects(made) == ["bad", "good_enough"]


@settings(max_examples=40, deadline=None)
@given(st.lists(labelled, min_size=1, max_size=3), st.integers(1, 4), st.integers(2, 5))
def test_sheets_are_bounded_and_show_what_is_wrong(experiments, most, kinds):
    count = min(map(len, experiments))
    labels = np.array([int(label) for label, _ in experiments[0]][:count])
    if labels.min() == labels.max():
        return
    defects = np.where(labels == 1, [f"kind{i % kinds}" for i in range(count)], "good")
    tables = [table(labels, [value for _, value in rows[:count]], defects) for rows in experiments]
    judged = cases.consensus(tables)
    shown = cases.telling(judged, most)
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
    found = [(case.why, case.image[-5]) for case in cases.telling(judged, 2)]
    assert found == [
        ("clearest defect", "4"), ("median defect", "2"), ("hardest defect", "3"),
        ("strangest good", "1"),
    ]  # fmt: skip
    with pytest.raises(StoreError, match="scored different images"):
        cases.consensus([one, other.iloc[::-1]])


# -- curves ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(labelled)
def test_curves_are_the_plain_ones(rows):
    labels, values = (np.array(each) for each in zip(*rows, strict=True))
    curve = ScoreCurve.from_scores(values.astype(np.float32), labels.astype(np.uint32))
    x, y = curves.roc(curve)
    assert auc(x, y) == pytest.approx(curve.auroc())
    fpr, tpr, _ = roc_curve(labels, values, drop_intermediate=False)
    # scikit-learn also has the points between, on straight lines.
    assert set(np.round(x + 10 * y, 9)) <= set(np.round(fpr + 10 * tpr, 9))
    recall, precision = curves.precision_recall(curve)
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
    x, y = curves.region_overlap(curve)
    inside = x <= 0.3
    assert auc(x[inside], y[inside]) / 0.3 == pytest.approx(curve.aupro(), abs=1e-2)
    for points in (curves.roc(curve), (x, y), curves.precision_recall(curve)):
        thinned = curves.thin(*points)
        assert len(thinned[0]) < len(points[0]) / 2
        # Every point left out is within the tolerance of one that stayed.
        kept = np.stack(thinned, axis=1)
        for point in np.stack(points, axis=1)[:: len(points[0]) // 300]:
            assert np.abs(kept - point).max(axis=1).min() <= curves.TOLERANCE
        assert [each[-1] for each in thinned] == [each[-1] for each in points]


# -- what is drawn --------------------------------------------------------------------------------


def legible(figure, smallest: float = style.SMALL) -> list[str]:
    """Return what a reader could not read: too small, cut off, or on top of other text."""
    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        draw = Text.draw
        patch.setattr(
            Text, "draw", lambda self, *given: (drawn.append(self), draw(self, *given))[1]
        )
        figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    problems, boxes = [], []
    # The layout may draw twice.
    for text in {id(each): each for each in drawn if each.get_visible()}.values():
        if not text.get_text().strip():
            continue
        box = text.get_window_extent()
        if text.get_fontsize() < smallest:
            problems.append(f"{text.get_text()!r} is {text.get_fontsize()} pt")
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > width + 0.5 or box.y1 > height + 0.5:
            problems.append(f"{text.get_text()!r} is cut off")
        boxes.append((text.get_text(), box.x0 + 1, box.y0 + 1, box.x1 - 1, box.y1 - 1))
    for i, (one, ax, ay, bx, by) in enumerate(boxes):
        for other, cx, cy, dx, dy in boxes[i + 1 :]:
            if ax < dx and cx < bx and ay < dy and cy < by:
                problems.append(f"{one!r} overlaps {other!r}")
    return problems


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Look at every figure as it is saved; the list holds what cannot be read."""
    problems: list[str] = []
    save = style.save

    def looked_at(figure, output):
        problems.extend(f"{output.name}: {problem}" for problem in legible(figure))
        save(figure, output)

    monkeypatch.setattr(style, "save", looked_at)
    return problems


TITLE = "a_data_set_with_a_long_name / a_category_with_an_even_longer_name (seed 0 of 3 seeds)"
EXPERIMENTS = ["SPADE", "PatchCore-WRN50-25-and-a-name-that-never-ends-at-all"]


@pytest.fixture
def products(category, tmp_path, rng):
    """A category with scores and maps of two experiments, each wrong about one image."""
    rows = manifest.build(category)
    decoded = tmp_path / "pixels.h5"
    decode.decode(rows, category, decoded, geometry=Geometry.from_config(32, None))
    with decode.Pixels(decoded) as opened:
        masks = opened.mask()
    test = rows[rows["split"] == "test"]
    labels = test["label"].to_numpy().astype(int)
    truth = GroundTruth(
        test["image"].to_numpy(), labels, test["defect"].to_numpy(),
        np.ones(len(test), bool), masks,
    )  # fmt: skip
    found = []
    for i, name in enumerate(EXPERIMENTS):
        values = labels * 3.0 + np.linspace(1, 1.5, len(labels))
        values[np.flatnonzero(labels == 1 - i)[0]] = 9.0 * i  # a miss, a false alarm
        maps = (rng.random(masks.shape) + masks * 2).astype(np.float32)
        place = tmp_path / f"experiment{i}"
        place.mkdir()
        scores.write(
            Scores(values.astype(np.float32), maps), truth, place / "scores.csv", place / "maps.h5"
        )
        found.append(pictures.Experiment(name, place / "scores.csv", place / "maps.h5", decoded))
    return rows, found


def count_colour(path: Path, colour: str) -> int:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.asarray(Image.open(path).convert("RGB")) == wanted).all(axis=-1).sum())


def test_sheets_frame_what_is_wrong_and_can_be_read(products, tmp_path, read):
    rows, experiments = products
    sheet, wrong = tmp_path / "sheet.png", tmp_path / "cases.png"
    pictures.sheets(rows, experiments, sheet, wrong, title=TITLE)
    assert not read
    for colour in (style.MISSED, style.FALSE_ALARM):
        assert count_colour(wrong, colour) > 500
    again = tmp_path / "again.png"
    pictures.sheets(rows, experiments, again, tmp_path / "b.png", title=TITLE)
    assert again.read_bytes() == sheet.read_bytes()

    pictures.sheets(rows, experiments[:1], sheet, wrong, title=TITLE)
    assert not read
    assert count_colour(wrong, style.MISSED) > 500
    assert count_colour(wrong, style.FALSE_ALARM) == 0


def test_a_montage_shows_the_median_defect(products, tmp_path, read):
    rows, experiments = products
    example = pictures.Example("widget:\ncut", "cut", rows, experiments)
    output = tmp_path / "montage.png"
    pictures.montage([example] * 5, ["SPADE", "PatchCore"], output, caption="Of nobody. " * 20)
    assert not read
    assert Image.open(output).width == round(style.WIDTH * style.DPI)
    with pytest.raises(DataError, match="there is no defect 'hole', but cut, dirt"):
        pictures.montage(
            [pictures.Example("x", "hole", rows, experiments)], ["A", "B"], output, caption=""
        )


def test_figures_of_a_category(products, tmp_path, read):
    rows, experiments = products
    measured = [
        figures.measure(each.name, each.table, each.maps, each.pixels, rows) for each in experiments
    ]
    with decode.Pixels(experiments[0].pixels) as opened:
        assert measured[0].pixels.positives == opened.mask().sum() > 0
    figures.draw_curves(measured, tmp_path / "curves.png", title=TITLE)
    figures.draw_scores(measured, tmp_path / "scores.png", title=TITLE)
    made = figures.defect_table(measured)
    assert list(made) == ["experiment", "defect", "images", "image_auroc", "missed"]
    assert made["missed"].sum() == 1
    figures.draw_defects(made, tmp_path / "defects.png", title=TITLE)
    assert not read
    scores_of_others = experiments[0].table.with_name("other.csv")
    scores_of_others.write_text("image,label,defect,score\na.png,0,good,1\nb.png,1,cut,2\n")
    with pytest.raises(StoreError, match=r"other\.csv: not the scores that were written with"):
        figures.measure("X", scores_of_others, experiments[0].maps, experiments[0].pixels, rows)


@pytest.mark.parametrize("kind", ["good", "defective"])
def test_images_of_one_kind_are_shown_but_not_judged(products, tmp_path, read, kind):
    rows, experiments = products
    tables, measured = [], []
    for each in experiments:
        part = scores.read_table(each.table)
        part = part[part["label"] == int(kind == "defective")].reset_index(drop=True)
        tables.append(part)
        measured.append(figures.Measured(each.name, part, None))
        assert np.isnan(cases.threshold(part))
        assert set(cases.verdicts(part, cases.threshold(part))) == {""}
    figures.draw_curves(measured, tmp_path / "curves.png", title=TITLE)
    figures.draw_scores(measured, tmp_path / "scores.png", title=TITLE)
    made = figures.defect_table(measured)
    assert made["image_auroc"].isna().all()
    assert len(made) == (0 if kind == "good" else 4)
    figures.draw_defects(made, tmp_path / "defects.png", title=TITLE)
    for each, part in zip(experiments, tables, strict=True):
        maps = scores.read_maps(each.maps, part["image"].tolist())
        truth = GroundTruth(
            part["image"].to_numpy(), part["label"].to_numpy(), part["defect"].to_numpy(),
            np.ones(len(part), bool), np.zeros(maps.shape, bool),
        )  # fmt: skip
        made = Scores(part["score"].to_numpy(np.float32), maps)
        scores.write(made, truth, each.table, each.maps)
    pictures.sheets(rows, experiments, tmp_path / "a.png", tmp_path / "b.png", title=TITLE)
    assert not read
    assert Image.open(tmp_path / "b.png").height > 100


@pytest.mark.parametrize(("experiments", "kinds"), [(1, 1), (3, 5), (9, 30)])
def test_figures_of_any_size_can_be_read(tmp_path, rng, read, experiments, kinds):
    defects = np.array(["good"] * 30 + [f"kind_of_defect_{i}" for i in range(kinds)] * 4)
    labels = (defects != "good").astype(int)
    measured = []
    for i in range(experiments):
        values = np.exp(rng.normal(size=len(labels)) + 2 * labels) * 10.0 ** (2 - i)
        measured.append(
            figures.Measured(f"PatchCore-R18-{i}", table(labels, values, defects), None)
        )
    figures.draw_curves(measured, tmp_path / "curves.png", title=TITLE)
    figures.draw_scores(measured, tmp_path / "scores.png", title=TITLE)
    figures.draw_defects(figures.defect_table(measured), tmp_path / "defects.png", title=TITLE)
    assert not read
    for name in ("curves", "scores", "defects"):
        width, height = Image.open(tmp_path / f"{name}.png").size
        assert width <= 1.6 * style.WIDTH * style.DPI
        assert height < 25 * style.DPI


def test_experiments_are_told_apart():
    lines = [style.line(i) for i in range(28)]
    assert len({str(sorted(each.items())) for each in lines}) == 28
    marks = [style.marker(i) for i in range(49)]
    assert len({str(sorted(each.items())) for each in marks}) == 49
    assert [each["color"] for each in marks] == [style.line(i)["color"] for i in range(49)]


# -- accuracy against time ------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points):
    cost, quality = np.array(points).T
    front = curves_front = tradeoff.pareto(cost, quality)
    for i, (c, q) in enumerate(points):
        beaten = any(
            (cost[j] <= c and quality[j] >= q and (cost[j] < c or quality[j] > q))
            for j in range(len(points))
        )
        same = any((cost[j], quality[j]) == (c, q) for j in curves_front)
        assert same == (not beaten), i
    assert (np.diff(cost[front]) > 0).all()


def test_time_and_size_of_an_experiment(tmp_path, read):
    jobs = pd.DataFrame(columns=list(runtime.COLUMNS))
    jobs["stage"] = ["extract", "extract", "score", "score", "score"]
    jobs["name"] = ["r18", "r18", "SPADE", "SPADE", "PaDiM"]
    jobs["category"] = ["a", "b", "a", "b", "a"]
    jobs["images"] = [40, 60, 10, 20, 10]
    jobs["compute_seconds"] = [4.0, 4.0, 3.0, 6.0, np.nan]
    jobs["model_mb"] = [np.nan, np.nan, 6.0, 8.0, 1.0]
    jobs["dataset"], jobs["cached"] = "d", False
    jobs.to_csv(tmp_path / "runtime.csv", index=False)
    metrics = pd.DataFrame(
        [("d", each, "image_auroc", value) for each, value in (("SPADE", 0.9), ("PaDiM", 0.8))],
        columns=["dataset", "experiment", "metric", "value"],
    )
    models = {"SPADE": ("spade-1", "r18"), "PaDiM": ("padim-1", "r18")}
    times = runtime.read(tmp_path / "runtime.csv")
    found = tradeoff.gather(metrics, times, models).set_index("experiment")
    assert found.loc["SPADE", "seconds_per_image"] == pytest.approx(8 / 100 + 9 / 30)
    assert found.loc["SPADE", "model_mb"] == 7
    assert found.loc["SPADE", "image_auroc"] == 0.9
    assert np.isnan(found.loc["PaDiM", "seconds_per_image"])
    assert found.loc["PaDiM", "model_mb"] == 1
    assert found["aupro"].isna().all()
    tradeoff.draw(found.reset_index(), tmp_path / "tradeoff.png")
    assert not read
    assert Image.open(tmp_path / "tradeoff.png").width > 1000


# -- what the documents show ----------------------------------------------------------------------


def test_schematics_are_legible_and_the_same_every_time(tmp_path, read, monkeypatch):
    for folder in ("one", "two"):
        monkeypatch.setattr("sys.argv", ["schematics.py", "--output", str(tmp_path / folder)])
        schematics.main()
    assert not read
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [f"{m}.{s}" for m in ("padim", "patchcore", "spade") for s in ("png", "svg")]
    for name in names:
        one, two = (tmp_path / folder / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), name


DOT = """digraph snakemake_dag {
    0[label = "all", color = "0.00 0.6 0.85", style="rounded"];
    1[label = "make", color = "0.61 0.6 0.85", style="rounded"];
    2[label = "fit", color = "0.22 0.6 0.85", style="rounded"];
    3[label = "score", color = "0.56 0.6 0.85", style="rounded"];
    4[label = "draw", color = "0.56 0.6 0.85", style="rounded"];
    1 -> 2
    1 -> 3
    2 -> 3
    1 -> 4
    2 -> 4
    3 -> 0
    4 -> 0
}"""


def test_the_rule_graph_is_drawn_without_what_follows(tmp_path, read):
    graph = rulegraph.parse(DOT)
    assert graph == {
        "make": set(), "fit": {"make"}, "score": {"make", "fit"}, "draw": {"make", "fit"}
    }  # fmt: skip
    assert rulegraph.reduced(graph) == {
        "make": set(), "fit": {"make"}, "score": {"fit"}, "draw": {"fit"}
    }  # fmt: skip
    assert [sorted(each) for each in rulegraph.columns(graph)] == [
        ["make"], ["fit"], ["draw", "score"]
    ]  # fmt: skip
    rulegraph.draw(graph, [tmp_path / "graph.svg", tmp_path / "graph.png"])
    assert not read
    assert "<svg" in (tmp_path / "graph.svg").read_text()


@pytest.mark.slow
def test_the_drawn_rule_graph_is_the_workflows():
    """`make figures` redraws it; here only that nobody forgot to."""
    graph = rulegraph.parse(rulegraph.rulegraph(ROOT / "config/config.yaml"))
    assert {"archive", "download", "extract", "score", "figures", "pictures"} <= set(graph)
    assert graph["extract"] >= {"decode"}
