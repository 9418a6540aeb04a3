"""Snakemake logger plugin: writes the events of a run as JSON lines for ``indad run``.

    snakemake --logger indad --logger-indad-events FILE ...

Snakemake finds the plugin by its name on the Python path. It is only active when ``--logger``
names it, and Snakemake's own output stays as it is.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import LogHandlerSettingsBase

#: The events that are written, with the attributes of each that are needed.
FIELDS: dict[LogEvent, tuple[str, ...]] = {
    LogEvent.RUN_INFO: ("stats",),
    LogEvent.JOB_INFO: ("jobid", "rule_name", "wildcards", "log"),
    LogEvent.JOB_FINISHED: ("job_id",),
    LogEvent.JOB_ERROR: ("jobid", "rule_name", "log", "rule_msg"),
    LogEvent.ERROR: ("exception", "user_message"),
}
#: Begins the messages of the workflow's own errors, warnings and notes.
PREFIX = "indad: "
#: The events of such warnings and notes.
WARNING, NOTE = "warning", "note"


@dataclass
class LogHandlerSettings(LogHandlerSettingsBase):
    """The plugin's options on Snakemake's command line."""

    events: Path | None = field(
        default=None,
        metadata={
            "help": "File that the events are appended to, one JSON object a line",
            "required": True,
            "type": Path,
        },
    )
    parent: int | None = field(
        default=None,
        metadata={"help": "Process whose end stops the run", "required": False, "type": int},
    )


class LogHandler(LogHandlerBase):
    """Appends each event of interest to a file."""

    #: Snakemake keeps writing its own text, and must not name the temporary file as its log.
    writes_to_stream = writes_to_file = False
    #: Events are needed with ``--quiet``, too, and written as they are.
    has_filter = has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        assert isinstance(self.settings, LogHandlerSettings)
        assert self.settings.events is not None
        self._file = self.settings.events.open("a", encoding="utf-8", buffering=1)
        # Snakemake may start itself again, for a job. ``indad run`` makes the first one the leader
        # of a session.
        if self.settings.parent and os.getsid(0) == os.getpid():
            stop = threading.Thread(target=stop_after, args=[self.settings.parent], daemon=True)
            stop.start()
        # The handler runs in a thread of its own. Only a filter of the logger runs where the
        # exception is handled, so only there can its message be found.
        logging.getLogger("snakemake.logging").addFilter(add_user_message)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one event."""
        event = getattr(record, "event", None)
        message = "" if record.msg is None else record.getMessage()
        values = {}
        if event in FIELDS:
            values = {name: getattr(record, name, None) for name in FIELDS[event]}
        elif record.levelno >= logging.ERROR:
            event = LogEvent.ERROR
        elif message.startswith(PREFIX):
            event = WARNING if record.levelno >= logging.WARNING else NOTE
            message = message.removeprefix(PREFIX)
        else:
            return
        line = {"event": str(event), "message": message} | values
        self._file.write(json.dumps(line, default=str) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def stop_after(parent: int) -> None:
    """Wait for the end of the process that started this one, then stop this one and its jobs.

    The next run may start at once, so this takes about a second.
    """
    while os.getppid() == parent:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)  # Snakemake cancels the jobs of a cluster
    time.sleep(1)
    os.killpg(0, signal.SIGKILL)


def add_user_message(record: logging.LogRecord) -> bool:
    """Add the message for the user to the record of an exception, if it has one."""
    if getattr(record, "event", None) == LogEvent.ERROR:
        record.user_message = user_message(sys.exc_info()[1])
    return True


def user_message(error: BaseException | None) -> str | None:
    """Return the message of the workflow's own error among an exception and its causes."""
    # Snakemake imports all plugins before the workflow: an import at the top would load the
    # installed package in the place of a checkout's own.
    from indad.core.errors import IndadError

    while error is not None:
        text = str(error)
        if text.startswith(PREFIX):
            return text.removeprefix(PREFIX)
        if isinstance(error, IndadError):
            return text
        error = error.__cause__ or error.__context__
    return None
