"""Write the graph of the rules that lead to metrics.csv into the README, as Mermaid.

Snakemake draws it: ``snakemake --rulegraph mermaid-js``. The graph is that of a run in an empty
folder, so it does not depend on results or data that are already there.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from indad.reporting import readme

ROOT = Path(__file__).resolve().parent.parent.parent


def rule_graph() -> str:
    """Return the graph of config/config.yaml up to metrics.csv as Mermaid text.

    Raises:
        SystemExit: Snakemake failed; its message is included.
    """
    with tempfile.TemporaryDirectory() as empty:
        command = [
            *(sys.executable, "-m", "snakemake", "results/metrics.csv"),
            *("--snakefile", str(ROOT / "workflow/Snakefile"), "--directory", empty),
            *("--configfile", str(ROOT / "config/config.yaml"), "--rulegraph", "mermaid-js"),
        ]
        # With a fixed hash seed, Snakemake numbers the rules in the same order every time.
        variables = os.environ | {"PYTHONHASHSEED": "0"}
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise SystemExit(f"snakemake --rulegraph failed:\n{done.stderr[-2000:]}")
    lines = done.stdout[done.stdout.index("flowchart") :].strip().splitlines()
    arrows = sorted(line for line in lines if "-->" in line)
    rest = [line for line in lines[1:] if "-->" not in line]
    return "\n".join(["flowchart LR", *rest, *arrows])


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--document", type=Path, default=Path("README.md"), metavar="FILE")
    given = parse.parse_args()
    readme.update(given.document, "rule graph", f"```mermaid\n{rule_graph()}\n```")


if __name__ == "__main__":
    main()
