"""The README is understood by what runs it (.ci/run), and says nothing that is not so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e import readme
from toolkit.agents import AGENTS
from toolkit.controllers import load_recipe
from toolkit.pipeline.plan import make_plan
from toolkit.tasks import load_card

TEXT = (readme.ROOT / "README.md").read_text(encoding="utf-8")
SAMPLE = """
<!-- ci: covered by "Lint" and "Types" -->
```console
$ ruff check . && mypy
```
<!-- ci: covered by "Types"; append --set a=1 -->
```console
$ mypy && toolkit pipeline big.yaml
```
Text.
```console
$ toolkit list
envs: ...
$ toolkit pipeline \\
    smoke.yaml
```
<!-- ci: append --set a=1 -->

```console
$ toolkit list
$ toolkit pipeline big.yaml
```
```python
import toolkit
```
```yaml
# envs/mine.yaml
name: mine
```
```yaml
only: shown
```
"""


def test_blocks() -> None:
    assert [tuple(block) for block in readme.blocks(SAMPLE)] == [
        ("console", [], None),
        ("console", ["toolkit pipeline big.yaml --set a=1"], None),
        ("console", ["toolkit list", "toolkit pipeline      smoke.yaml"], None),
        ("console", ["toolkit list", "toolkit pipeline big.yaml --set a=1"], None),
        ("python", ["import toolkit\n"], None),
        ("yaml", ["# envs/mine.yaml\nname: mine\n"], "envs/mine.yaml"),
    ]


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("skip", "not understood"),
        ('covered by "Nothing"', "no step 'Nothing'"),
        ('covered by "Types"', r"does not hold \['toolkit list'\]"),
    ],
)
def test_nothing_is_left_out_that_ci_does_not_do(note: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(readme.blocks(f"<!-- ci: {note} -->\n```console\n$ mypy && toolkit list\n```\n"))


def test_a_block_without_a_command_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="begins with"):
        list(readme.blocks("```console\ntoolkit list\n```\n"))


def test_it_offers_the_main_job() -> None:
    commands = [text for block in readme.blocks(TEXT) if block.language == "console" for text in block.texts]
    assert commands[0].startswith("toolkit pipeline offline2online.yaml ")
    assert 'pip install -c constraints.txt -e ".[dev]" && pytest' in TEXT


def test_its_files_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in readme.blocks(TEXT):
        if block.path:
            Path(block.path).parent.mkdir(exist_ok=True)
            Path(block.path).write_text(block.texts[0], encoding="utf-8")
    assert len(load_card("zigzag").maze.free_cells) == 11
    assert load_recipe("pieces").max_cells == 3
    assert list(make_plan("mine.yaml").spec.stages) == ["collect", "imitate", "pretrain", "finetune", "evaluate"]


def test_every_agent_is_told_of_and_every_link_leads_somewhere() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", TEXT.split("## Which algorithm when")[1], flags=re.M)
    assert rows == list(AGENTS)
    for document in (readme.ROOT / "README.md", *(readme.ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document}: {target}"
