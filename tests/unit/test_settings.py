"""What can be set, as a user without Python looks it up."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from toolkit.cli import app
from toolkit.pipeline.load import load_spec
from toolkit.pipeline.settings import KINDS, lines, settings
from toolkit.pipeline.spec import OnlineStage


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_has_a_default_and_a_meaning(kind: str) -> None:
    found = settings(kind)
    assert [setting.name for setting in found if not setting.meaning or not setting.default] == []


def test_blocks_within_and_choices() -> None:
    found = {setting.name: setting for setting in settings("online")}
    assert found["env_steps"].default == "required"
    assert found["seam.optimizer"].default == "keep" and found["seam.optimizer"].meaning.endswith("(keep, reset)")
    assert found["seam.mix"].default == "fixed"
    assert found["seam.mix.over_steps"].meaning.startswith("annealed: ")
    assert found["guard"].default == "null" and found["guard.drop"].default == "0.2"
    assert "kind" not in found


def test_names_are_those_that_set_takes() -> None:
    for setting in settings("online"):
        if setting.default not in ("required", "null", "{}") and not setting.name.startswith(("seam.mix", "window")):
            spec = load_spec("smoke.yaml", [f"finetune.{setting.name}={setting.default}"])
            assert isinstance(spec.stages["finetune"], OnlineStage)


def test_the_command() -> None:
    shown = CliRunner().invoke(app, ["settings", "iql"])
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == list(lines(settings("iql")))
    data = json.loads(CliRunner().invoke(app, ["settings", "iql", "--json"]).stdout)
    assert {"name": "expectile", "default": "0.9"}.items() <= data["settings"][3].items()
    wrong = CliRunner().invoke(app, ["settings", "iqi"])
    assert wrong.exit_code == 2 and "did you mean 'iql'?" in wrong.stderr
