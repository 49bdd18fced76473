"""Name to file: task cards (`envs`), recipes (`datasets`) and pipelines, the user's before the bundled ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from toolkit import strict_yaml
from toolkit.config import nearest
from toolkit.types import ToolkitError

Kind = Literal["envs", "datasets", "pipelines"]
KINDS: tuple[Kind, ...] = ("envs", "datasets", "pipelines")

DATA = Path("data")  # recordings, a Minari root in the place where one works
_PACKAGE = Path(__file__).resolve().parent
_WORDS = {"envs": "task card", "datasets": "recipe", "pipelines": "pipeline"}


class Entry(NamedTuple):
    """One file of the catalogue and the first line of its description."""

    name: str
    path: Path
    summary: str


def find(kind: Kind, name: str | Path) -> Path:
    """The file for a name (`smoke`, `smoke.yaml`) or a path.

    Order: the path itself, `./KIND/NAME.yaml`, the folder beside the package in a checkout, the one in the wheel. Where
    the user's folder hides a bundled file, one line on standard error says so. Raises ToolkitError where nothing is
    found, with the nearest names and the folders looked in.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        if len(path.parts) > 1:
            raise ToolkitError(f"{path}: expected a {_WORDS[kind]} file, found none")
    stem = path.stem if path.suffix in (".yaml", ".yml") else path.name
    found = [file for folder in _folders(kind) if (file := folder / f"{stem}.yaml").is_file()]
    if not found:
        names = [entry.name for entry in entries(kind)]
        looked = ", ".join(str(folder) for folder in (Path(kind), *_bundled(kind)))
        raise ToolkitError(
            f"no {_WORDS[kind]} {str(name)!r}{nearest(stem, names) or '.'} Known: {', '.join(names) or 'none'}. "
            f"Looked for {stem}.yaml in {looked}; a path with its folder works too."
        )
    if len(found) > 1:
        _notice(found[0], found[1])
    return found[0]


def entries(kind: Kind) -> list[Entry]:
    """Every file of one kind by name; the user's in place of a bundled one of the same name."""
    files = {file.stem: file for folder in reversed(_folders(kind)) for file in folder.glob("*.yaml")}
    return [Entry(name, file, _summary(file)) for name, file in sorted(files.items())]


def _folders(kind: Kind) -> list[Path]:
    """Folders that exist, first come first served; the same folder once."""
    found = {folder.resolve(): folder for folder in reversed((Path(kind), *_bundled(kind))) if folder.is_dir()}
    return list(reversed(found.values()))


def _bundled(kind: Kind) -> Iterator[Path]:
    checkout = _PACKAGE.parent
    if (checkout / "pyproject.toml").is_file():  # else another package's folder may bear this name
        yield checkout / kind
    else:
        yield _PACKAGE / "_catalog" / kind


@cache
def _notice(used: Path, hidden: Path) -> None:
    print(f"note: {used} is used instead of the bundled {hidden.name}", file=sys.stderr)


def _summary(file: Path) -> str:
    """First line of `description`, read without a model so that one bad file does not hide the rest."""
    try:
        document = strict_yaml.read(file)
    except (OSError, ToolkitError) as error:
        return f"(not readable: {error})"
    if document.problems:
        return f"(not readable: {document.problems[0][1]})"
    text = document.value.get("description") if isinstance(document.value, dict) else None
    lines = text.strip().splitlines() if isinstance(text, str) else []
    return lines[0] if lines else ""
