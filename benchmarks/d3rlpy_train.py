"""Train one of d3rlpy's algorithms on exported transitions; run by `agreement.py` in d3rlpy's own environment.

FOLDER holds `data.npz` and `settings.json`; each seed's policy is left there as TorchScript, `SEED.pt`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import d3rlpy
import numpy as np


def main(folder: Path) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    data = d3rlpy.dataset.MDPDataset(**np.load(folder / "data.npz"))
    encoder = d3rlpy.models.VectorEncoderFactory(settings["hidden"])
    parts: dict[str, Any]
    if settings["kind"] == "DiscreteCQL":
        parts = {"learning_rate": settings["rate"], "encoder_factory": encoder}
    else:
        parts = {"actor_learning_rate": settings["rate"], "critic_learning_rate": settings["rate"]}
        parts |= {"actor_encoder_factory": encoder, "critic_encoder_factory": encoder, "tau": settings["polyak"]}
    if settings["kind"] == "IQL":
        parts["value_encoder_factory"] = encoder
    config = getattr(d3rlpy.algos, f"{settings['kind']}Config")(
        batch_size=settings["batch"], gamma=settings["gamma"], **parts, **settings["config"]
    )
    for seed in settings["seeds"]:
        d3rlpy.seed(seed)
        algorithm = config.create(device="cpu")
        algorithm.build_with_dataset(data)
        for _ in range(settings["updates"]):
            algorithm.update(data.sample_transition_batch(settings["batch"]))
        algorithm.save_policy(str(folder / f"{seed}.pt"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
