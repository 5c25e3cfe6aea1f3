"""W&B online without a key is refused before a run begins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from omegaconf import OmegaConf

from aaa.experiments.login import TARGET, check_login
from aaa.experiments.run import run
from tests.experiments.conftest import Compose

KEY = "0123456789" * 4
NO_KEY = "no API key here: wandb login once, set WANDB_API_KEY, or .* logger.mode=offline"
ONLINE = OmegaConf.create({"_target_": TARGET, "mode": "online"})


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nobody is logged in; W&B reads what is there anew."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    wandb.teardown()
    yield
    wandb.teardown()


def test_nothing_is_done_without_a_key(compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=NO_KEY):
        run(compose("logger=wandb", "logger.mode=online"))
    assert not (tmp_path / "outputs").exists()


def test_a_key_is_found_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    check_login(ONLINE)


def test_a_key_is_found_where_wandb_login_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    check_login(ONLINE)


def test_a_key_of_another_form_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", " secret ")
    with pytest.raises(ValueError, match="not of the form it wants") as caught:
        check_login(ONLINE)
    assert caught.value.__suppress_context__
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("logger", [{"_target_": TARGET, "mode": "offline"}, {"_target_": "csv"}])
def test_wandb_is_not_imported_where_it_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, logger: dict[str, str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb.sdk", None)
    check_login(OmegaConf.create(logger))
