"""What all commands share: how they answer and the options that mean one thing everywhere."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from toolkit.types import Json, ToolkitError

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def answer(call: Callable[[], Json], as_json: bool, lines: Callable[[Json], Any]) -> Json:
    """Make the call and print its result; what libraries print on the way goes to standard error."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = call()
    except ToolkitError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise typer.Exit(130) from None
    for line in [json.dumps(result, allow_nan=False)] if as_json else lines(result):
        print(line)
    return result
