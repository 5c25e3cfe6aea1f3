"""Several processes for one run: torchrun starts workers that know nothing of Hydra."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aaa.experiments.job import Job


def is_launched() -> bool:
    """Whether torchrun or SLURM started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def process_rank() -> int:
    """This process's number among those of its run, 0 where it is alone."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def check_world(plan: Job) -> None:
    """Checks that as many processes can be there as the config asks for.

    Raises:
        ValueError: if torchrun or SLURM started another number, or several machines are asked for
            and nobody started processes on them.
    """
    devices, nodes = plan.settings.devices, plan.settings.num_nodes
    wanted = plan.settings.world_size
    if is_launched():
        started = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))
        if started != wanted:
            raise ValueError(
                f"{started} processes were started, but training.devices={devices} times "
                f"training.num_nodes={nodes} is {wanted}"
            )
    elif nodes > 1:
        raise ValueError(
            f"training.num_nodes={nodes} needs torchrun or srun to start the processes: "
            f"torchrun --nnodes {nodes} --nproc-per-node {devices} -m aaa {plan.command} ..."
        )


def launch_workers(plan: Job) -> int | None:
    """Runs one worker a device on the run's saved config, and waits for them.

    A worker reads config.yaml and no command line, so it can neither start a sweep again nor make
    a directory of its own. SIGINT and SIGTERM are handed on to the workers, which stop after their
    step with a checkpoint.

    Returns:
        The number of the signal that stopped them, or None.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(plan.settings.devices), "--no-python", sys.executable]
    command += ["-m", "aaa.experiments.worker", str(plan.directory / "config.yaml")]
    threads = os.environ.get("OMP_NUM_THREADS") or str(
        max(1, (os.cpu_count() or 1) // plan.settings.devices)
    )
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    # A session of its own: Ctrl-C reaches this process alone, which hands it on once.
    workers = subprocess.Popen(command, env=environment, start_new_session=True)
    received: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        workers.send_signal(signal.SIGTERM)

    previous = {}
    if threading.current_thread() is threading.main_thread():
        previous = {
            number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)
        }
    try:
        workers.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return received[0] if received else None
