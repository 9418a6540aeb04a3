"""Whether products are current, decided by what is recorded in the results folder.

Snakemake remembers the parameters of its jobs in ``.snakemake`` of the folder it was started from,
and compares the times of files. Neither is reliable: results are shared by several working folders,
they are copied, and ``.snakemake`` may be deleted. So every job writes a record of its settings and
the digests of its files (`indad.pipeline.job`), and has its settings as an input file,
``<results>/settings/<job>/settings.json``. While the workflow is planned, the present settings
are compared with the recorded ones, and the settings file gets a time after or before the
product's. Snakemake then runs exactly the jobs whose settings changed, and a dry run lists them.
"""

import json
import os
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from indad.core import checksum
from indad.core.errors import StoreError

#: Raised when records have another format; jobs with older records run again.
VERSION = 2

Record = dict[str, Any]
_KEYS = {"rule", "script", "settings", "inputs", "outputs", "finished"}


def portable(path: Path, results: Path) -> str:
    """Return a path, relative to the results if it is in them, so that they can be moved."""
    absolute, base = path.absolute(), results.absolute()
    if absolute.is_relative_to(base):
        return absolute.relative_to(base).as_posix()
    return os.path.normpath(absolute)


def job_name(rule: str, wildcards: Mapping[str, Any]) -> str:
    """Return the path of a job's settings, record, log and benchmark below their folders.

    Returns:
        For example ``fit/mvtec_ad/bottle/padim-r18-0123abcd/seed0``.
    """
    parts = [f"seed{value}" if name == "seed" else value for name, value in wildcards.items()]
    return "/".join([rule, *parts])


def digest(path: Path) -> str | None:
    """Return a digest of a file, or of the names and sizes of a folder's files; None if missing.

    A file with a checksum inside, which may have gigabytes, is not read.

    Raises:
        StoreError: the file cannot be read.
    """
    if not path.exists():
        return None
    if path.is_dir():
        files = sorted(each for each in path.rglob("*") if each.name != _TIMESTAMP)
        return "names:" + " ".join(
            f"{each.relative_to(path)}:{each.stat().st_size}" for each in files
        )
    return checksum.recorded_digest(path)


class Planner:
    """Compares the jobs of a run with the records in the results folder.

    Args:
        results: the results folder.
        scripts: the folder of the rules' scripts, where there is one.
    """

    def __init__(self, results: Path, scripts: Path | None = None) -> None:
        self.results, self.scripts = results, scripts
        self._records = _read_records(results / "records")
        self._digest = cache(digest)
        #: Jobs that ran before their input was changed.
        self._outdated = {name for name in self._records if not self._settle(name)}

    def settings_file(self, name: str, settings: Mapping[str, Any]) -> str:
        """Return the settings file of a job, newer than its product exactly if it has to run.

        Args:
            name: as `job_name`.
            settings: what decides the product.

        Raises:
            OSError: the file cannot be written.
        """
        # In a folder of its own: Snakemake lists the folder of an input file once, and regards
        # files that appear there afterwards, the settings of jobs planned later, as missing.
        path = self.results / "settings" / name / "settings.json"
        current: Record = {"settings": json.loads(json.dumps(settings))}
        record, written = self._records.get(name), _read_json(path)
        oldest = min(filter(None, map(_time, self._outputs(name))), default=0)
        if record and record["settings"] == current["settings"] and name not in self._outdated:
            if written.get("settings") != current["settings"]:
                _write_json(path, current)
            if _time(path) > oldest:
                _set_time(path, oldest)
            return str(path)
        if record:
            # Snakemake ignores a newer file that has the content of the last run it remembers.
            current["replaces"] = record["finished"]
        if written != current or _time(path) <= oldest:
            _write_json(path, current)
        if _time(path) <= oldest:  # the products' times are in the future
            _set_time(path, oldest + 10**9)
        return str(path)

    def _outputs(self, name: str) -> list[Path]:
        """Return the files that Snakemake regards as outputs of a job, with the benchmark."""
        files = [*self._records.get(name, {}).get("outputs", ())]
        files += [f"records/{name}.json", f"benchmarks/{name}.tsv"]
        return [self.results / file for file in files]

    def _settle(self, name: str) -> bool:
        """Correct the times of a job's products; return whether they belong to its input."""
        # A copy may leave a product older than its input, and a new checkout leaves it older than
        # the job's script. If the digests of all of them are the recorded ones, the product gets
        # the later time.
        record = self._records[name]
        newest = max((_time(self.results / each) for each in record["inputs"]), default=0)
        least = max(newest, self._script_time(record))
        older = [each for each in self._outputs(name) if 0 < _time(each) < least]
        if not older:
            return True
        files = {**record["inputs"], **record["outputs"]}
        present = {each: self.results / each for each in files if _time(self.results / each)}
        try:
            if any(self._digest(path) != files[each] for each, path in present.items()):
                return all(_time(each) >= newest for each in older)
            for each in older:
                _set_time(each, least)
        except (StoreError, OSError):
            return False
        return True

    def _script_time(self, record: Record) -> int:
        """Return the time a product must have if its script is the recorded one, else 0."""
        script = self.scripts / f"{record['rule']}.py" if self.scripts else None
        if script is None or record.get("script") != self._digest(script):
            return 0
        # Snakemake runs a job whose product is as old as the script.
        return _time(script) + 10**6


def _read_records(folder: Path) -> dict[str, Record]:
    """Read all records below a folder, in the order in which the jobs run."""
    # Imports what all stages import. A job, which starts a second sooner without, reads no record.
    from indad.pipeline.settings import ORDER

    found = {}
    for rule in ORDER:
        for path in [folder / f"{rule}.json", *sorted((folder / rule).rglob("*.json"))]:
            record = _read_json(path)
            if record.get("version") != VERSION or not record.keys() >= _KEYS:
                if not path.exists():
                    continue
                record = {key: {} for key in _KEYS} | {"finished": "in an unknown version"}
            found[path.relative_to(folder).with_suffix("").as_posix()] = record
    return found


def _read_json(path: Path) -> Record:
    """Read a record or a settings file; one that is missing or damaged is empty."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write_json(path: Path, value: Record) -> None:
    """Write a settings file. One that is damaged is written again by the next run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


#: Snakemake takes the time of a folder from this file in it.
_TIMESTAMP = ".snakemake_timestamp"


def _timed(path: Path) -> Path:
    inside = path / _TIMESTAMP
    return inside if inside.exists() else path


def _time(path: Path) -> int:
    """Return the time of a file or folder in nanoseconds, as Snakemake sees it; 0 if missing."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            status = _timed(path).stat()
    except OSError:
        return 0
    return status.st_mtime_ns


def _set_time(path: Path, time: int) -> None:
    os.utime(_timed(path), ns=(time, time))
