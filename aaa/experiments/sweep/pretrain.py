"""The pre-training runs that a sweep's cells start from."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable

from aaa.experiments.lock import is_being_run
from aaa.experiments.sweep.conduct import WAIT_SECONDS

PRETRAIN = "aaa pretrain "


def pretrain(command: str, say: Callable[[str], None]) -> int:
    """Does a run, or waits for the process that is doing it; what that leaves undone is done here.

    Args:
        command: begins with ``PRETRAIN``.
        say: told of the waiting.

    Returns:
        The exit code.
    """
    from aaa.experiments.pretrained_runs import find_pretraining  # imports torch

    words = shlex.split(command)
    directory = find_pretraining(words[2:]).directory
    while True:
        if is_being_run(directory):
            say("another process is doing it and is waited for")
            while is_being_run(directory):
                time.sleep(WAIT_SECONDS)
        code = subprocess.run([sys.executable, "-m", *words]).returncode
        # Its lock is taken once its corpus is prepared: another process may have been quicker.
        if code or not is_being_run(directory):
            return code
