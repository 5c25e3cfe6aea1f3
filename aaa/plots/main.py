"""``aaa plot``: which picture is wanted, and where it goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException
from matplotlib.figure import Figure
from omegaconf.errors import OmegaConfBaseException

from aaa.experiments.arguments import read_options, run_directory, whole_number
from aaa.experiments.configs import compose_config, explain
from aaa.experiments.job import find_runs
from aaa.experiments.plan import build_pattern
from aaa.experiments.result import is_finished, read_result
from aaa.fingerprint import hash_json
from aaa.patterns import Pattern
from aaa.plots.course import course_figure, read_course
from aaa.plots.files import save
from aaa.plots.illustrate import figure_1, illustrate
from aaa.plots.maps import figure_of
from aaa.plots.sentence import sentence_maps

HELP = """\
aaa plot: pictures, each as PNG and as SVG

  aaa plot pattern=NAME[,NAME ...]   what patterns of conf/pattern look like
  aaa plot pattern=all               Figure 1 of the paper
  aaa plot run=RUN                   a run: rho, rows, columns, score, over steps and over layers
  aaa plot run=RUN text="..."        the masks of a text, chosen rows and columns marked

RUN is a run's id under outputs/runs, or its directory; with a text also a saved model's folder.

  pattern.KEY=VALUE   as for aaa finetune, for example pattern=local2 pattern.size=3
  tokens=N            length of the text that patterns are drawn on (16; Figure 1: 8)
  text_pair="..."     the second text of a pair
  head=N              the head to draw where heads differ (0)
  output=PATH         where to, without .png and .svg (RUN/plots/... or outputs/plots/...)

What a learned pattern opens is an example: each gate is open at random, with probability 0.15.
"""
KEYS = ("pattern", "run", "text", "text_pair", "tokens", "head", "output")
LONGEST = 512  # tokens that a pattern is drawn on


def main(arguments: list[str]) -> int:
    """Makes the picture that the arguments ask for, says where it is, and what to do next.

    Raises:
        ValueError: for arguments that make no sense, naming those that do; if the picture cannot
            be written.
    """
    if any(argument in ("-h", "--help") for argument in arguments):
        print(HELP, end="")
        return 0
    options, overrides = _parse(arguments)
    if "pattern" in options:
        figure, place, following = _patterns(options, overrides)
    else:
        figure, place, following = _run(options)
    output = Path(options["output"]).expanduser() if "output" in options else place
    try:
        paths = save(figure, output)
    except OSError as error:
        raise ValueError(f"{output} cannot be written: {error.strerror}; give output=") from error
    for path in paths:
        print(f"written: {path}")
    print(f"next: {following}")
    return 0


def _parse(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Options by key, and what is meant for the pattern's config."""
    overrides = [one for one in arguments if one.lstrip("+").startswith("pattern.")]
    others = [one for one in arguments if one not in overrides]
    options = read_options("plot", others, KEYS)
    what = [key for key in ("pattern", "run") if key in options]
    if len(what) != 1:
        raise ValueError("aaa plot takes one of pattern= and run=; see aaa plot --help")
    suit = {
        "pattern": ("pattern", "tokens", "output"),
        "run": ("run", "text", "text_pair", "head", "output"),
    }[what[0]]
    for key in [*options, *(["pattern.KEY"] if overrides else [])]:
        if key not in suit and not (key == "pattern.KEY" and what == ["pattern"]):
            raise ValueError(f"{key}= does not go with {what[0]}=; what does: {', '.join(suit)}")
    return options, overrides


def _patterns(options: dict[str, str], overrides: list[str]) -> tuple[Figure, Path, str]:
    names = options["pattern"].split(",")
    if names == ["all"]:
        maps = figure_1(whole_number(options, "tokens", 8, least=8, most=LONGEST))
        title, following = "Figure 1: the five kinds of pattern", "aaa plot pattern=aaa"
    else:
        num_tokens = whole_number(options, "tokens", 16, least=1, most=LONGEST)
        maps = []
        for name in names:
            pattern = _pattern(name, overrides)
            maps += illustrate(name, pattern, num_tokens)
        title = str(pattern) if len(names) == 1 else f"{len(names)} patterns"
        following = f"aaa finetune pattern={names[0]}"
    per_row = len(maps) if len(maps) <= 5 else None
    figure = figure_of(maps, f"{title} ({maps[0].size} tokens)", per_row)
    return figure, Path("outputs/plots") / "-".join(names), following


def _pattern(name: str, overrides: list[str]) -> Pattern:
    try:
        config = compose_config([f"pattern={name}", *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error, "finetune")) from error
    find_runs(config)  # pattern.source may be a run's id
    return build_pattern(config.pattern)


def _run(options: dict[str, str]) -> tuple[Figure, Path, str]:
    directory = run_directory(options["run"])
    text, pair = options.get("text"), options.get("text_pair")
    if text is None:
        if pair is not None or "head" in options:
            raise ValueError("text_pair= and head= go with text=")
        result = read_result(directory)
        if result is None or not is_finished(result):
            raise ValueError(f"{directory} is not a finished run: it has no result to draw")
        following = f'aaa plot run={options["run"]} text="..."'
        return course_figure(read_course(directory, result)), directory / "plots/course", following
    head = whole_number(options, "head", 0, least=0, most=1000)
    maps = sentence_maps(directory, text, pair, head)
    result = read_result(directory)
    who = " · ".join(str(result[key]) for key in ("task", "pattern", "model")) if result else ""
    figure = figure_of(maps, who or directory.name)
    name = f"masks-{hash_json([text, pair, head])[:8]}"
    return figure, directory / "plots" / name, f"aaa plot run={options['run']}"
