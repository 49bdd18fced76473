"""Do all that README.md and docs/your-robot.md show, in order, in one folder: run commands and Python, save YAML files.

    python tests/e2e/readme.py [FOLDER]       FOLDER is an empty temporary one where none is named

Commands are the lines of ```console blocks that begin with "$ "; a backslash at the end goes on. A ```yaml block whose
first line is a comment with a path, `# envs/mine.yaml`, is saved there. A comment above a block says what is done
otherwise than it stands:

    <!-- ci: covered by "STEP" and "STEP" -->    parts of its commands (between &&) that stand literally in these steps
                                                 of .ci/run have been done there
    <!-- ci: append ARGUMENTS -->                its last command gets more arguments, to be shorter
    <!-- ci: covered by "STEP"; append ARGUMENTS -->
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/your-robot.md")
BLOCK = re.compile(
    r"(?:^<!-- ci: (?P<note>.*?) -->\n+)?^```(?P<language>console|python|yaml)\n(?P<body>.*?)^```$", re.M | re.S
)
NOTE = re.compile(r'(?:covered by (?P<steps>"[^"]+"(?: and "[^"]+")*))?(?:; )?(?:append (?P<more>.+))?')


class Block(NamedTuple):
    """What to do: commands to run, one Python text to run, or one text to save under `path`."""

    language: str
    texts: list[str]
    path: str | None = None


def blocks(text: str) -> Iterator[Block]:
    """What a document shows, without what .ci/run has done already.

    Raises ValueError for a comment that is none of ours, a command that no step has done although a comment says so,
    and a console block without a command.
    """
    for match in BLOCK.finditer(text):
        language, body, note = match["language"], match["body"], match["note"]
        if language == "python":
            yield Block(language, [body])
        elif language == "yaml":
            if path := re.match(r"# (\S+\.yaml)\n", body):
                yield Block(language, [body], path[1])
        else:
            commands = [line[2:].strip() for line in body.replace("\\\n", " ").splitlines() if line.startswith("$ ")]
            if not commands:
                raise ValueError(f"no command begins with '$ ' in:\n{body}")
            yield Block(language, _noted(commands, note) if note else commands)


def _noted(commands: list[str], note: str) -> list[str]:
    """Commands as the comment above them has it."""
    found = NOTE.fullmatch(note)
    if not found or not any(found.groups()):
        raise ValueError(f"not understood: <!-- ci: {note} -->")
    if found["steps"]:
        done = {line for step in re.findall('"(.+?)"', found["steps"]) for line in _step(step)}
        kept = [" && ".join(part for part in command.split(" && ") if part not in done) for command in commands]
        commands = [command for command in kept if command]
        if commands and not found["more"]:
            raise ValueError(f".ci/run does not hold {commands} in {found['steps']}")
    return [*commands[:-1], f"{commands[-1]} {found['more']}"] if found["more"] else commands


def _step(name: str) -> list[str]:
    """Lines of a step of .ci/run."""
    steps = re.split(r'^ *step "(.+)"\n', (ROOT / ".ci/run").read_text(encoding="utf-8"), flags=re.M)
    found = dict(zip(steps[1::2], steps[2::2], strict=True))
    if name not in found:
        raise ValueError(f".ci/run has no step {name!r}")
    return [line.strip() for line in found[name].splitlines()]


def main(folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for block in chain.from_iterable(blocks((ROOT / name).read_text(encoding="utf-8")) for name in DOCUMENTS):
        for text in block.texts:
            if block.path:
                (folder / block.path).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.path).write_text(text, encoding="utf-8")
                continue
            print(f"$ {text}", flush=True)
            began = time.monotonic()
            shell = ["bash", "-euo", "pipefail", "-c"] if block.language == "console" else [sys.executable, "-c"]
            subprocess.run([*shell, text], cwd=folder, env=environment, check=True, stdin=subprocess.DEVNULL)
            print(f"  done in {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    with ExitStack() as stack:
        main(Path(sys.argv[1] if sys.argv[1:] else stack.enter_context(tempfile.TemporaryDirectory())))
