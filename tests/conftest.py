"""Shared by all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# Before torch is imported: the networks of the tests are small, and a second thread only makes them slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What CI tries must not depend on luck; at a desk every run looks somewhere new.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
