"""Shared by all tests."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Before torch is imported: the networks of the tests are small, and a second thread only makes them slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Outlives the end of a process, which tests bring about, and not only that of the power, which none does.
os.fsync = lambda fd: None

# What CI tries must not depend on luck; at a desk every run looks somewhere new.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that may take longest begin first: one that is left over for the end would keep a single core busy."""
    limits = [item.get_closest_marker("timeout") for item in items]
    first = {item for item, limit in zip(items, limits, strict=True) if limit and limit.args[0] >= 600}
    items.sort(key=lambda item: item not in first)
