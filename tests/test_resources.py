"""Every rule asks for memory and time, and the profiles fit the rules."""

from __future__ import annotations

import re

import pytest
import yaml

from conftest import ROOT, table_rows


def test_every_rule_asks_for_memory_and_time():
    rules = {}
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for name, body in re.findall(r"^rule (\w+):\n((?: .*\n|\n)+)", path.read_text(), re.M):
            assert path.stem == name, "a rule has a file of its name"
            rules[name] = body
    assert len(rules) >= 19
    for name, body in rules.items():
        assert "mem_mb=" in body, name
        assert "runtime=" in body, name
        assert f'"../../scripts/{name}.py"' in body, name
        assert re.search(rf'f"{{LOGS}}/{name}[/.]', body), name


@pytest.mark.parametrize("name", ["default", "workstation-gpu", "slurm", "kubernetes"])
def test_profiles_are_documented_and_known_to_snakemake(name):
    profile = yaml.safe_load((ROOT / "workflow/profiles" / name / "config.yaml").read_text())
    assert profile["rerun-incomplete"]
    text = (ROOT / "docs/cluster.md").read_text()
    assert f"profiles/{name}" in text or f"`{name}`" in text
    groups = {each.partition("=")[0] for each in profile.get("group-components", [])}
    used = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    assert all(f'"{group}"' in used for group in groups)


def test_the_documents_table_holds_what_it_is_for():
    text = (ROOT / "docs/resources.md").read_text().replace(",", "")
    rows = [row for row in table_rows(text) if "/" in row[0]]
    assert {row[0].partition("/")[0] for row in rows} >= {"extract", "fit", "score", "evaluate"}
    for name, asked, measured, *_ in rows:
        assert float(measured) <= float(asked) <= 4 * float(measured), name
