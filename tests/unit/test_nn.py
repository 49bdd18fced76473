"""What networks promise whatever the hardware multiplies."""

from __future__ import annotations

import pytest
import torch

from toolkit import nn


def test_values_keep_their_digits_where_hidden_layers_are_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Near -80 bfloat16 has steps of 0.5, half of what a step of the robot costs."""
    p = nn.init_mlp([4, 64, 64, 1], torch.Generator().manual_seed(0))
    p["w1"][:, 0], p["b1"][0], p["w2"][0] = 0.0, 1.0, -80.0  # from the last product, not added to it
    x = torch.randn(512, 4, generator=torch.Generator().manual_seed(1))
    exact = nn.mlp(p, x)
    monkeypatch.setattr(nn, "_matmul_dtype", torch.bfloat16)
    assert 0 < (nn.mlp(p, x) - exact).abs().max() < 0.05
