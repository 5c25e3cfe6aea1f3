"""Whether W&B would take what a run logs, known before the run begins. No torch."""

from __future__ import annotations

from omegaconf import DictConfig

TARGET = "aaa.tracking.wandb_logger"


def check_login(logger: DictConfig) -> None:
    """Checks that there is a key for W&B where it is logged to online; nothing is sent.

    Raises:
        ValueError: if there is none, or none of a key's form.
    """
    if logger.get("_target_") == TARGET and logger.get("mode") == "online" and not _has_key():
        raise ValueError(
            "logger.mode=online, but W&B has no API key here: wandb login once, set "
            "WANDB_API_KEY, or log with logger.mode=offline"
        )


def _has_key() -> bool:
    try:
        from wandb.errors import Error
        from wandb.sdk import wandb_setup
        from wandb.sdk.lib.wbauth import read_netrc_auth
    except ImportError:  # another release, which looks for its key by other names
        return True
    try:
        settings = wandb_setup.singleton().settings  # of the environment and W&B's own files
        known = settings.api_key or settings.identity_token_file
        return bool(known or read_netrc_auth(host=settings.base_url))
    except (Error, ValueError):
        # Without its cause, which may quote the key.
        raise ValueError(
            "logger.mode=online, but the API key for W&B is not of the form it wants: wandb login"
        ) from None
