"""What a result says of its run, whether it finished or failed."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from aaa.experiments.environment import git_commit, versions
from aaa.experiments.job import Job


def describe(plan: Job) -> dict[str, Any]:
    """Identity, names, config, and the code that ran it."""
    names = plan.config.names
    return {
        "run_id": plan.run_id,
        "cell_id": plan.cell_id,
        "task": plan.subject,
        "pattern": names.pattern,
        "pattern_rule": str(plan.pattern),
        "model": names.model,
        "seed": plan.config.seed,
        "headline": plan.headline,
        "config": OmegaConf.to_container(plan.config, resolve=True),
        "versions": versions(),
        "git_commit": git_commit(),
    }
