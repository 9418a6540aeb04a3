"""Progress of a run: the logger plugin's events, the state they amount to, and the display."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import pytest
from rich.console import Console
from snakemake.exceptions import InputFunctionException, WorkflowError
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import TestLogHandlerBase

from indad.cli.display import Display, TimeLeft
from indad.cli.events import EventFile, Job, RunState
from indad.cli.run import Messages, licence_notice
from indad.core.errors import ConfigError
from indad.data.data_warnings import DataWarning, write_warnings
from snakemake_logger_plugin_indad import LogHandler, LogHandlerSettings, add_user_message

STAMP = "2026-01-01 00:00:00,000 "


class TestPlugin(TestLogHandlerBase):
    """Snakemake's own checks of a logger plugin."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.file = tmp_path / "events.jsonl"

    def get_log_handler_cls(self) -> type[LogHandler]:
        return LogHandler

    def get_log_handler_settings(self) -> LogHandlerSettings:
        return LogHandlerSettings(events=self.file)

    def test_events_are_json_lines(self):
        handler = self._create_handler()
        for event, values in (
            (LogEvent.RUN_INFO, {"stats": {"extract": 1, "total": 1}}),
            (LogEvent.PROGRESS, {"done": 1, "total": 2}),  # not needed
            (LogEvent.JOB_FINISHED, {"job_id": 4}),
        ):
            handler.emit(self._create_event_record(event, msg="text", **values))
        handler.emit(logging.LogRecord("x", logging.ERROR, "", 1, "no event: %s", ("y",), None))
        warning = logging.LogRecord("x", logging.WARNING, "", 1, "indad: no locks", (), None)
        handler.emit(warning)
        note = logging.LogRecord("x", logging.INFO, "", 1, "indad: expected times", (), None)
        handler.emit(note)
        warning.msg = "a warning of Snakemake"
        handler.emit(warning)
        handler.close()
        assert [json.loads(line) for line in self.file.read_text().splitlines()] == [
            {"event": "run_info", "message": "text", "stats": {"extract": 1, "total": 1}},
            {"event": "job_finished", "message": "text", "job_id": 4},
            {"event": "error", "message": "no event: y"},
            {"event": "warning", "message": "no locks"},
            {"event": "note", "message": "expected times"},
        ]


def raised(error: Exception, cause: Exception) -> logging.LogRecord:
    """The record of an exception, made as Snakemake makes it."""
    record = logging.LogRecord("x", logging.ERROR, "", 1, "a long text", (), None)
    record.event = LogEvent.ERROR
    try:
        try:
            raise cause
        except Exception:
            raise error from None
    except Exception:
        assert add_user_message(record)
    return record


def test_the_users_message_is_found_among_the_causes_of_an_exception():
    error = InputFunctionException("WorkflowError: indad: no data", wildcards={"a": "b"})
    assert raised(error, WorkflowError("indad: no data")).user_message == "no data"
    assert raised(WorkflowError("wrapped"), ConfigError("seeds: no")).user_message == "seeds: no"
    assert raised(WorkflowError("other"), ValueError("v")).user_message is None


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "x.log"
    path.write_text(f"{STAMP}machine: 12 cores\n{STAMP}extract bottle r18: 5/10 images, 3 s left\n")
    return path


def started(number: int, rule: str, log: Path | None = None, **wildcards: str) -> dict:
    logs = [str(log)] if log else []
    return {
        "event": "job_info", "message": "", "jobid": number, "rule_name": rule,
        "wildcards": wildcards, "log": logs,
    }  # fmt: skip


def finished(number: int) -> dict:
    return {"event": "job_finished", "message": "", "job_id": number}


def failed(number: int, rule: str, log: Path) -> dict:
    return started(number, rule, log) | {"event": "job_error", "rule_msg": None, "wildcards": None}


def counts(**rules: int) -> dict:
    return {"event": "run_info", "message": "", "stats": rules | {"total": sum(rules.values())}}


def test_events_are_read_as_they_come(tmp_path):
    events = EventFile(tmp_path / "events")
    assert events.read() == []
    with events.path.open("a") as file:
        file.write('{"event": "a"}\n{"event": ')
        file.flush()
        assert events.read() == [{"event": "a"}]
        file.write('"b"}\n')
        file.flush()
    assert events.read() == [{"event": "b"}]


def test_a_job_that_succeeds_when_tried_again_is_no_failure(log):
    state = RunState()
    for event in (counts(extract=2), started(1, "extract", log), failed(1, "extract", log)):
        state.apply(event)
    assert state.running == {}
    assert list(state.failures) == [1]
    state.apply(started(1, "extract", log))
    state.apply(finished(1))
    assert state.failures == {}
    assert state.finished[1].rule == "extract"


def test_a_failure_has_the_jobs_own_message_or_the_end_of_its_log(log):
    state = RunState()
    state.apply(started(1, "fit", log, category="wood"))
    state.apply(failed(1, "fit", log))
    job, message = state.failures[1]
    text = job.failure(message, "output")
    assert text.startswith("fit wood failed; its log, ")
    assert text.endswith("machine: 12 cores\nextract bottle r18: 5/10 images, 3 s left")
    log.write_text(f"{STAMP}start\n{STAMP}error: weights: not there;\nset them\n")
    assert job.failure(message, "output") == "weights: not there;\nset them"
    log.write_text("")
    assert job.failure("out of memory", "output") == (
        "fit wood failed (out of memory) and its log is empty; the output of Snakemake ends with:\n"
        "output"
    )


def test_progress_is_read_from_the_end_of_a_log(log):
    job = Job("extract", {}, log)
    assert job.progress() == ("extract bottle r18: 5/10 images, 3 s left", 0.5)
    log.write_text(log.read_text() + f"{STAMP}extract bottle r18: 10 images in 6 s\n")
    assert job.progress()[1] == 1
    log.write_text(f"{STAMP}machine: 12 cores\n")
    assert job.progress() is None
    assert Job("extract", {}, log.with_name("none")).progress() is None


def shown(state: RunState) -> str:
    console = Console(file=io.StringIO(), width=100)
    Display(console, state).show()
    return console.file.getvalue()


def test_plain_lines_say_what_runs(log):
    state = RunState()
    assert shown(state) == ""
    state.apply(counts(extract=1, evaluate=2))
    assert shown(state) == ""  # nothing runs yet
    state.apply(started(4, "extract", log))
    assert shown(state) == f" 42 %  {'':14}  extract bottle r18: 5/10 images, 3 s left\n"
    state.apply(finished(4))
    state.apply(started(5, "download", dataset="drawn", category="wood"))
    assert shown(state) == f" 83 %  {'':14}  prepare drawn wood\n"


def test_a_terminal_shows_a_bar(log):
    state = RunState()
    for event in (counts(extract=1), started(4, "extract", log)):
        state.apply(event)
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with Display(console, state) as bar:
        bar.show()
    assert "5/10 images" in console.file.getvalue()


def test_the_time_left_counts_down_and_never_grows_while_a_job_waits():
    left = TimeLeft()
    assert left.update(0, done=0, total=100, working=True) is None
    assert left.update(10, done=20, total=100, working=True) == pytest.approx(40)
    assert left.update(20, done=20, total=100, working=True) == pytest.approx(30)
    # Nothing but a download runs, for ten minutes.
    assert left.update(620, done=20, total=100, working=False) == pytest.approx(30)
    assert left.update(630, done=60, total=100, working=True) == pytest.approx(20)
    assert left.update(690, done=60, total=100, working=True) is None


def test_a_download_states_the_licence():
    state = RunState()
    job = state.apply(started(1, "archive", dataset="mine"))
    notice = licence_notice(job, {"datasets": {"mine": {"source": "visa"}}})
    assert notice.startswith("licence: ")
    assert licence_notice(state.apply(started(2, "extract")), {}) is None


def test_data_warnings_are_shown_once_when_their_jobs_end(tmp_path):
    crop = DataWarning("crop-share", "wood", "the methods see 8 % of it", remedy="set 'crop: null'")
    note = DataWarning("left-out", "wood", "2 files of no image", note=True)
    write_warnings([crop, note], tmp_path / "manifests/drawn/wood.warnings.json")
    dark = DataWarning("dark", "wood", "too dark")
    write_warnings([crop, dark], tmp_path / "pixels/drawn/wood/64-64.warnings.json")
    state = RunState()
    found = Messages(state, tmp_path)
    state.apply(started(1, "index", dataset="drawn", category="wood"))
    assert found.new() == []
    state.apply(finished(1))
    state.apply({"event": "note", "message": "large"})
    shown = "wood: the methods see 8 % of it; set 'crop: null'"
    assert found.new() == [("note", "large"), ("warning", shown)]
    state.apply(started(2, "decode", dataset="drawn", category="wood", geometry="64-64"))
    state.apply(finished(2))
    assert found.new() == [("warning", "wood: too dark")]
    assert found.new() == []
