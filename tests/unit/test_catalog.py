"""Names to files: order of the folders, the notice, and what an unknown name is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import catalog
from toolkit.types import ToolkitError


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with two cards, and an empty working directory."""
    package = tmp_path / "site" / "toolkit"
    folder = package / "_catalog" / "envs"
    folder.mkdir(parents=True)
    (folder / "maze.yaml").write_text("description: |\n  bundled\n  more\n")
    (folder / "other.yaml").write_text("description: other\n")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr(catalog, "_PACKAGE", package)
    return folder


def own(text: str, name: str = "maze.yaml") -> Path:
    Path("envs").mkdir(exist_ok=True)
    path = Path("envs") / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["maze", "maze.yaml", "maze.yml"])
def test_bundled(bundled: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert catalog.find("envs", name) == bundled / "maze.yaml"
    assert capsys.readouterr().err == ""


def test_the_users_folder_wins_and_one_line_says_so(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = own("description: mine\n")
    assert catalog.find("envs", "maze") == path
    assert catalog.find("envs", "maze") == path
    assert capsys.readouterr().err.splitlines() == ["note: envs/maze.yaml is used instead of the bundled maze.yaml"]
    assert [(e.name, e.summary) for e in catalog.entries("envs")] == [("maze", "mine"), ("other", "other")]


def test_a_path_is_taken_as_it_is(bundled: Path) -> None:
    Path("here.yaml").write_text("a: 1\n")
    Path("maze.yaml").write_text("a: 1\n")
    Path("sub").mkdir()
    Path("sub/there.yaml").write_text("a: 1\n")
    for path in (Path("here.yaml"), Path("maze.yaml"), Path("sub/there.yaml"), Path("sub/there.yaml").resolve()):
        assert catalog.find("envs", path) == path


def test_an_unknown_name_lists_the_nearest_and_the_folders(bundled: Path) -> None:
    with pytest.raises(ToolkitError) as caught:
        catalog.find("envs", "mase.yaml")
    text = str(caught.value)
    for part in ("'mase.yaml'", "did you mean 'maze'?", "Known: maze, other", str(bundled), "mase.yaml in envs,"):
        assert part in text


@pytest.mark.parametrize("name", ["sub/maze.yaml", "/nowhere/maze.yaml", "../maze", "", ".", "..", "a\0b"])
def test_odd_names_end_in_an_error(bundled: Path, name: str) -> None:
    with pytest.raises(ToolkitError):
        catalog.find("envs", name)


def test_one_bad_file_does_not_hide_the_rest(bundled: Path) -> None:
    own("a: [", "bad.yaml")
    own("- 1", "list.yaml")
    Path("envs/latin.yaml").write_bytes(b"description: \xff")
    summaries = {entry.name: entry.summary for entry in catalog.entries("envs")}
    assert summaries["bad"].startswith("(not readable: ")
    assert summaries["latin"].startswith("(not readable: ")
    assert (summaries["list"], summaries["other"]) == ("", "other")


@pytest.mark.parametrize("kind", catalog.KINDS)
def test_each_shipped_file_says_what_it_is(kind: catalog.Kind) -> None:
    for entry in catalog.entries(kind):
        assert entry.summary, entry.path
        assert not entry.summary.startswith("(not readable"), entry
