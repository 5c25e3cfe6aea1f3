"""One run, from its config to its result.json."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from filelock import Timeout
from omegaconf import DictConfig, OmegaConf

from aaa.experiments.describe import describe
from aaa.experiments.job import Job
from aaa.experiments.launch import check_world, is_launched, launch_workers, process_rank
from aaa.experiments.lock import run_lock
from aaa.experiments.login import check_login
from aaa.experiments.plan import make_plan
from aaa.experiments.prepare import prepare
from aaa.experiments.prepare_corpus import prepare_corpus
from aaa.experiments.pretraining import make_pretraining_plan
from aaa.experiments.result import RESULT, Outcome, is_finished, read_result, write_result
from aaa.experiments.resume import adopt, find_resume_point, remove_checkpoints
from aaa.experiments.search import search

log = logging.getLogger(__name__)

LAST_WORDS = "failed.process."  # files of a run's directory: why another than the first failed
PATIENCE = 20.0  # seconds; less than torchrun's between asking a process to end and a kill

Train = Callable[[], dict[str, Any]]


class Kind(NamedTuple):
    """What a command does: the plan that it makes of a config, and the steps to its figures."""

    plan: Callable[[DictConfig], Any]
    prepare: Callable[[Any], Any]
    train: Callable[[], Callable[[Any, Any], dict[str, Any]]]


def _fine_tuning() -> Callable[..., dict[str, Any]]:
    from aaa.experiments.train import train  # Lightning takes seconds to import

    return train


def _pretraining() -> Callable[..., dict[str, Any]]:
    from aaa.experiments.train_corpus import train_on_corpus

    return train_on_corpus


FINE_TUNING = Kind(make_plan, prepare, _fine_tuning)
PRETRAINING = Kind(make_pretraining_plan, prepare_corpus, _pretraining)


def run(config: DictConfig) -> Outcome:
    """Does what the config says, unless it is done already; resumes what was interrupted.

    Where torchrun or srun started several processes, each of them calls this.

    Raises:
        ValueError: for a config that cannot be run, before any work starts.
    """
    kind = PRETRAINING if "corpus" in config else FINE_TUNING
    plan = kind.plan(config)
    check_world(plan)
    result = read_result(plan.directory)
    if is_finished(result):
        remove_checkpoints(plan.directory)  # a kill may have come before they were
        log.info("%s is finished already: %s", plan.title, plan.directory)
        return Outcome(plan.directory, "skipped", result)
    if process_rank() == 0:  # which alone logs
        check_login(config.logger)
    prepared = kind.prepare(plan)
    if not _is_search(plan) and find_resume_point(plan.directory, plan.run_id) is None:
        _go_on_from_another(plan)
    plan.directory.mkdir(parents=True, exist_ok=True)
    try:
        if _is_search(plan):  # its attempts are runs of their own, which log by themselves
            with _lock(plan):
                return search(plan, run)
        with _lock(plan), _log_file(plan):
            return _attempt(plan, partial(kind.train(), plan, prepared))
    except Timeout:
        log.warning("%s is being run by another process: %s", plan.title, plan.directory)
        return Outcome(plan.directory, "busy")


def _is_search(plan: Job) -> bool:
    return plan.control is not None and plan.control.control == "search"


def _go_on_from_another(plan: Job) -> None:
    source = plan.config.run.get("resume_from")
    if source is not None:
        adopt(Path(source), plan.directory, plan.label)
        log.info("going on where %s stands", source)


def _attempt(plan: Job, train: Train) -> Outcome:
    """Trains here or through workers; a failure is written down and returned, not raised."""
    started = time.time()
    first = process_rank() == 0
    if not is_launched():
        _last_words(plan.directory)  # of an attempt that failed
    if first:
        (plan.directory / RESULT).unlink(missing_ok=True)  # of an attempt that failed
        OmegaConf.save(plan.config, plan.directory / "config.yaml", resolve=True)
    log.info("%s -> %s", plan.title, plan.directory)
    try:
        if plan.settings.world_size > 1 and not is_launched():
            signal_number = launch_workers(plan)
        else:
            signal_number = _work(plan, train)
        if signal_number is not None:
            log.warning("%s was stopped; the same command resumes it", plan.title)
            return Outcome(plan.directory, "interrupted", signal_number=signal_number)
        if not first:  # the first may be at its ending yet: there is no result to read
            return Outcome(plan.directory, "finished")
        result = read_result(plan.directory)
        if result is None:
            raise RuntimeError("the workers ended without a result")
    except Exception as error:
        log.error("%s failed: %s: %s", plan.title, type(error).__name__, error)
        log.debug("traceback:", exc_info=error)  # to run.log alone
        if not first:
            _leave_word(plan.directory, error)
            _await_result(plan.directory)
            return Outcome(plan.directory, "failed")
        result = _failure(plan, error, time.time() - started)
        _record(plan, result)
    return Outcome(plan.directory, result["status"], result)


def _work(plan: Job, train: Train) -> int | None:
    """Trains, evaluates and writes the result; returns the signal that stopped it, or None."""
    from aaa.training.callbacks import Interrupted

    try:
        result = train()
    except Interrupted as stop:
        log.warning("%s", stop)
        return stop.signal_number
    if process_rank() == 0:
        write_result(plan.directory, result)
        remove_checkpoints(plan.directory)
    return None


def _await_result(directory: Path) -> None:
    """Gives the first process time to write why it failed: torchrun ends it when this one ends."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and read_result(directory) is None:
        time.sleep(0.1)


def _leave_word(directory: Path, error: Exception) -> None:
    """For the first process: all that it hears of this is that a connection is gone."""
    with suppress(OSError):
        path = directory / f"{LAST_WORDS}{process_rank()}"
        path.write_text("".join(traceback.format_exception(error)))


def _last_words(directory: Path) -> dict[str, str]:
    """What other processes left before they failed, by process; taken away."""
    found = {}
    for path in sorted(directory.glob(f"{LAST_WORDS}*")):
        found[path.name.removeprefix(LAST_WORDS)] = path.read_text()
        path.unlink()
    return found


def _failure(plan: Job, error: Exception, seconds: float) -> dict[str, Any]:
    cause, trace = f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))
    for process, words in _last_words(plan.directory).items():
        cause = f"{words.strip().splitlines()[-1]} (in process {process}; here {cause})"
        trace = f"process {process}:\n{words}\n{trace}"
        log.error("process %s: %s", process, words.strip().splitlines()[-1])
    return describe(plan) | {
        "status": "failed",
        "error": cause,
        "traceback": trace,
        "wall_seconds": seconds,
    }


def _record(plan: Job, failure: dict[str, Any]) -> None:
    """Writes a failure down if that can be done: what caused it may forbid that too."""
    try:
        write_result(plan.directory, failure)
    except (OSError, ValueError) as trouble:
        log.error("%s could not be written: %s", plan.directory / RESULT, trouble)


def _lock(plan: Job) -> AbstractContextManager[Any]:
    """Held by the one process that writes, so that a run is never done twice at once."""
    starts_workers = plan.settings.world_size > 1 and not is_launched()
    if process_rank() > 0 or (starts_workers and not _is_search(plan)):
        return nullcontext()
    return run_lock(plan.directory)


@contextmanager
def _log_file(plan: Job) -> Iterator[None]:
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
