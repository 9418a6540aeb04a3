"""Names of data sets, categories and experiments, which are parts of the paths of products."""

from __future__ import annotations

import re
import unicodedata

import pytest

from indad.core import names
from indad.core.errors import ConfigError, DataError
from indad.core.names import name_problem, same_file_problem
from indad.data import manifest
from indad.pipeline.config_files import check_schema
from test_config import BASE, config, dataset

#: Names that a complete run was tried with.
USABLE = (
    "a'b\"c", "a*b?", "[x] y", "$HOME%41#", "-lead", " sp ace ", "back\\slash",
    "co:lon;semi,comma|pipe", "ünï&amp;", "~tilde!`id`", "x=y@z^", "NA", "01",
)  # fmt: skip
UNUSABLE = [
    ("x<b>y", "has a <, which means a variable to Snakemake"),
    ("{dataset}", "has a {, which means a variable to Snakemake"),
    ("a}", "has a }"),
    ("a\nb", "has a line break, another control character or is not UTF-8"),
    ("a\u2028b", "has a line break"),
    ("a\tb", "control character"),
    ("a\udcff", "is not UTF-8"),
    (".hidden", "begins with a dot"),
    ("a/b", "has a /"),
    ("ä" * 76, "has 152 bytes; choose a name of at most 150"),
]


@pytest.mark.parametrize("name", USABLE)
def test_names_that_can_be_used(name):
    assert name_problem(name) == ""


@pytest.mark.parametrize(("name", "problem"), UNUSABLE)
def test_names_that_cannot_be_used(name, problem):
    assert problem in name_problem(name)
    run = {"datasets": ["d"], "experiments": ["e"]}
    for section in ("datasets", "experiments", "extractors"):
        entry = {"path": "p", "method": "padim", "extractor": "r", "backbone": "b", "layers": ["l"]}
        kept = {"datasets": ["path"], "experiments": ["method", "extractor"]}
        chosen = {key: entry[key] for key in kept.get(section, ["backbone", "layers"])}
        with pytest.raises(ConfigError, match=f"^{section}: .*{re.escape(problem)}"):
            check_schema({"run": run, section: {name: chosen}})


@pytest.mark.parametrize("name", ["x<b>y", "a{b", "a\nb", "n" * 151])
def test_check_and_a_run_refuse_a_category_alike(category, name):
    renamed = category.rename(category.with_name(name))
    message = re.escape(name_problem(name))
    with pytest.raises(DataError, match=f"the category {message}"):
        manifest.build(renamed)
    with pytest.raises(DataError, match=f"{category.parent}: the category {message}"):
        _ = dataset({"path": str(category.parent)}).categories


@pytest.mark.parametrize("character", "{}<>")
def test_paths_that_snakemake_would_change(tmp_path, character):
    message = re.escape(f"x{character}y' has a {character}, which means a variable to Snakemake")
    with pytest.raises(ConfigError, match=f"^results: '.*{message}"):
        config(results=str(tmp_path / f"x{character}y"))
    file = tmp_path / f"x{character}y.pth"
    file.touch()
    made = config(extractors={"r": BASE["extractors"]["r"] | {"weights": str(file)}})
    with pytest.raises(ConfigError, match=r"^extractors\.r\.weights: .* a variable to Snakemake"):
        made.extractors["r"].weights_file(tmp_path)


def test_names_that_are_one_on_disk(tmp_path, monkeypatch):
    (tmp_path / "Aa").mkdir()
    real = (tmp_path / "aA").exists()
    found = same_file_problem(["x", "Aa", "aA"], tmp_path)
    assert found.startswith("'Aa' and 'aA' are one name to the file system of" if real else "")
    assert bool(found) == real
    assert [path.name for path in tmp_path.iterdir()] == ["Aa"]
    monkeypatch.setattr(names, "_one_on_disk", lambda *_: True)
    accented = [unicodedata.normalize(form, "möbel") for form in ("NFC", "NFD")]
    assert all(repr(name) in same_file_problem(accented, tmp_path) for name in accented)
    assert "'STRASSE' and 'straße'" in same_file_problem(["STRASSE", "straße"], tmp_path)
    assert same_file_problem(["a", "b"], tmp_path) == ""
    with pytest.raises(ConfigError, match="run.experiments: 'M' and 'm' are one name to the file"):
        config(run__experiments=["M", "m"], experiments__m={"method": "padim", "extractor": "r"})


def test_categories_that_are_one_on_disk(category, monkeypatch):
    monkeypatch.setattr(names, "_one_on_disk", lambda *_: True)
    category.with_name("Widget").symlink_to(category)
    with pytest.raises(DataError, match="the categories 'Widget' and 'widget' are one name"):
        _ = dataset({"path": str(category.parent)}).categories
