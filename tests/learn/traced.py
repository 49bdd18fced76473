"""One seed of an agent, updated as in long runs: by a list of operations, which takes a third of the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from toolkit.agents import Agent
from toolkit.learner import Traced
from toolkit.types import Batch, Metrics, Rollout

Update = Callable[[Any, Any], tuple[Any, Metrics]]


def begin(agent: Agent[Any], seed: int = 0) -> Any:
    """The first state, of which no two tensors share their memory."""
    return pytree.tree_map(torch.clone, agent.init(torch.Generator().manual_seed(seed)))


def traced(update: Update, kind: type[Batch] | type[Rollout] = Batch) -> Update:
    """The same update, which writes over the state that it is given."""
    program = Traced(lambda state, *b: update(state, kind(*b)), torch.device("cpu"), compiled=False)
    return lambda state, b: program(state, *[x for x in b if x is not None])
