"""The scripts that measure: each of them starts, and nothing takes the place of measured results that means less."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import kill9, ladder

FOLDER = Path(kill9.__file__).parent
ELSEWHERE = {"check_stats", "d3rlpy_train"}  # need rliable and d3rlpy, in environments of their own


@pytest.fixture(autouse=True)
def _beside_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


@pytest.mark.parametrize("name", sorted({path.stem for path in FOLDER.glob("*.py")} - ELSEWHERE))
def test_a_script_starts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module(f"benchmarks.{name}")
    if hasattr(module, "main"):
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as ended:
            module.main()
        assert ended.value.code == 0


def test_agreement_keeps_what_means_something() -> None:
    agreement: Any = import_module("benchmarks.agreement")
    kept = lambda *arguments: agreement.kept_in(agreement.parse_arguments([*arguments]))  # noqa: E731
    assert kept() == kept("--only", "iql") == agreement.RESULTS
    assert kept("--tiny") is kept("--seeds", "1") is None
    assert kept("--tiny", "--out", "x.json") == Path("x.json")


def test_agreement_of_one_seed_has_no_interval() -> None:
    agreement: Any = import_module("benchmarks.agreement")
    alone = agreement.compared([0.5], [0.25], "d3rlpy")
    assert alone["toolkit"] == {"iqm": 0.5, "ci95": [None, None], "per_seed": [0.5]} and alone["overlap"] is None
    json.dumps([alone, agreement.compared([math.nan, 1.0], [0.0, 1.0], "d3rlpy")], allow_nan=False)
    assert agreement.compared([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], "d3rlpy")["overlap"] is True
    assert agreement.compared([0.1, 0.11], [0.8, 0.81], "d3rlpy")["overlap"] is False


def test_the_ladder_keeps_its_rows_from_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ladder", "--set", "seeds=[0]"])
    monkeypatch.setattr(ladder, "measure", None)
    with pytest.raises(SystemExit, match="name another table with --out"):
        ladder.main()


@pytest.mark.parametrize(("script", "killed"), [("pass", False), ("import time; time.sleep(60)", True)])
def test_a_run_that_ended_before_its_kill_did_not_survive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, killed: bool
) -> None:
    command = [sys.executable, "-S", "-c", script]
    monkeypatch.setattr(kill9, "_start", lambda *_: subprocess.Popen(command, start_new_session=True))
    monkeypatch.setattr(kill9, "_finish", lambda *_: 0.0)
    monkeypatch.setattr(kill9, "fingerprint", lambda _: {})
    length = 0.1 if killed else 10.0
    found = kill9._killed(tmp_path, tmp_path, tmp_path, "start", 1.0, length, {})
    assert found["killed"] == killed and found["equal"] and not found["orphans"]
