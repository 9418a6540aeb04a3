"""The state of a run: which jobs there are, run, have finished or have failed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indad.cli import job_log

#: Lines of a log that are shown of a job that failed without a message for the user.
LOG_LINES = 20


@dataclass(frozen=True)
class Job:
    """A job that Snakemake has started.

    Attributes:
        rule: its rule.
        wildcards: name to value.
        log: its log file, or None.
        started: time of the start (``time.monotonic()``).
    """

    rule: str
    wildcards: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """The rule and the values of its wildcards."""
        return " ".join([self.rule, *map(str, self.wildcards.values())])


@dataclass(frozen=True)
class Failure:
    """A job that has failed.

    Attributes:
        job: the job.
        user_message: the job's own message for the user, or "".
        message: what Snakemake says about it, or "".
        log_end: the last lines of the job's log, if there is no message for the user.
    """

    job: Job
    user_message: str = ""
    message: str = ""
    log_end: str = ""


@dataclass
class RunState:
    """What the events so far amount to.

    Attributes:
        counts: the number of jobs of each rule; empty where there is nothing to do.
        running: by Snakemake's number of the job.
        finished: likewise.
        failures: likewise; without jobs that succeeded when they were tried again.
        errors: messages of errors that belong to no job.
    """

    counts: dict[str, int] = field(default_factory=dict)
    running: dict[int, Job] = field(default_factory=dict)
    finished: dict[int, Job] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def apply(self, event: Mapping[str, Any]) -> Job | None:
        """Take one event into account; return the job that it starts, if any."""
        match event["event"]:
            case "run_info":
                self.counts = {k: n for k, n in event["stats"].items() if k != "total"}
            case "job_info":
                job = _job(event)
                self.running[event["jobid"]] = job
                return job
            case "job_finished":
                number = event["job_id"]
                self.failures.pop(number, None)
                self.finished[number] = self.running.pop(number, None) or Job("")
            case "job_error":
                number = event["jobid"]
                job = self.running.pop(number, None) or _job(event)
                self.failures[number] = _failure(job, event.get("rule_msg") or "")
            case "error":
                self.errors.append(event.get("user_message") or event["message"])
        return None


def _job(event: Mapping[str, Any]) -> Job:
    log = event["log"]
    return Job(event["rule_name"], event.get("wildcards") or {}, Path(log[0]) if log else None)


def _failure(job: Job, message: str) -> Failure:
    messages = job_log.messages(job.log) if job.log else []
    user_message = job_log.error_message(messages)
    end = "" if user_message else "\n".join("\n".join(messages).splitlines()[-LOG_LINES:])
    return Failure(job, user_message, message, end)


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
