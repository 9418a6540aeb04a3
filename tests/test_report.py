"""The report is self-contained, agrees with the tables, and escapes every name."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from fabricate import CATEGORIES, EXPERIMENTS, ODD, fabricate, picture
from indad.core.errors import StoreError
from indad.evaluation import comparison
from indad.reporting import report
from indad.reporting.page import comparisons, embed
from indad.reporting.tables import Line

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """The content of a page: tags with their attributes, and the text of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(text)
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs).get("id") or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self._open):
            self._rows[-1][-1] += data


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> tuple[report.Sources, str, Page]:
    """A page of 15 categories and 8 experiments, some with unusual names."""
    folder = tmp_path_factory.mktemp("large")
    categories = [*CATEGORIES[: 15 - len(ODD)], *ODD]
    experiments = [*EXPERIMENTS[:7], ODD[0]]
    sources = fabricate(folder, categories, experiments, height=200)
    report.write(sources, folder / "report/index.html")
    text = (folder / "report/index.html").read_text(encoding="utf-8")
    return sources, text, Page(text)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> report.Sources:
    """The products of three categories and two experiments."""
    folder = tmp_path_factory.mktemp("small")
    return fabricate(folder, CATEGORIES[:3], EXPERIMENTS[:2], height=40)


def test_nothing_is_loaded_from_anywhere(large):
    _, text, page = large
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "data", "poster", "xlink:href"):
            target = attributes.get(name)
            if target is not None:
                assert target.startswith(("data:", "#")), (tag, target[:80])
    style = re.search(r"<style>(.*?)</style>", text, re.S).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?://", re.sub(r"data:[^\"]*", "", text))


def test_links_within_the_page_have_a_target(large):
    page = large[2]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in ("href", "aria-controls", "aria-labelledby", "for", "data-copy"):
            target = (attributes.get(name) or "").removeprefix("#")
            assert not target or target == "data:," or target in ids, (name, target)


def test_no_name_is_markup(large):
    _, text, page = large
    assert "<script>alert" not in text
    assert "<i>" not in text
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    for name in ODD:
        assert name in page.texts
    assert all(not key.startswith("on") for _, attributes in page.tags for key in attributes)


def test_only_the_page_s_own_script_may_run(large):
    _, text, page = large
    script = re.search(r"<script>(.*?)</script>", text, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(
        attributes["content"]
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_tables_show_the_measured_values(large):
    sources, _, page = large
    measured = pd.read_csv(sources.metrics[0], keep_default_na=False, na_values=[""])
    rows = page.tables["table-0-image_auroc"]
    assert rows[0][1:] == list(sources.experiments)
    assert [row[0] for row in rows[1:16]] == [each.name for each in sources.categories]
    assert rows[16][0] == "textures (4)"
    assert rows[17][0] == "average"
    for row, (_, group) in zip(rows[1:], measured.groupby(["scope", "category"], sort=False),
                               strict=True):  # fmt: skip
        shown = [float(re.match(r"[\d.]+", cell).group()) for cell in row[1:]]
        np.testing.assert_allclose(shown, group["percent"], atol=0.0501)
    first = measured.iloc[0]
    assert f"[{first['ci_low']:.1f}, {first['ci_high']:.1f}]" in rows[1][1]
    assert "paper" in rows[1][3]
    assert re.search(r"paper 100\.0 \N{MINUS SIGN}\d", rows[1][3])


def test_every_category_has_its_panel_and_pictures(large):
    sources, _, page = large
    tags = page.tags
    panels = [a["id"] for tag, a in tags if tag == "article"]
    assert panels == [f"category-{i}" for i in range(15)]
    pictures = [a for tag, a in tags if tag == "img" and "src" in a]
    assert len(pictures) == 15 * 4 + len([*sources.diagrams.iterdir()]) + 1
    assert all(a["src"].startswith("data:image/webp;base64,") and a["alt"] for a in pictures)


def test_the_same_products_give_the_same_page(small, tmp_path):
    for name in ("a", "b"):
        report.write(small, tmp_path / name, threads=2)
    page = (tmp_path / "a").read_bytes()
    assert page == (tmp_path / "b").read_bytes()
    assert b"number of training images" not in page


def test_sections_without_content_are_left_out(tmp_path):
    single = fabricate(tmp_path, ["a"], ["One"], masks=False, height=40)
    report.write(single, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "mvtec_ad has no ground truth masks: image-level metrics only." in text
    assert "Pixel AUROC</button>" not in text
    assert 'id="comparisons"' not in text
    assert "may be due to chance" not in text
    Page(text)


def test_means_over_seeds_are_explained(tmp_path):
    sources = fabricate(tmp_path, ["a", "b"], ["One", "Two"], seeds=(0, 1, 2), height=40)
    report.write(sources, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Values with ± are means over 3 seeds" in text
    assert re.search(r"\d\d\.\d</b> ± \d\.\d", text)


def test_notes_are_at_the_top(large):
    sources, text, _ = large
    assert list(sources.notes.values()) == ["random backbone weights, not pretrained"]
    head = text[: text.index('<section id="results">')]
    assert "random backbone weights, not pretrained" in head


# -- size -------------------------------------------------------------------------------------


def test_pictures_shrink_to_the_budget(tmp_path):
    sources = fabricate(tmp_path, CATEGORIES[:1], EXPERIMENTS[:2], height=150)
    report.write(sources, tmp_path / "large.html")
    large = (tmp_path / "large.html").read_text(encoding="utf-8")
    assert "Pictures are reduced" not in large
    budget = int(0.75 * len(large))
    report.write(sources, tmp_path / "small.html", budget=budget)
    small = (tmp_path / "small.html").read_text(encoding="utf-8")
    assert len(small) <= budget
    assert "Pictures are reduced to " in small
    assert small.count("data:image/webp") == large.count("data:image/webp")


def test_line_art_stays_exact_and_photos_do_not_grow(tmp_path, rng):
    from io import BytesIO

    from PIL import Image, ImageDraw

    art = Image.new("RGB", (600, 300), "white")
    ImageDraw.Draw(art).line((10, 10, 590, 280), fill="black", width=3)
    art.save(tmp_path / "art.png")
    picture(tmp_path / "photo.png", (600, 300), rng)
    found = embed.embed([tmp_path / "art.png", tmp_path / "photo.png"], 1600)
    data = base64.b64decode(found[tmp_path / "art.png"].uri.partition(",")[2])
    assert (np.asarray(Image.open(BytesIO(data)).convert("RGB")) == np.asarray(art)).all()
    assert len(found[tmp_path / "photo.png"].uri) < (tmp_path / "photo.png").stat().st_size / 2


# -- findings ---------------------------------------------------------------------------------


def cell(value: float, best: bool = False) -> SimpleNamespace:
    return SimpleNamespace(percent=value, best=best)


def pairs(*rows) -> pd.DataFrame:
    return pd.DataFrame(
        [("image_auroc", c, a, b, d, np.nan, np.nan, p, "test") for c, a, b, d, p in rows],
        columns=["metric", "category", "experiment_a", "experiment_b", "difference", "ci_low",
                 "ci_high", "p_holm", "method"],
    )  # fmt: skip


def finding(rows: list[Line], *tested) -> comparisons.Finding:
    names = ["A", "B", "C"][: len(rows[-1].cells)]
    judged = comparisons.pairs_in_points(pairs(*tested), 0.95)
    (found,) = comparisons.findings({"image_auroc": rows}, names, judged)
    return found


def test_the_test_of_the_only_category_decides():
    rows = [Line("category", "c", [cell(90, True), cell(88), cell(60)])]
    found = finding(rows, ("c", "A", "B", 0.02, 0.01), ("c", "C", "A", -0.3, 0.2))
    assert (found.best, found.rivals, found.open) == (["A"], ["C"], False)
    assert (found.title, found.tested) == ("image AUROC", "difference")


def test_the_difference_of_averages_decides():
    rows = [
        Line("category", "c0", [cell(90, True), cell(80)]),
        Line("category", "c1", [cell(70, True), cell(60)]),
        Line("average", "average", [cell(80, True), cell(70)]),
    ]
    within = [("c0", "A", "B", 0.1, 0.001), ("c1", "A", "B", 0.1, 0.001)]
    average = (comparison.AVERAGE, "A", "B", 0.1, 0.03)
    assert finding(rows, *within, average).rivals == []
    found = finding(rows, *within, (*average[:-1], 0.3))
    assert (found.rivals, found.open) == (["B"], True)
    assert found.tested == "difference of the averages"


def test_a_matrix_is_antisymmetric():
    compared = pairs(("c", "A", "B", 0.02, 0.01))
    compared[["ci_low", "ci_high"]] = [0.01, 0.03]
    judged = comparisons.pairs_in_points(compared, 0.95)
    (matrix,) = comparisons.matrices(judged, ["A", "B"])
    (_, (ab, better, worse)), ((ba, *other), _) = matrix["rows"]
    assert (ab.difference, ab.ci_low, ab.ci_high) == pytest.approx((2, 1, 3))
    assert (ba.difference, ba.ci_low, ba.ci_high) == pytest.approx((-2, -3, -1))
    assert (better, worse) == (1, 0)
    assert other == [0, 1]
    assert (ab.sign, ba.sign) == (1, -1)


# -- damaged products -------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["text", "column", "picture", "record"])
def test_damaged_products_are_named(small, tmp_path, damage):
    path: Path = {
        "text": small.metrics[0],
        "column": small.runtime,
        "picture": small.categories[0].pictures["Curves"],
        "record": small.provenance,
    }[damage]
    whole = path.read_bytes()
    path.write_text({"text": "", "column": "a,b\n1,2\n"}.get(damage, "{}"))
    with pytest.raises(StoreError, match=re.escape(str(path))):
        report.write(small, tmp_path / "page.html")
    path.write_bytes(whole)
    assert not (tmp_path / "page.html").exists()
