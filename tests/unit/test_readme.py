"""The README's commands can be found and run; .ci/run runs them."""

from __future__ import annotations

import sys

import pytest

from tests.e2e import readme

SAMPLE = """
<!-- ci: covered by "Install" -->
```console
$ pip install x
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
$ toolkit pipeline big.yaml
```
```python
import toolkit
```
```yaml
no: command
```
"""


def test_blocks() -> None:
    assert [tuple(block) for block in readme.blocks(SAMPLE)] == [
        ("console", ["pip install x"], "Install"),
        ("console", ["toolkit list", "toolkit pipeline      smoke.yaml"], None),
        ("console", ["toolkit pipeline big.yaml --set a=1"], None),
        ("python", ["import toolkit\n"], None),
    ]


@pytest.mark.parametrize("note", ['covered by "Nothing"', "skip"])
def test_a_block_is_skipped_only_for_a_step_that_exists(note: str) -> None:
    with pytest.raises(ValueError, match=r"Nothing|skip"):
        list(readme.blocks(f"<!-- ci: {note} -->\n```console\n$ x\n```\n"))


def test_a_block_without_a_command_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="begins with"):
        list(readme.blocks("```console\ntoolkit list\n```\n"))


@pytest.mark.skipif(not (readme.ROOT / "README.md").exists(), reason="the README is not written yet")
def test_the_readme_is_understood_and_offers_the_main_job() -> None:
    found = [command for block in readme.blocks((readme.ROOT / "README.md").read_text()) for command in block.commands]
    assert any("toolkit pipeline offline2online.yaml" in command for command in found)
    assert any("pytest" in command for command in found)
    assert sys.version_info >= (3, 11)
