"""Algorithms: one file each, one line each here (level 2). Torch is loaded when the first of them is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from toolkit.agents.configs import (
    ActorCriticMCConfig,
    ActorCriticQConfig,
    ActorCriticTDConfig,
    AgentConfig,
    AWACConfig,
    AWRConfig,
    BCConfig,
    CalQLConfig,
    CQLConfig,
    DiscreteCQLConfig,
    FilteredBCConfig,
    FQLConfig,
    HIQLConfig,
    IQLConfig,
    IVLConfig,
    PEXConfig,
    PolicyGradientConfig,
    QCConfig,
    QCSACConfig,
    QRLConfig,
    ReBRACConfig,
    ReinforceBaselineConfig,
    ReinforceConfig,
    RLPDConfig,
    SACConfig,
    TD3BCConfig,
    TD3Config,
    WSRLConfig,
)

if TYPE_CHECKING:
    from toolkit.agents.base import Agent

    AGENTS: dict[str, type[Agent[Any]]]

__all__ = ["AGENTS", "CONFIGS", "Agent", "AgentConfig"]

_REGISTRY: dict[str, tuple[type[AgentConfig], str]] = {
    "bc": (BCConfig, "bc:BC"),
    "filtered_bc": (FilteredBCConfig, "bc:FilteredBC"),
    "awr": (AWRConfig, "awr:AWR"),
    "awac": (AWACConfig, "awac:AWAC"),
    "iql": (IQLConfig, "iql:IQL"),
    "ivl": (IVLConfig, "ivl:IVL"),
    "td3_bc": (TD3BCConfig, "td3_bc:TD3BC"),
    "rebrac": (ReBRACConfig, "rebrac:ReBRAC"),
    "cql": (CQLConfig, "cql:CQL"),
    "calql": (CalQLConfig, "calql:CalQL"),
    "discrete_cql": (DiscreteCQLConfig, "discrete_cql:DiscreteCQL"),
    "sac": (SACConfig, "sac:SAC"),
    "td3": (TD3Config, "td3:TD3"),
    "fql": (FQLConfig, "fql:FQL"),
    "qc": (QCConfig, "qc:QC"),
    "rlpd": (RLPDConfig, "rlpd:RLPD"),
    "qc_sac": (QCSACConfig, "qc:QCSAC"),
    "wsrl": (WSRLConfig, "wsrl:WSRL"),
    "pex": (PEXConfig, "pex:PEX"),
    "reinforce": (ReinforceConfig, "policy_gradient:Reinforce"),
    "reinforce_baseline": (ReinforceBaselineConfig, "policy_gradient:ReinforceBaseline"),
    "actor_critic_mc": (ActorCriticMCConfig, "policy_gradient:ActorCriticMC"),
    "actor_critic_td": (ActorCriticTDConfig, "policy_gradient:ActorCriticTD"),
    "actor_critic_q": (ActorCriticQConfig, "policy_gradient:ActorCriticQ"),
    "gae": (PolicyGradientConfig, "policy_gradient:GAE"),
    "hiql": (HIQLConfig, "hiql:HIQL"),
    "qrl": (QRLConfig, "qrl:QRL"),
}
CONFIGS = {name: config for name, (config, _) in _REGISTRY.items()}


def __getattr__(name: str) -> Any:
    value: Any
    if name == "AGENTS":
        value = {agent: _load(home) for agent, (_, home) in _REGISTRY.items()}
    elif name == "Agent":
        value = _load("base:Agent")
    else:
        raise AttributeError(f"module 'toolkit.agents' has no attribute {name!r}")
    globals()[name] = value
    return value


def _load(home: str) -> Any:
    module, attribute = home.split(":")
    return getattr(import_module(f"toolkit.agents.{module}"), attribute)
