"""A Slurm cluster of two nodes, one with a pretended GPU, for tests: real daemons, private state.

    python tests/slurm/cluster.py start /tmp/slurm      prints what to export
    python tests/slurm/cluster.py stop /tmp/slurm

Needs root and Debian's packages (``apt-get install munge slurmctld slurmd slurm-client``). There
is no accounting database: ``jobs.txt`` lists finished jobs, with their times, memory and end.

Each node has a network and a host name of its own (Linux namespaces, joined by a bridge); files and
processes are this machine's. Where namespaces cannot be made there is one node, without them.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
#: Debian puts daemons where a user's PATH may not reach.
DAEMONS = "/usr/sbin:/sbin"
WAIT = 20

CONFIGURATION = """\
ClusterName=indad
SlurmctldHost={host}({address})
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
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
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Node:
    """A node: its host name and address, and its network namespace if it has one of its own."""

    name: str
    address: str = "127.0.0.1"
    namespace: str = ""

    def start(self, *command: str, first: str = "true") -> list[str]:
        """Return how a command starts on the node, after a ``first`` one for the shell.

        What the latter mounts is there for the command only.
        """
        if not self.namespace:
            return [*command]
        # `ip netns exec` would hide the control groups of /sys.
        return [
            *("nsenter", f"--net=/run/netns/{self.namespace}", "unshare", "--uts", "--mount"),
            *("sh", "-c", f'hostname {self.name} && {first} && exec "$@"', "sh", *command),
        ]


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


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def connect(folder: Path) -> tuple[str, list[Node]]:
    """Make two namespaces on a bridge; return the bridge's address and the nodes.

    Raises:
        OSError: there is no ``ip``, or no free network.
        subprocess.CalledProcessError: not permitted here.
    """
    for number in range(1, 255):
        bridge, network = f"indad{number}", f"10.213.{number}"
        # Whoever makes the bridge has the number: several clusters may start at once.
        with suppress(subprocess.CalledProcessError):
            _ip("link", "add", bridge, "type", "bridge")
            break
        if not Path(f"/sys/class/net/{bridge}").exists():
            raise OSError("a bridge cannot be made (not permitted?)")
    else:
        raise OSError("no free network")
    (folder / "bridge").write_text(bridge)
    _ip("address", "add", f"{network}.1/24", "dev", bridge)
    _ip("link", "set", bridge, "up")
    nodes = []
    for host, letter in enumerate("ab", 2):
        node = Node(f"indad-{letter}", f"{network}.{host}", f"{bridge}-{letter}")
        cable = f"{bridge}{letter}"
        _ip("netns", "add", node.namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "eth0", "netns", node.namespace)
        _ip("link", "set", cable, "master", bridge, "up")
        _ip("-n", node.namespace, "address", "add", f"{node.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", node.namespace, "link", "set", device, "up")
        nodes.append(node)
    return f"{network}.1", nodes


def disconnect(folder: Path) -> None:
    """Take away what ``connect`` made, and what still runs in it."""
    with suppress(OSError, subprocess.CalledProcessError):
        bridge = (folder / "bridge").read_text()
        for letter in "ab":
            listed = subprocess.run(
                ["ip", "netns", "pids", f"{bridge}-{letter}"], capture_output=True, text=True
            )
            for process in listed.stdout.split():
                with suppress(OSError):
                    os.kill(int(process), signal.SIGKILL)
            # Its end of the cable goes with it, and so does the other end.
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", f"{bridge}-{letter}")
            with suppress(subprocess.CalledProcessError):
                _ip("link", "delete", f"{bridge}{letter}")
        # Last, since the number is free from now on.
        _ip("link", "delete", bridge)
        (folder / "bridge").unlink()


def nodes(folder: Path) -> list[str]:
    """Return the names of the nodes of a running cluster."""
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "-o", "%N"],
        env=environment(folder), capture_output=True, text=True,
    )  # fmt: skip
    return sorted(done.stdout.split())


def start(
    folder: Path,
    *,
    cpus: int = 10,
    memory: int = 15000,
    prepare: Callable[[str], str] = lambda address: "true",
) -> None:
    """Start the daemons with all their files in ``folder``.

    ``cpus`` and ``memory`` (MB) are shared out between the nodes. The GPU is the first's, and jobs
    that do not ask for it go to the second as long as it has room. ``prepare`` is called with the
    address of what is no node, and returns what the shell does on each node first.

    Raises:
        RuntimeError: a node does not come up; with what the logs say.
    """
    host = socket.gethostname().partition(".")[0]
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
    try:
        address, nodes = connect(folder)
        described = [
            f"{_described(nodes[0], cpus * 2 // 5, memory * 2 // 3)} Gres=gpu:1 Weight=2",
            f"{_described(nodes[1], cpus * 3 // 5, memory // 3)} Weight=1",
        ]
    except (OSError, subprocess.CalledProcessError):
        disconnect(folder)
        address, nodes = "127.0.0.1", [Node(host)]
        described = [f"{_described(nodes[0], cpus, memory)} Gres=gpu:1"]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            host=host,
            address=address,
            folder=folder,
            controller_port=_free_port(),
            node_port=_free_port(),
            nodes="\n".join(described),
        )
    )
    # Enough of a device to see the scheduler honour it.
    (folder / "gres.conf").write_text(f"NodeName={nodes[0].name} Name=gpu File=/dev/zero\n")
    munged = ["munged", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    first = prepare(address)
    slurmd = [node.start("slurmd", first=first) for node in nodes]
    for command in (munged, ["slurmctld"], *slurmd):
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr}{_logs(folder)}")
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        states = subprocess.run(
            ["sinfo", "--noheader", "--Node", "-o", "%T"],
            env=variables, capture_output=True, text=True,
        ).stdout.split()  # fmt: skip
        if states == ["idle"] * len(nodes):
            return
        time.sleep(0.2)
    raise RuntimeError(f"not all nodes came up\n{_logs(folder)}")


def _described(node: Node, cpus: int, memory: int) -> str:
    return (
        f"NodeName={node.name} NodeAddr={node.address} CPUs={cpus} RealMemory={memory} "
        "State=UNKNOWN"
    )


def _logs(folder: Path) -> str:
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))


def stop(folder: Path) -> None:
    """End all jobs and the daemons that ``start`` started."""
    variables = environment(folder)
    for command in (["scancel", "--user", "root"], ["scontrol", "shutdown"]):
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(command, env=variables, capture_output=True, timeout=WAIT)
    until = time.monotonic() + WAIT
    # The daemons end by themselves; munged, whom they need for it, is told to.
    munged = folder / "munge.pid"
    for file in [*(path for path in folder.glob("*.pid") if path != munged), munged]:
        with suppress(OSError, ValueError):
            process = int(file.read_text())
            while file != munged and time.monotonic() < until:
                os.kill(process, 0)
                time.sleep(0.1)
            os.kill(process, signal.SIGTERM)
    disconnect(folder)


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[dict[str, str]]:
    """Give the environment of a cluster that lives as long as the block."""
    try:
        start(folder, **options)
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
