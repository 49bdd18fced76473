"""What all commands share: how they answer and the options that mean one thing everywhere."""

from __future__ import annotations

import contextlib
import errno
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from toolkit.types import Json, Progress, ToolkitError

# what is wrong with the machine, not with what was asked for
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.EROFS}

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes, by default one for each core; the result does not depend on it.")
]
PolicyPath = Annotated[
    Path, typer.Argument(help="Run folder (its last trained stage), a stage (RUN/stages/NAME), or a checkpoint.")
]
Starts = Annotated[
    Literal["far", "all"] | None,
    typer.Option(help="far: cells no single recorded trajectory joins to the goal. Default: far where known."),
]
View = Literal["auto", "plain", "none"]


def answer(call: Callable[[], Json], as_json: bool, lines: Callable[[Json], Any]) -> Json:
    """Make the call and print its result; what libraries print on the way goes to standard error."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = call()
    except ToolkitError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{where}{error.strerror or error}", file=sys.stderr)
        raise typer.Exit(1 if error.errno in _MACHINE else 2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(130) from None
    for line in [json.dumps(result, allow_nan=False)] if as_json else lines(result):
        print(line)
    return result


@contextlib.contextmanager
def episodes_shown(name: str, unit: str = "episodes") -> Iterator[Progress]:
    """A console with one stage, moved by calls of (episodes done, episodes in all), or of another unit."""
    from toolkit.console import Console

    with Console() as console:
        started = False

        def show(done: int, total: int) -> None:
            nonlocal started
            if not started:
                console.stage_started(name, total, unit)
                started = True
            console.advance(done)

        yield show
        if started:
            console.stage_finished(name)
