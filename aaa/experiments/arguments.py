"""What subcommands that look at a run share: ``key=value`` arguments, and where runs lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aaa.experiments.result import MODEL, with_model
from aaa.names import known_name


def read_options(command: str, arguments: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """The arguments by key.

    Raises:
        ValueError: for one that is not ``key=value`` with a known key; the message lists those.
    """
    options: dict[str, str] = {}
    known = [f"{key}=" for key in keys]
    for argument in arguments:
        key, equals, value = argument.partition("=")
        known_name(f"{key}{equals}", known, f"aaa {command} (see --help): option")
        if not value:
            raise ValueError(f"{key}= is empty")
        options[key] = value
    return options


def whole_number(options: Mapping[str, str], key: str, default: int, least: int, most: int) -> int:
    """The number under a key.

    Raises:
        ValueError: if it is none from ``least`` to ``most``.
    """
    text = options.get(key, str(default))
    if not text.isdecimal() or not least <= int(text) <= most:
        raise ValueError(f"{key}= is a whole number from {least} to {most}, not {text!r}")
    return int(text)


def run_directory(run: str) -> Path:
    """The directory of a run, or of a saved model, by its path or by the run's id.

    Raises:
        ValueError: if there is none.
    """
    for place in (Path(run).expanduser(), Path("outputs/runs") / run):
        if place.is_dir():
            return with_model(place)
    raise ValueError(
        f"there is no run {run!r}: give its directory, or its id, which is the name of one under "
        "outputs/runs"
    )


def model_folder(directory: Path) -> Path:
    """Where the model of a run is, or the directory itself if it is that of a saved model.

    Raises:
        ValueError: if there is no model.
    """
    place = directory if (directory / "config.json").is_file() else directory / MODEL
    if not (place / "config.json").is_file():
        raise ValueError(
            f"{directory} has no {MODEL}/: the run is not finished, or an older version made it; "
            "fine-tune again"
        )
    return place


def saved_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that was saved beside a model.

    Raises:
        ValueError: if there is none.
    """
    if not (folder / "tokenizer_config.json").is_file():  # transformers would make an empty one
        raise ValueError(f"{folder} has no tokenizer: save it there, beside the model")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)
