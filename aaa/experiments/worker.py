"""One process of a run on several devices: ``python -m aaa.experiments.worker config.yaml``."""

from __future__ import annotations

import sys

from omegaconf import OmegaConf

from aaa.experiments.console import set_up_logging
from aaa.experiments.run import run


def main() -> int:
    """Does the run; torchrun has set which of its processes this is."""
    set_up_logging()
    outcome = run(OmegaConf.load(sys.argv[1]))  # type: ignore[arg-type]
    return 0 if outcome.status in ("finished", "skipped", "interrupted") else 1


if __name__ == "__main__":
    sys.exit(main())
