"""A Slurm cluster whose nodes and head share the results only through sshfs: a test by hand.

    PYTHONPATH=scripts python tests/hosts.py FOLDER

File locks do not reach from one mount to the other, and a host may keep an old view of a folder for
a while; ``--options`` of sshfs say how long. FOLDER is on a disk of this machine and must not
exist. Needs root, FUSE, Slurm, and Debian's packages (``apt-get install sshfs openssh-server
openssh-client``). Takes some minutes; the exit code is 1 if a run fails, or if products are
not those of a run on the disk.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import yaml

from slurm import cluster
from small_run import METRICS, SMALL, command
from test_faults import products
from test_slurm import CHANGES, Head

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--options", default="", help="of sshfs, as after its -o")
    chosen = parser.parse_args()
    folder = chosen.folder.absolute()
    local, remote = folder / "local", folder / "shared/run"
    local.mkdir(parents=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    subprocess.run(command(local, METRICS, **CHANGES), check=True, capture_output=True)

    def prepare(address: str) -> str:
        mount = serve(folder, address, chosen.options)
        subprocess.run(["sh", "-c", mount], check=True)
        return mount

    try:
        with cluster.running(folder / "slurm", prepare=prepare) as environment:
            expect("two nodes", holds=len(cluster.nodes(folder / "slurm")) == 2)
            remote.mkdir()
            config = SMALL | {"results": "results"} | CHANGES
            (remote / "config.yaml").write_text(yaml.safe_dump(config))
            head = Head(remote, environment)
            head.log = folder / "head.log"
            ended = head.run_workflow("--latency-wait", "60").wait()
            expect("the run on the nodes ended well", holds=ended == 0)
            jobs = cluster.finished(folder / "slurm")
            print(Counter((job["NodeList"], job["JobState"]) for job in jobs))
        same = products(folder / "disk/run") == products(local)
        expect("figures are those of the run on the disk", holds=same)
    finally:
        stop_serving(folder)


if __name__ == "__main__":
    main()
