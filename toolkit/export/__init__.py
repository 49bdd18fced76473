"""Policies for other programs: TorchScript, ONNX, safetensors, Stable-Baselines3 (level 4)."""

from toolkit.export.run import FORMATS, export_run

__all__ = ["FORMATS", "export_run"]
