"""Two hosts that share a folder through sshfs, each with a mount and caches of its own: by hand.

    export PYTHONPATH=scripts
    python tests/hosts.py heads FOLDER    a run on one host, refused on the other; its host dies
    python tests/hosts.py nodes FOLDER    a Slurm whose nodes and head see the results only so

File locks do not reach from one mount to the other, and what a host has seen of a folder it may
take for true for a while; ``--options`` of sshfs say how long. FOLDER is on a disk of this machine
and must not exist. Needs root, FUSE, Slurm for ``nodes``, and Debian's packages (``apt-get install
sshfs openssh-server openssh-client``). Takes some minutes; exits with 1 if a run fails, if one is
let in that must not be, or if metrics or scores are not those of a run on the disk.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from indad.pipeline import lock
from slurm import cluster
from test_faults import figures
from test_slurm import CHANGES, Head
from test_workflow import SMALL, command

PORT = 2299
SERVER = """\
Port {port}
ListenAddress {address}
HostKey {folder}/keys/host
AuthorizedKeysFile {folder}/keys/user.pub
PidFile {folder}/keys/pid
PermitRootLogin yes
StrictModes no
ClientAliveInterval 5
Subsystem sftp internal-sftp
"""


def serve(folder: Path, address: str, options: str) -> str:
    """Serve ``folder/disk``; return the command that mounts it as ``folder/shared``."""
    for name in ("disk", "shared", "keys"):
        (folder / name).mkdir()
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "keys" / name)]
        subprocess.run(key, check=True)
    settings = folder / "keys/server"
    settings.write_text(SERVER.format(port=PORT, address=address, folder=folder))
    subprocess.run(["/usr/sbin/sshd", "-f", str(settings)], check=True)
    how = f"port={PORT},IdentityFile={folder}/keys/user,UserKnownHostsFile=/dev/null"
    how += ",StrictHostKeyChecking=no,LogLevel=ERROR" + (options and f",{options}")
    return f"sshfs root@{address}:{folder}/disk {folder}/shared -o {how}"


def stop_serving(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder / "shared")], capture_output=True)
    if (pid := folder / "keys/pid").exists():
        os.kill(int(pid.read_text()), signal.SIGTERM)


def expect(what: str, *, holds: bool) -> None:
    print(f"{time.strftime('%X')}  {what}: {'yes' if holds else 'NO'}", flush=True)
    if not holds:
        sys.exit(1)


def reference(folder: Path, **changes: Any) -> Path:
    """Return the folder of a run on the disk."""
    (folder / "local").mkdir()
    subprocess.run(command(folder / "local", **changes), check=True, capture_output=True)
    return folder / "local"


def heads(folder: Path, options: str) -> None:
    local = reference(folder)
    address, (first, second) = cluster.connect(folder)
    try:
        mount = serve(folder, address, options)

        def start(node: cluster.Node) -> subprocess.Popen[str]:
            """Start the workflow on a host, from a directory of the host's own."""
            own = folder / node.name
            own.mkdir(exist_ok=True)
            call = command(own, results=str(folder / "shared/results"))
            return subprocess.Popen(
                node.start(*call, first=mount),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip

        def refused() -> bool:
            run = start(second)
            said = run.communicate()[0]
            return run.returncode != 0 and '"host": "indad-a"' in said and "showed life" in said

        running = start(first)
        beat = folder / f"disk/results/.run.{first.name}.json"
        while not beat.exists() and running.poll() is None:
            time.sleep(0.1)
        time.sleep(lock.BEAT + 5)  # long enough for a second sign of life
        expect("refused on the other host while it runs", holds=refused())
        expect("the first still runs", holds=running.poll() is None)
        listed = subprocess.run(
            ["ip", "netns", "pids", first.namespace], capture_output=True, text=True
        )
        for process in listed.stdout.split():
            os.kill(int(process), signal.SIGKILL)
        running.wait()
        expect("refused when the first host has just died", holds=refused())
        time.sleep(max(0, lock.SILENCE + 1 - (time.time() - beat.stat().st_mtime)))
        after = start(second)
        after.communicate()
        expect("let in when it has been silent", holds=after.returncode == 0)
        same = figures(folder / "disk") == figures(local)
        expect("figures are those of the run on the disk", holds=same)
    finally:
        cluster.disconnect(folder)
        stop_serving(folder)


def nodes(folder: Path, options: str) -> None:
    local = reference(folder, **CHANGES)
    slurm, remote = folder / "slurm", folder / "shared/run"

    def prepare(address: str) -> str:
        mount = serve(folder, address, options)
        subprocess.run(["sh", "-c", mount], check=True)
        return mount

    try:
        with cluster.running(slurm, prepare=prepare) as environment:
            expect("two nodes", holds=len(cluster.nodes(slurm)) == 2)
            remote.mkdir()
            config = SMALL | {"results": "results"} | CHANGES
            (remote / "config.yaml").write_text(yaml.safe_dump(config))
            head = Head(remote, environment)
            head.log = folder / "head.log"
            ended = head.run_workflow("--latency-wait", "60").wait()
            expect("the run on the nodes ended well", holds=ended == 0)
            print(Counter((job["NodeList"], job["JobState"]) for job in cluster.finished(slurm)))
        same = figures(folder / "disk/run") == figures(local)
        expect("figures are those of the run on the disk", holds=same)
    finally:
        stop_serving(folder)


def main() -> None:
    actions: dict[str, Callable[[Path, str], None]] = {"heads": heads, "nodes": nodes}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=actions)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--options", default="", help="of sshfs, as after its -o")
    chosen = parser.parse_args()
    folder = chosen.folder.absolute()
    folder.mkdir(parents=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    actions[chosen.action](folder, chosen.options)


if __name__ == "__main__":
    main()
