"""Where things lie: the shipped configs; a hub id or a local folder, told apart in one place."""

from __future__ import annotations

from pathlib import Path


def config_folder() -> Path:
    """conf/: inside the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def config_names(group: str) -> list[str]:
    """The choices of a group of conf/."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def pretraining_config_folder() -> Path:
    """conf_pretrain/, beside conf/: what ``aaa pretrain`` has in place of the groups there."""
    return config_folder().with_name("conf_pretrain")


def local_folder(path: str, option: str) -> Path | None:
    """The folder that ``path`` names, or None if it is to be looked up on the hub.

    Raises:
        ValueError: if it can only have been meant as a folder and there is none; the message names
            the option.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    # A hub id is "name" or "owner/name".
    if not path or folder.is_absolute() or path.startswith(".") or len(folder.parts) > 2:
        raise ValueError(
            f"there is no folder {path!r}; {option} must be one, or a hub id such as owner/name"
        )
    return None


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
