"""The state of a run: from the events of the logger plugin, and from the logs of its jobs."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Lines of a log that are shown of a job that failed without a message for the user.
LOG_LINES = 20
#: Bytes at the end of a log that are read.
_LOG_END = 64_000
#: Each message of a log begins with the date and time: see `indad.pipeline.job`.
_BEGIN = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ", re.MULTILINE)
#: "extract bottle r18: 40/209 images, 8 s left", or "extract bottle r18: 209 images in 41 s": see
#: `indad.core.progress`.
_PROGRESS = re.compile(r": (\d+)(?:/(\d+) \w+| \w+ in \d)")
#: Begins the message of an error that the user can fix.
_ERROR = "error: "


@dataclass(frozen=True)
class Job:
    """A job that Snakemake has started.

    Attributes:
        rule: its rule.
        wildcards: name to value.
        log: its log file, or None.
    """

    rule: str
    wildcards: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None

    def progress(self) -> tuple[str, float] | None:
        """Return the line of progress that the log ends with, and the share done, in [0, 1]."""
        last = "".join(self._messages()[-1:])
        match = _PROGRESS.search(last)
        if not match:
            return None
        done, total = int(match[1]), int(match[2] or match[1])
        return last.splitlines()[0], done / max(1, total)

    def failure(self, message: str, output_end: str) -> str:
        """Return why the job failed: its own message for the user, or else the end of its log.

        Args:
            message: what Snakemake says about the failure, or "".
            output_end: the end of Snakemake's output, which is shown if the log is empty.
        """
        messages = self._messages()
        errors = [each for each in messages if each.startswith(_ERROR)]
        if errors:
            return errors[-1].removeprefix(_ERROR)
        name = " ".join([self.rule, *map(str, self.wildcards.values())])
        what = f"{name} failed" + (f" ({message})" if message else "")
        if messages:
            end = "\n".join("\n".join(messages).splitlines()[-LOG_LINES:])
            return f"{what}; its log, {self.log}, ends with:\n{end}"
        return f"{what} and its log is empty; the output of Snakemake ends with:\n{output_end}"

    def _messages(self) -> list[str]:
        """Return the last messages of the log; none if it cannot be read (yet)."""
        if self.log is None:
            return []
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _LOG_END))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return []
        return [part.rstrip("\n") for part in _BEGIN.split(text) if part.strip()]


@dataclass
class RunState:
    """The state of a run after the events so far.

    Attributes:
        counts: the number of jobs of each rule; empty where there is nothing to do.
        running: by Snakemake's number of the job.
        finished: likewise.
        failures: likewise, with Snakemake's message; without jobs that succeeded when they were
            tried again.
        errors: messages of errors that belong to no job.
        messages: ``warning`` or ``note``, and the text, of the workflow's own messages.
    """

    counts: dict[str, int] = field(default_factory=dict)
    running: dict[int, Job] = field(default_factory=dict)
    finished: dict[int, Job] = field(default_factory=dict)
    failures: dict[int, tuple[Job, str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)

    def apply(self, event: Mapping[str, Any]) -> Job | None:
        """Take one event into account; return the job that it starts, if any."""
        match event["event"]:
            case "run_info":
                self.counts = {k: n for k, n in event["stats"].items() if k != "total"}
            case "job_info":
                job = self.running[event["jobid"]] = _job(event)
                return job
            case "job_finished":
                number = event["job_id"]
                self.failures.pop(number, None)
                self.finished[number] = self.running.pop(number, None) or Job("")
            case "job_error":
                number = event["jobid"]
                job = self.running.pop(number, None) or _job(event)
                self.failures[number] = job, event.get("rule_msg") or ""
            case "warning" | "note" as label:
                self.messages.append((label, event["message"]))
            case "error":
                self.errors.append(event.get("user_message") or event["message"])
        return None


def _job(event: Mapping[str, Any]) -> Job:
    log = event["log"]
    return Job(event["rule_name"], event.get("wildcards") or {}, Path(log[0]) if log else None)


class EventFile:
    """Reads the events as the logger plugin writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        path.touch()

    def read(self) -> list[dict[str, Any]]:
        """Return the events since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            # The last line may not be complete yet.
            lines = [line for line in file if line.endswith(b"\n")]
        self._read += sum(map(len, lines))
        return [json.loads(line) for line in lines]
