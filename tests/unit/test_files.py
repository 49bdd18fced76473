"""Files in one piece."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from toolkit.files import read_json, write_json, write_text


def test_a_reader_finds_the_old_file_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text(encoding="utf-8")))
    reader.start()
    write_text(pipe, "page")
    reader.join(10)
    assert heard == ["page"] and pipe.is_fifo()
