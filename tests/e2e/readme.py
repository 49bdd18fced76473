"""Run every command and every Python block of README.md, in order, in an empty folder.

Commands are the lines of ```console blocks that begin with "$ "; a backslash at the end goes on. A comment right above
a block says what differs here:

    <!-- ci: covered by "STEP" -->    .ci/run's step of that name has done just this already
    <!-- ci: append ARGUMENTS -->     the block's last command is run with more arguments, to be shorter
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(?:^<!-- ci: (?P<note>.*?) -->\n+)?^```(?P<language>console|python)\n(?P<body>.*?)^```$", re.M | re.S
)


class Block(NamedTuple):
    """Commands, or one Python text, and the step of .ci/run that has done them already."""

    language: str
    commands: list[str]
    covered_by: str | None


def blocks(text: str) -> Iterator[Block]:
    """The runnable blocks of a README. Raises ValueError for a comment that is none of ours, or a block without `$`."""
    for match in BLOCK.finditer(text):
        language, body, note = match["language"], match["body"], match["note"] or ""
        commands = [body]
        if language == "console":
            joined = body.replace("\\\n", " ")
            commands = [line[2:].strip() for line in joined.splitlines() if line.startswith("$ ")]
        if not commands:
            raise ValueError(f"no command begins with '$ ' in:\n{body}")
        covered = re.fullmatch(r'covered by "(.+)"', note)
        if covered and f'step "{covered[1]}"' not in (ROOT / ".ci/run").read_text():
            raise ValueError(f".ci/run has no step {covered[1]!r}")
        more = re.fullmatch(r"append (.+)", note)
        if note and not covered and not more:
            raise ValueError(f"not understood: <!-- ci: {note} -->")
        if more:
            commands[-1] += f" {more[1]}"
        yield Block(language, commands, covered[1] if covered else None)


def main() -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as folder:
        for block in blocks((ROOT / "README.md").read_text(encoding="utf-8")):
            for command in block.commands:
                print(f"$ {command}", flush=True)
                if block.covered_by:
                    print(f"  covered by {block.covered_by!r}", flush=True)
                    continue
                began = time.monotonic()
                shell = ["bash", "-euo", "pipefail", "-c"] if block.language == "console" else [sys.executable, "-c"]
                subprocess.run([*shell, command], cwd=folder, env=environment, check=True, stdin=subprocess.DEVNULL)
                print(f"  done in {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
