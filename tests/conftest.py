"""Shared by all tests."""

from __future__ import annotations

import os

# Before torch is imported: the networks of the tests are small, and a second thread only makes them slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
