"""Draw the workflow's rules from left to right, as `snakemake --rulegraph` tells them.

An arrow from a rule to one that reads its products; what other arrows imply is left out. Needs no
graphviz. Written as SVG and PNG.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from indad.reporting import colours, style

ROOT = Path(__file__).resolve().parent.parent.parent
#: Colour and name of each stage, and its rules; any other rule presents results.
STAGES = {
    "data": ("#0072B2", ("archive", "download", "index", "decode", "weights")),
    "features": ("#009E73", ("extract",)),
    "models and scores": ("#B34A00", ("fit", "score")),
    "results": ("#7A4B8C", ()),
}
Graph = dict[str, set[str]]


def parse(dot: str) -> Graph:
    """Read rule -> rules it reads from, out of snakemake's dot text; the target is left out."""
    names = dict(re.findall(r'^\s*(\d+)\[label = "([^"\\]+)', dot, re.MULTILINE))
    graph: Graph = {name: set() for name in names.values()}
    for source, target in re.findall(r"(\d+) -> (\d+)", dot):
        graph[names[target]].add(names[source])
    graph.pop("all", None)
    return graph


def before(graph: Graph, rules: Iterable[str]) -> set[str]:
    """Return all that some rules need, directly or not."""
    found: set[str] = set()
    waiting = list(rules)
    while waiting:
        for rule in graph[waiting.pop()] - found:
            found.add(rule)
            waiting.append(rule)
    return found


def reduced(graph: Graph) -> Graph:
    """Leave out what follows from other arrows."""
    return {rule: needs - before(graph, needs) for rule, needs in graph.items()}


def columns(graph: Graph) -> list[list[str]]:
    """Arrange rules by the longest way to them; within a column near what they read."""
    depth: dict[str, int] = {}

    def deep(rule: str) -> int:
        if rule not in depth:
            depth[rule] = 1 + max(map(deep, graph[rule]), default=-1)
        return depth[rule]

    for rule in graph:
        deep(rule)
    for rule in (rule for rule, needs in graph.items() if not needs):
        # What begins a line stands just before the first that goes on from it.
        users = [depth[other] for other, needs in graph.items() if rule in needs]
        depth[rule] = max(0, min(users, default=1) - 1)
    placed: list[list[str]] = []
    height: dict[str, float] = {}
    for level in range(max(depth.values()) + 1):
        rules = [rule for rule in graph if depth[rule] == level]
        # What others go on from stays on the main line, in the middle.
        ends = [rule for rule in rules if not any(rule in needs for needs in graph.values())]
        middle = [rule for rule in rules if rule not in ends]
        half = len(ends) // 2
        rules = [*sorted(ends)[:half], *sorted(middle), *sorted(ends)[half:]]
        for place, rule in enumerate(rules):
            height[rule] = place
        placed.append(rules)
    return placed


def rulegraph(config: Path) -> str:
    """Ask snakemake for the graph of a full run from nothing, data to be downloaded included."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "--snakefile"]
    with tempfile.TemporaryDirectory() as empty:
        command += [str(ROOT / "workflow/Snakefile"), "--directory", empty]
        command += ["--configfile", str(config)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"snakemake --rulegraph failed:\n{done.stderr[-2000:]}")
    return done.stdout


def draw(graph: Graph, outputs: Iterable[Path]) -> None:
    """Draw the graph."""
    placed = columns(graph)
    most = max(map(len, placed))
    # Tenths of an inch, as in the schematics.
    pitch = 10 * style.WIDTH / len(placed)
    width, tall, line = min(9.0, pitch - 1.0), 3.2, 5.0
    height = line * most + 5.5
    spot = {}
    for across, rules in enumerate(placed):
        for down, rule in enumerate(rules):
            y = height - 1.2 - line * ((most - len(rules)) / 2 + down + 0.5)
            spot[rule] = (pitch * (across + 0.5), y)
    with style.drawing(*outputs, height=height / 10) as figure:
        axis = figure.add_axes((0, 0, 1, 1))
        axis.axis("off")
        for rule, needs in reduced(graph).items():
            x, y = spot[rule]
            for need in sorted(needs):
                start_x, start_y = spot[need]
                far = round((x - start_x) / pitch) > 1 and start_y == y
                axis.add_patch(
                    FancyArrowPatch(
                        (start_x + width / 2, start_y),
                        (x - width / 2 - 0.15, y),
                        arrowstyle="-|>",
                        mutation_scale=8,
                        color=colours.GREY,
                        linewidth=1.1,
                        connectionstyle=f"arc3,rad={-0.3 if far else 0}",
                        shrinkA=0,
                        shrinkB=0,
                    )
                )
        for rule, (x, y) in spot.items():
            axis.add_patch(
                FancyBboxPatch(
                    (x - width / 2, y - tall / 2), width, tall, facecolor=colour(rule),
                    edgecolor="none", boxstyle="round,pad=0,rounding_size=0.7",
                )
            )  # fmt: skip
            name = style.wrap(rule, width / 10 - 0.02)
            axis.text(x, y, name, ha="center", va="center", color="white", fontsize=style.SMALL)
        x = (pitch - width) / 2
        for stage, (shade, _) in STAGES.items():
            axis.add_patch(
                FancyBboxPatch(
                    (x, 1.2), 1.4, 1.4, facecolor=shade, edgecolor="none",
                    boxstyle="round,pad=0,rounding_size=0.3",
                )
            )  # fmt: skip
            axis.text(x + 2.1, 1.85, stage, va="center", fontsize=style.SMALL)
            x += 4.5 + 0.72 * len(stage)
        axis.set(xlim=(0, 10 * style.WIDTH), ylim=(0, height))


def colour(rule: str) -> str:
    """Return the colour of a rule's stage."""
    for shade, rules in STAGES.values():
        if rule in rules:
            return shade
    return STAGES["results"][0]


def main() -> None:
    parse_arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse_arguments.add_argument(
        "--output", type=Path, default=Path("docs/rulegraph"), metavar="PREFIX"
    )
    parse_arguments.add_argument("--config", type=Path, default=ROOT / "config/config.yaml")
    given = parse_arguments.parse_args()
    graph = parse(rulegraph(given.config))
    draw(graph, [given.output.with_suffix(suffix) for suffix in (".svg", ".png")])


if __name__ == "__main__":
    main()
