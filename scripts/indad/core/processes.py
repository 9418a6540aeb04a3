"""Stopping a program together with all programs that it has started."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable

#: Seconds that a program gets to end its jobs itself, and then jobs get to end. Containers are
#: killed ten seconds after they were asked to stop.
GRACE = 3.0


def stop_group(leader: int, ended: Callable[[], bool]) -> None:
    """Stop a program and its process group: the program first, the rest after a grace period.

    Args:
        leader: the program, a process that leads a group of its own.
        ended: whether it has ended; called until it has.
    """
    if not ended():
        os.kill(leader, signal.SIGINT)
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + GRACE
        while time.monotonic() < end:
            if ended() and not _exists(leader):
                return
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, number)
    ended()


def _exists(group: int) -> bool:
    """Return whether a process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True
