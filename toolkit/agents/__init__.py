"""Algorithms: one file each, one line each here (level 2)."""

from __future__ import annotations

from typing import Any

from toolkit.agents.base import Agent, AgentConfig
from toolkit.agents.bc import BC, FilteredBC
from toolkit.agents.cql import CQL
from toolkit.agents.iql import IQL
from toolkit.agents.sac import SAC

__all__ = ["AGENTS", "Agent", "AgentConfig"]

AGENTS: dict[str, type[Agent[Any]]] = {
    "bc": BC,
    "filtered_bc": FilteredBC,
    "iql": IQL,
    "cql": CQL,
    "sac": SAC,
}
