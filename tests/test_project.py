"""The project's own files agree with each other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from conftest import ROOT, table_rows
from indad import methods
from indad.data.public import catalogue, sources
from indad.reporting import published, tables


def direct_dependencies() -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = ("quickstart", "slurm", "export", "package", "dev")
    lists = [project["dependencies"], *(extras[name] for name in names)]
    parsed = [Requirement(text) for each in lists for text in each]
    return {canonicalize_name(each.name): each for each in parsed}


def locked() -> dict[str, set[str]]:
    """Package to its pinned versions: some differ by Python version."""
    pins: dict[str, set[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "==", line
        pins.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return pins


def test_lock_holds_exact_pins_of_everything_and_no_urls():
    pins = locked()
    assert "://" not in (ROOT / "requirements.lock").read_text()
    for name, requirement in direct_dependencies().items():
        assert name in pins, f"{name} is in pyproject.toml but not locked: make lock"
        for version in pins[name]:
            assert requirement.specifier.contains(version), f"{name} {version}: make lock"


def test_environment_yaml_has_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text())
    pip = next(each["pip"] for each in environment["dependencies"] if isinstance(each, dict))
    pins = locked()
    listed = {}
    for text in pip:
        requirement = Requirement(text)
        (pin,) = requirement.specifier
        listed[canonicalize_name(requirement.name)] = pin.version
    assert set(listed) == set(direct_dependencies())
    for name, version in listed.items():
        assert version in pins[name], f"{name}: environment.yaml {version}, lock {pins[name]}"


def test_no_script_hides_a_package():
    """The folder of the scripts comes first on the path of ``run.py`` and of the tests."""
    names = [path.stem for path in (ROOT / "scripts").glob("*.py")]
    code = (
        "import sys; from importlib.machinery import PathFinder; "
        # An editable install of this project puts the folder itself on the path.
        "path = [each for each in sys.path if each.rstrip('/') != sys.argv[1]]; "
        "print([name for name in sys.argv[2:] if name in sys.stdlib_module_names "
        "or PathFinder.find_spec(name, path)])"
    )
    command = [sys.executable, "-P", "-c", code, str(ROOT / "scripts"), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def test_the_packages_the_project_was_asked_for_are_direct_dependencies():
    wanted = {
        "snakemake", "torch", "torchvision", "timm", "numpy", "scikit-learn", "pandas", "h5py",
        "tabulate",
    }  # fmt: skip
    assert wanted <= set(direct_dependencies())


def schema() -> dict:
    return yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())


def test_every_configuration_key_is_documented():
    text = (ROOT / "config/README.md").read_text()
    definitions = schema()["$defs"]
    keys = {
        *schema()["properties"],
        *definitions["dataset"]["properties"],
        *definitions["extractor"]["properties"],
        *definitions["experiment"]["properties"],
        *(f"readme.{key}" for key in schema()["properties"]["readme"]["properties"]),
        *(f"uncertainty.{key}" for key in schema()["properties"]["uncertainty"]["properties"]),
        *(f"run.{key}" for key in schema()["properties"]["run"]["properties"]),
    }
    keys |= {name for m in methods.METHODS for name in methods.create(m, {}).parameters} - {"seed"}
    keys |= {*methods.Ensemble(members=["A", "B"]).parameters} - {"seed"}
    keys |= {name for s in sources.SOURCES for name in sources.check_options(s, {}, "")}
    missing = [key for key in sorted(keys) if f"`{key}" not in text]
    assert not missing
    documented = {name.lower() for name in (*methods.NAMES, *sources.SOURCES)}
    assert all(f"`{name}`" in text for name in documented)


#: Shipped configurations, each a file or two, and the page that their results are in.
CONFIGURATIONS = [
    (["config.yaml"], None),
    (["precision_r18.yaml"], None),
    (["quickstart.yaml"], "README.md"),
    (["evidence.yaml"], "README.md"),
    (["evidence.yaml", "ball_screw.yaml"], "README.md"),
    (["evidence.yaml", "few_images.yaml"], "docs/evidence.md"),
    (["evidence.yaml", "coreset_merge.yaml"], "docs/evidence.md"),
]


def test_no_shipped_configuration_is_forgotten():
    named = {name for names, _ in CONFIGURATIONS for name in names}
    assert named == {path.name for path in (ROOT / "config").glob("*.yaml")}


@pytest.mark.parametrize(("names", "page"), CONFIGURATIONS)
def test_shipped_configurations_are_valid(names, page):
    from indad.pipeline.config import Config
    from indad.pipeline.config_files import load_config, merged, read_yaml

    first, *others = [ROOT / "config" / name for name in names]
    written = load_config(first)
    for each in others:
        written = merged(written, read_yaml(each))
    made = Config.read(written)
    assert made.experiments
    assert all(each.settings["layers"] for each in made.extractors.values())
    block = made.written["readme"]["block"]
    assert page is None or f"<!-- begin {block} -->" in (ROOT / page).read_text()


def test_metric_names_agree():
    from indad.evaluation import metrics

    assert tuple(tables.TITLES) == tuple(metrics.METRICS)
    assert schema()["$defs"]["metric"]["enum"] == list(metrics.METRICS)


def test_a_version_is_stated_once():
    from indad import __version__

    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()


DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / name for name in ("config/README.md", "resources/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_of_documents_exist(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_of_docs_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text()
    pages = [path.name for path in (ROOT / "docs").glob("*.md")]
    assert [name for name in pages if f"(docs/{name})" not in text] == []


def by_first(text: str) -> dict[str, list[str]]:
    """Return the cells of Markdown tables, without bold, by the first of each row."""
    return {row[0]: row[1:] for row in table_rows(text.replace("*", ""))}


def test_the_first_table_of_the_readme_repeats_the_generated_ones():
    text = (ROOT / "README.md").read_text()
    first = by_first(text[: text.index("## Results")])
    generated = re.search(r"<!-- begin evidence -->(.*?)<!-- end evidence -->", text, re.DOTALL)[1]
    for title in ("Image AUROC", "Pixel AUROC", "AUPRO"):
        (part,) = (p for p in generated.split("####") if p.strip().startswith(title))
        spade, padim, _, patchcore, _ = by_first(part)["average"]  # that of 10 %
        assert first[title] == [spade, padim, patchcore], title


def test_rules_and_library_keep_apart():
    """The library knows no Snakemake, the rules no torch."""
    for path in (ROOT / "scripts/indad").rglob("*.py"):
        assert not re.search(r"^\s*(import|from) snakemake", path.read_text(), re.M), path
    for path in (ROOT / "workflow").rglob("*.smk"):
        assert "torch" not in path.read_text(), path


def test_planning_a_workflow_loads_no_large_library():
    code = "import sys; import indad.pipeline.settings, indad.cli.run; print(*sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "timm", "matplotlib", "sklearn"}
    assert not loaded & {"scipy.ndimage", "scipy.fft", "scipy.special", "scipy.stats"}


def test_a_script_of_a_rule_says_that_snakemake_runs_it():
    script = [sys.executable, str(ROOT / "scripts/index.py")]
    failed = subprocess.run(script, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "index.py is the script of a rule: Snakemake runs it" in failed.stderr


def test_published_results_are_sourced_and_consistent():
    import pandas as pd

    table = pd.read_csv(ROOT / "resources/published.csv")
    assert table.notna().all(axis=None)
    assert table["percent"].between(30, 100).all()
    assert not table.duplicated(["dataset", "name", "metric", "category"]).any()
    assert (table.groupby("name")["result"].nunique() == 1).all()
    assert (table.groupby(["name", "metric"])["source"].nunique() == 1).all()
    assert set(table["kind"]) == {"paper", "reproduction"}
    categories = table[table["category"] != "average"]
    printed = table[table["category"] == "average"].set_index(["name", "metric"])["percent"]
    each = categories.groupby(["name", "metric"])["percent"]
    assert (each.count() == 15).all()
    off = (each.mean() - printed.loc[each.mean().index]).abs()
    assert list(off[off > 0.11].index) == [("SPADE", "pixel_auroc")]  # printed as 96.5
    averages_only = set(printed.index) - set(each.groups)
    assert averages_only == {("SPADE", "image_auroc"), ("PaDiM", "image_auroc")}
    groups = catalogue.load()["mvtec_ad"].groups
    listed = sorted(name for each in groups.values() for name in each)
    assert listed == sorted(categories["category"].unique())


def test_published_timings_are_sourced_and_of_known_results():
    for each in published.timings().itertuples():
        assert each.result in published.results()
        assert each.quantity in ("fit", "inference", "memory")
        assert each.value > 0
        assert "arXiv:" in each.source
        assert all([each.by, each.hardware, each.settings])
