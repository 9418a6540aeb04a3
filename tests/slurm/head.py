"""Snakemake's command line that asks for the state of Slurm's jobs every second.

The plugin asks 10 seconds later each time that no job has finished: longer than a job of a test.
"""

import asyncio

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def _sleep(executor: RemoteExecutor) -> None:
    await asyncio.sleep(1)


RemoteExecutor.sleep = _sleep
main()
