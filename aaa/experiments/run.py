"""One run, from its config to its result.json."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from filelock import Timeout
from omegaconf import DictConfig, OmegaConf

from aaa.experiments.describe import describe
from aaa.experiments.launch import check_world, is_launched, launch_workers, process_rank
from aaa.experiments.lock import run_lock
from aaa.experiments.plan import Plan, make_plan
from aaa.experiments.prepare import Prepared, prepare
from aaa.experiments.result import RESULT, Outcome, is_finished, read_result, write_result
from aaa.experiments.resume import check_resume_point
from aaa.experiments.search import search

log = logging.getLogger(__name__)


def run(config: DictConfig) -> Outcome:
    """Does what the config says, unless it is done already; resumes what was interrupted.

    Where torchrun or srun started several processes, each of them calls this.

    Raises:
        ValueError: for a config that cannot be run, before any work starts.
    """
    plan = make_plan(config)
    check_world(plan)
    result = read_result(plan.directory)
    if is_finished(result):
        log.info("%s is finished already: %s", plan.title, plan.directory)
        return Outcome(plan.directory, "skipped", result)
    prepared = prepare(plan)
    if plan.control is not None and plan.control.control == "search":
        return search(plan, run)
    check_resume_point(plan.directory, plan.run_id)
    plan.directory.mkdir(parents=True, exist_ok=True)
    try:
        with _lock(plan), _log_file(plan):
            return _attempt(plan, prepared)
    except Timeout:
        log.warning("%s is being run by another process: %s", plan.title, plan.directory)
        return Outcome(plan.directory, "busy")


def _attempt(plan: Plan, prepared: Prepared) -> Outcome:
    """Trains here or through workers; a failure is written down and returned, not raised."""
    started = time.time()
    first = process_rank() == 0
    if first:
        (plan.directory / RESULT).unlink(missing_ok=True)  # of an attempt that failed
        OmegaConf.save(plan.config, plan.directory / "config.yaml", resolve=True)
    log.info("%s -> %s", plan.title, plan.directory)
    try:
        if plan.settings.world_size > 1 and not is_launched():
            signal_number = launch_workers(plan)
        else:
            signal_number = _work(plan, prepared)
        if signal_number is not None:
            log.warning("%s was stopped; the same command resumes it", plan.title)
            return Outcome(plan.directory, "interrupted", signal_number=signal_number)
        if first and read_result(plan.directory) is None:
            raise RuntimeError("the workers ended without a result")
    except Exception as error:
        log.error("%s failed: %s", plan.title, error)
        log.debug("traceback:", exc_info=error)  # to run.log alone
        if first:
            write_result(plan.directory, _failure(plan, error, time.time() - started))
    result = read_result(plan.directory)
    return Outcome(plan.directory, result["status"] if result else "failed", result)


def _work(plan: Plan, prepared: Prepared) -> int | None:
    """Trains, evaluates and writes the result; returns the signal that stopped it, or None."""
    from aaa.experiments.train import train  # Lightning takes seconds to import
    from aaa.training.callbacks import Interrupted

    try:
        result = train(plan, prepared)
    except Interrupted as stop:
        log.warning("%s", stop)
        return stop.signal_number
    if process_rank() == 0:
        write_result(plan.directory, result)
    return None


def _failure(plan: Plan, error: Exception, seconds: float) -> dict[str, Any]:
    return describe(plan) | {
        "status": "failed",
        "error": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
        "wall_seconds": seconds,
    }


def _lock(plan: Plan) -> AbstractContextManager[Any]:
    """Held by the one process that writes, so that a run is never done twice at once."""
    starts_workers = plan.settings.world_size > 1 and not is_launched()
    if process_rank() > 0 or starts_workers:
        return nullcontext()
    return run_lock(plan.directory)


@contextmanager
def _log_file(plan: Plan) -> Iterator[None]:
    """Whatever the first process logs meanwhile also goes to the run's own run.log."""
    if process_rank() > 0:
        yield
        return
    handler = logging.FileHandler(plan.directory / "run.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
