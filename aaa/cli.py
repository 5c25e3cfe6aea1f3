"""The ``aaa`` command. Nothing heavy is imported before it is known what is wanted."""

from __future__ import annotations

import gc
import os
import shlex
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from aaa.names import known_names

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from aaa.experiments.result import Outcome

HELP = """\
aaa: sparse attention patterns for Transformer encoders, fixed and learned

  aaa finetune [choice=name ...] [value=number ...]   fine-tune one run
  aaa finetune -m pattern=full,aaa seed=0,1,2         ... or many
  aaa finetune -m +table=4 [scale=small]              ... or those of a table of the paper
  aaa finetune --help                                 every choice and every value
  aaa pretrain [choice=name ...] [value=number ...]   pre-train an encoder, likewise
  aaa table 4 | aaa table [runs ...]                  a table of the paper, or of any runs
  aaa plot pattern=NAME | run=RUN [text="..."]        pictures of patterns, masks and runs
  aaa bench run=RUN                                   what its masks save: time and memory
  aaa export run=RUN                                  the sparse model as ONNX, checked
"""

# Exit codes: 0 done; 1 a run failed; 2 the user's input was wrong; 128 + n stopped by signal n.
USER_ERROR = 2


def main() -> None:
    """Runs a subcommand and ends the process with its exit code."""
    command, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("--help", [])
    commands: dict[str, Callable[[list[str]], int]] = {
        "finetune": finetune,
        "pretrain": partial(train, "pretrain"),
        "table": table,
        "plot": plot,
        "bench": bench,
        "export": export,
    }
    if command in ("-h", "--help", "help"):
        print(HELP, end="")
        sys.exit(0)
    if command not in commands:
        fail(f"command {command!r} is unknown{known_names(command, commands)}")
    sys.exit(commands[command](arguments))


def finetune(arguments: list[str]) -> int:
    """One run, or with ``-m`` many: the sweep then says what came out and exits with its code."""
    from aaa.experiments.sweep.options import for_sweeper, is_sweep

    try:
        arguments = for_sweeper(arguments)
    except ValueError as error:
        fail(str(error))
    if is_sweep(arguments):
        from aaa.experiments.sweep.job import do_cell

        _run_hydra("finetune", arguments, do_cell)
        return 0
    return train("finetune", arguments)


def train(command: str, arguments: list[str]) -> int:
    """One run, or with ``-m`` many, one after the other."""
    outcomes: list[Outcome] = []
    refusals: list[str] = []
    begun = False

    def task(config: DictConfig) -> None:
        nonlocal begun
        begun = True
        from aaa.experiments.run import run  # torch and transformers take seconds to import

        try:
            outcome = run(config)
        except ValueError as error:  # one job's config is wrong: the others of a multirun go on
            refusals.append(str(error))
            print(f"aaa: {error}", file=sys.stderr)
            return
        if outcome.signal_number is not None:  # the whole multirun was meant
            sys.exit(128 + outcome.signal_number)
        outcomes.append(outcome)

    try:
        _run_hydra(command, arguments, task)
    except OSError as error:
        if begun:
            raise
        fail(f"run.output_dir cannot be made: {error}")  # the first that Hydra does
    return USER_ERROR if refusals else _conclude(outcomes)


def table(arguments: list[str]) -> int:
    """A table from the results of runs."""
    from aaa.report.main import main as show_table

    gc.disable()  # in a few seconds there is nothing to collect, and to look for it takes a tenth
    try:
        return show_table(arguments)
    except ValueError as error:
        fail(str(error))
    finally:
        gc.enable()


def plot(arguments: list[str]) -> int:
    """A picture of a pattern, of a text's masks or of a run."""
    from aaa.plots.main import main as make_plot

    try:
        return make_plot(arguments)
    except ValueError as error:
        fail(str(error))


def bench(arguments: list[str]) -> int:
    """What a trained model's own masks save."""
    # torch's profiler, by which memory is measured, would tell its stages on stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from aaa.deploy.main import bench_main

    try:
        return bench_main(arguments)
    except ValueError as error:
        fail(str(error))


def export(arguments: list[str]) -> int:
    """A trained model as ONNX."""
    from aaa.deploy.main import export_main

    try:
        return export_main(arguments)
    except ValueError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Says what is wrong with the user's input and ends the process."""
    print(f"aaa: {message}", file=sys.stderr)
    sys.exit(USER_ERROR)


def _run_hydra(config_name: str, arguments: list[str], task: Callable[[DictConfig], None]) -> None:
    """Composes the config and calls ``task``, once or for each job of a multirun."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from aaa.experiments.configs import config_source, explain
    from aaa.experiments.console import set_up_logging

    set_up_logging()
    # Hydra then raises its errors instead of printing them and exiting with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # argparse wants the flag before or after all overrides, people type it anywhere.
    arguments = sorted(arguments, key=lambda argument: argument not in ("-m", "--multirun"))
    folder, beneath = config_source(config_name)
    # By its own flag, or --help would not list what is there.
    path = [] if beneath is None else ["--config-dir", str(beneath)]
    sys.argv = [f"aaa {config_name}", *path, *arguments]
    entry = hydra.main(version_base="1.3", config_path=str(folder), config_name=config_name)
    try:
        entry(task)()
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error, config_name, arguments))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _conclude(outcomes: list[Outcome]) -> int:
    """Says what came out and what to do next; returns the exit code."""
    from rich.console import Console

    from aaa.experiments.launch import process_rank
    from aaa.experiments.result import one_line

    console = Console(stderr=True, highlight=False, quiet=process_rank() > 0)
    for outcome in outcomes:
        if outcome.result is not None:
            console.print(one_line(outcome.result), soft_wrap=True, markup=False)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        console.print(f"see {outcome.directory / 'run.log'}", soft_wrap=True, markup=False)
    if outcomes and not failed:
        folders = {str(outcome.directory.parent) for outcome in outcomes}
        command = f"aaa table {shlex.join(sorted(folders))}"
        console.print(f"next: {command}", soft_wrap=True, markup=False)
    return 1 if failed else 0
