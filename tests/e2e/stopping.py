"""Pipelines that run through, and that are asked to stop in the middle of something."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from toolkit.evaluate import evaluate
from toolkit.pipeline.runner import run_pipeline


def asked_to_stop(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function; its second call is met by SIGTERM."""
    calls = count(1)

    def called(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **options)

    return called


def run_whole(folder: Path, text: str) -> tuple[Path, Path]:
    """A pipeline's file, and a run of it that nobody disturbed."""
    file = folder / "pipeline.yaml"
    file.write_text(text, encoding="utf-8")
    run_pipeline(file, out=folder / "run", progress="none")
    return file, folder / "run"


def stopped_in(stage: str, file: Path, run: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run in which the stage began anew and was stopped while its policy was measured."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "stages" / stage)
    with monkeypatch.context() as patch:
        patch.setattr("toolkit.pipeline.watch.evaluate", asked_to_stop(evaluate))
        with pytest.raises(SystemExit):
            run_pipeline(file, out=copy, progress="none")
    return copy
