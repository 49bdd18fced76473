"""Algorithms: one file each, one line each here (level 2). Torch is loaded when the first of them is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from toolkit.agents import configs
from toolkit.agents.configs import AgentConfig

if TYPE_CHECKING:
    from toolkit.agents.base import Agent

    AGENTS: dict[str, type[Agent[Any]]]

__all__ = ["AGENTS", "CONFIGS", "Agent", "AgentConfig"]

_REGISTRY: dict[str, tuple[type[AgentConfig], str]] = {
    "bc": (configs.BCConfig, "bc:BC"),
    "filtered_bc": (configs.FilteredBCConfig, "bc:FilteredBC"),
    "awr": (configs.AWRConfig, "awr:AWR"),
    "awac": (configs.AWACConfig, "awac:AWAC"),
    "iql": (configs.IQLConfig, "iql:IQL"),
    "ivl": (configs.IVLConfig, "ivl:IVL"),
    "td3_bc": (configs.TD3BCConfig, "td3_bc:TD3BC"),
    "rebrac": (configs.ReBRACConfig, "rebrac:ReBRAC"),
    "cql": (configs.CQLConfig, "cql:CQL"),
    "calql": (configs.CalQLConfig, "calql:CalQL"),
    "discrete_cql": (configs.DiscreteCQLConfig, "discrete_cql:DiscreteCQL"),
    "sac": (configs.SACConfig, "sac:SAC"),
    "td3": (configs.TD3Config, "td3:TD3"),
    "fql": (configs.FQLConfig, "fql:FQL"),
    "qc": (configs.QCConfig, "qc:QC"),
    "rlpd": (configs.RLPDConfig, "rlpd:RLPD"),
    "qc_sac": (configs.QCSACConfig, "qc:QCSAC"),
    "wsrl": (configs.WSRLConfig, "wsrl:WSRL"),
    "pex": (configs.PEXConfig, "pex:PEX"),
    "reinforce": (configs.ReinforceConfig, "policy_gradient:Reinforce"),
    "reinforce_baseline": (configs.ReinforceBaselineConfig, "policy_gradient:ReinforceBaseline"),
    "actor_critic_mc": (configs.ActorCriticMCConfig, "policy_gradient:ActorCriticMC"),
    "actor_critic_td": (configs.ActorCriticTDConfig, "policy_gradient:ActorCriticTD"),
    "actor_critic_q": (configs.ActorCriticQConfig, "policy_gradient:ActorCriticQ"),
    "gae": (configs.PolicyGradientConfig, "policy_gradient:GAE"),
    "hiql": (configs.HIQLConfig, "hiql:HIQL"),
    "qrl": (configs.QRLConfig, "qrl:QRL"),
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
