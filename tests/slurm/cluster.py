"""A Slurm cluster of one node with one pretended GPU, for tests: real daemons, private state.

    python tests/slurm/cluster.py start /tmp/slurm      prints what to export
    python tests/slurm/cluster.py stop /tmp/slurm

Needs root and Debian's packages (``apt-get install munge slurmctld slurmd slurm-client``). There
is no accounting database: ``jobs.txt`` lists finished jobs, with their times, memory and end.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
#: Debian puts daemons where a user's PATH may not reach.
DAEMONS = "/usr/sbin:/sbin"
WAIT = 20

CONFIGURATION = """\
ClusterName=indad
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
KillWait=1
OverTimeLimit=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Say why no cluster can be started here; "" if one can."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    path = f"{os.environ['PATH']}:{DAEMONS}"
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return (
            f"Slurm is not installed ({', '.join(absent)} not found): "
            "apt-get install munge slurmctld slurmd slurm-client"
        )
    return ""


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(folder: Path) -> dict[str, str]:
    """Return the variables by which Slurm's commands find this cluster."""
    # Whatever else runs Slurm on this machine is not to leak in.
    own = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    return own | {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}:{DAEMONS}",
    }


def start(folder: Path, *, cpus: int = 8, memory: int = 12000) -> None:
    """Start the daemons with all their files in ``folder``.

    Raises:
        RuntimeError: the node does not come up; with what the logs say.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    # Snakemake's job step takes SLURM_CONF from srun's environment.
    step = folder / "bin" / "srun"
    step.parent.mkdir(exist_ok=True)
    srun = shutil.which("srun")
    step.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {srun} "$@"\n')
    step.chmod(0o755)
    variables = environment(folder)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            folder=folder,
            controller_port=_free_port(),
            node_port=_free_port(),
            cpus=cpus,
            memory=memory,
        )
    )
    # Enough of a device to see the scheduler honour it.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\n")
    munged = ["munged", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    for command in (munged, ["slurmctld"], ["slurmd"]):
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr}{_logs(folder)}")
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        state = subprocess.run(
            ["sinfo", "--noheader", "-o", "%T"], env=variables, capture_output=True, text=True
        ).stdout
        if state.strip() == "idle":
            return
        time.sleep(0.2)
    raise RuntimeError(f"the node did not come up\n{_logs(folder)}")


def _logs(folder: Path) -> str:
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))


def stop(folder: Path) -> None:
    """End all jobs and the daemons that ``start`` started."""
    variables = environment(folder)
    for command in (["scancel", "--user", "root"], ["scontrol", "shutdown"]):
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, env=variables, capture_output=True, timeout=WAIT)
    until = time.monotonic() + WAIT
    for name in ("slurmd.pid", "slurmctld.pid", "munge.pid"):
        with suppress(OSError, ValueError):
            process = int((folder / name).read_text())
            while name != "munge.pid" and time.monotonic() < until:
                os.kill(process, 0)
                time.sleep(0.1)
            os.kill(process, signal.SIGTERM)


@contextmanager
def running(folder: Path, **size: int) -> Iterator[dict[str, str]]:
    """Give the environment of a cluster that lives as long as the block."""
    try:
        start(folder, **size)
        yield environment(folder)
    finally:
        stop(folder)


def finished(folder: Path) -> list[dict[str, str]]:
    """Return the jobs that ended, as Slurm's completion log has them: ``JobState``, ``Tres``..."""
    file = folder / "jobs.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return [dict(item.split("=", 1) for item in line.split() if "=" in item) for line in lines]


def main() -> None:
    command, folder = sys.argv[1], Path(sys.argv[2]).absolute()
    if command == "stop":
        stop(folder)
        return
    if reason := missing():
        sys.exit(reason)
    start(folder)
    print(f"export SLURM_CONF={folder}/slurm.conf PATH={folder}/bin:$PATH:{DAEMONS}")


if __name__ == "__main__":
    main()
