"""Hyper-parameters of every algorithm. Knows no torch, so that a wrong one is refused before torch is loaded."""

from toolkit.agents.configs.actor_critic import (
    CalQLConfig,
    CQLConfig,
    DiscreteCQLConfig,
    FQLConfig,
    QCConfig,
    QCSACConfig,
    ReBRACConfig,
    RLPDConfig,
    SACConfig,
    TD3BCConfig,
    TD3Config,
    WSRLConfig,
)
from toolkit.agents.configs.base import AgentConfig
from toolkit.agents.configs.goals import HIQLConfig, QRLConfig
from toolkit.agents.configs.imitation import (
    AWACConfig,
    AWRConfig,
    BCConfig,
    FilteredBCConfig,
    IQLConfig,
    IVLConfig,
    PEXConfig,
)
from toolkit.agents.configs.policy_gradient import (
    ActorCriticMCConfig,
    ActorCriticQConfig,
    ActorCriticTDConfig,
    PolicyGradientConfig,
    ReinforceBaselineConfig,
    ReinforceConfig,
)

__all__ = [
    "AWACConfig",
    "AWRConfig",
    "ActorCriticMCConfig",
    "ActorCriticQConfig",
    "ActorCriticTDConfig",
    "AgentConfig",
    "BCConfig",
    "CQLConfig",
    "CalQLConfig",
    "DiscreteCQLConfig",
    "FQLConfig",
    "FilteredBCConfig",
    "HIQLConfig",
    "IQLConfig",
    "IVLConfig",
    "PEXConfig",
    "PolicyGradientConfig",
    "QCConfig",
    "QCSACConfig",
    "QRLConfig",
    "RLPDConfig",
    "ReBRACConfig",
    "ReinforceBaselineConfig",
    "ReinforceConfig",
    "SACConfig",
    "TD3BCConfig",
    "TD3Config",
    "WSRLConfig",
]
