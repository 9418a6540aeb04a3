"""Draw docs/example_anomaly_maps.png from finished runs: resources/example_anomaly_maps.yaml.

The runs are those of config/quickstart.yaml and config/bottle_r18.yaml, in results/quickstart and
results/bottle. Name other folders with --run NAME=FOLDER.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

from indad.core.errors import IndadError
from indad.data import manifest
from indad.evaluation.scores import ScoreFiles
from indad.reporting import montage

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--run", nargs="*", default=[], metavar="NAME=FOLDER")
    parse.add_argument("--output", type=Path, default=Path("docs/example_anomaly_maps.png"))
    given = parse.parse_args()
    wanted = yaml.safe_load(
        (ROOT / "resources/example_anomaly_maps.yaml").read_text(encoding="utf-8")
    )
    folders = {name: Path("results") / name for name in wanted["runs"]}
    folders |= {name: Path(folder) for name, folder in (each.split("=", 1) for each in given.run)}
    missing = [folder / "metrics.csv" for folder in folders.values()]
    missing = [str(path) for path in missing if not path.exists()]
    if missing:
        sys.exit(
            f"indad: {', '.join(missing)}: not found; run the configuration first, or name its "
            "folder with --run"
        )
    examples = []
    for example in wanted["examples"]:
        root, run = folders[example["run"]], wanted["runs"][example["run"]]
        place = f"{example['dataset']}/{example['category']}"
        scored = [root / "scores" / place / name / "seed0" for name in run["experiments"]]
        pixels = root / "pixels" / place / f"{run['geometry']}.h5"
        experiments = [
            ScoreFiles(folder / "scores.csv", folder / "maps.h5", pixels) for folder in scored
        ]
        rows = manifest.read(root / "manifests" / f"{place}.csv")
        examples.append(montage.Example(example["name"], example["defect"], rows, experiments))
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "maps.png"
        montage.montage(examples, wanted["methods"], picture, caption=wanted["caption"])
        montage.shrink(picture, given.output)


if __name__ == "__main__":
    try:
        main()
    except IndadError as error:
        sys.exit(f"indad: {error}")
