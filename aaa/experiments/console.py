"""What people see: log lines on the terminal, from the first process only."""

from __future__ import annotations

import logging
import warnings

from rich.console import Console
from rich.logging import RichHandler

from aaa.experiments.launch import process_rank

QUIET = (
    "pytorch_lightning", "lightning", "lightning_fabric", "transformers", "datasets", "httpx",
    "hydra", "hydra_plugins", "submitit", "ray",
)  # fmt: skip
# Advice that does not fit: the loaders need no workers (rows are ready in memory), a resumed run
# goes on with its very next batch although Lightning cannot know, and metrics are reduced over
# processes before they are logged. The last two are about calls that Lightning itself makes or
# that must also suit older versions of torch.
ADVICE = (
    "does not have many workers",
    "your dataloader is not resumable",
    "exists and is not empty",
    "when logging on epoch level in distributed setting",
    "LeafSpec",
    "`broadcast_buffers` is deprecated",
    "`gradient_checkpointing_enable` is deprecated",
)


def set_up_logging() -> None:
    """Our own messages at INFO, other libraries' from WARNING on; once a process."""
    root = logging.getLogger()
    if any(isinstance(handler, RichHandler) for handler in root.handlers):
        return
    handler = RichHandler(
        console=Console(stderr=True),
        show_path=False,
        show_level=False,
        log_time_format="%H:%M:%S",
        rich_tracebacks=False,
    )
    handler.setLevel(logging.INFO if process_rank() == 0 else logging.ERROR)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("aaa").setLevel(logging.DEBUG)  # for run.log
    quiet_libraries()


def quiet_libraries() -> None:
    """Other libraries speak from WARNING on. Lightning sets its own level when it is imported."""
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for advice in ADVICE:
        warnings.filterwarnings("ignore", message=f".*{advice}.*")
