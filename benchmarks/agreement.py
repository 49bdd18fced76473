"""Whether the toolkit's algorithms come to what the same ones of other libraries come to.

    PYTHONPATH=. python benchmarks/agreement.py --only sac-pendulum,sac-pointmaze     # against Stable-Baselines3
    PYTHONPATH=. python benchmarks/agreement.py --only iql,td3_bc,cql,discrete_cql    # against d3rlpy
    PYTHONPATH=. python benchmarks/agreement.py --tiny                                # does it run at all?

Both sides get the same task, budget, networks and rates; d3rlpy also the same transitions, normalised in the same way.
Adds to benchmarks/results/agreement.json, unless another number of seeds is asked for: each side's mean over episodes
for each seed, the interquartile mean over seeds with its 95 % interval, and whether the two intervals overlap.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peers import d3rlpy_python

from toolkit.data.minari import read_minari
from toolkit.data.sampler import LEFT, REWARD, TERMINATED
from toolkit.evaluate import evaluate
from toolkit.pipeline.material import Material, make_agent, prepare, task_sizes
from toolkit.pipeline.runner import run_pipeline
from toolkit.stats import value_summary
from toolkit.strict_yaml import render
from toolkit.tasks import TaskCard, load_card, make_env, relabel
from toolkit.types import FloatArray, Json

RESULTS = Path(__file__).parent / "results" / "agreement.json"
HIDDEN, BATCH, GAMMA, RATE, POLYAK = (128, 128), 256, 0.99, 1e-3, 0.005
SEEDS = 5
EPISODES, SEED = 50, 0  # of each seed, those that the pipeline's last evaluation plays
# task, steps of practice, steps of it before the first update
PRACTICE = {"sac-pendulum": ("pendulum", 6_000, 200), "sac-pointmaze": ("pointmaze-umaze-dense", 20_000, 1_000)}
RECIPE = "mixture"
# what the two libraries call the same settings; both rates and `polyak` or `tau` are added to them
OFFLINE: dict[str, tuple[str, Json, Json]] = {
    "iql": ("IQL", {"expectile": 0.9, "beta": 3.0}, {"expectile": 0.9, "weight_temp": 3.0, "max_weight": 100.0}),
    "td3_bc": ("TD3PlusBC", {"alpha": 2.5}, {"alpha": 2.5}),
    "cql": (
        "CQL",
        {"alpha": 5.0, "lr_policy": RATE, "temperature_lr": RATE},
        # without the Lagrange multiplier, as the toolkit's CQL is by default
        {"conservative_weight": 5.0, "alpha_learning_rate": 0.0, "temp_learning_rate": RATE, "n_action_samples": 10},
    ),
    # d3rlpy halves the squares (and takes Huber's beyond 1); its target jumps in the time that ours takes to follow,
    # which is shorter here: a route has more steps than the others' targets would take
    "discrete_cql": ("DiscreteCQL", {"alpha": 1.0, "polyak": 0.02}, {"alpha": 0.5, "target_update_interval": 50}),
}
TASK = dict.fromkeys(OFFLINE, "pointmaze-umaze") | {"discrete_cql": "pointmaze-umaze-discrete"}
UPDATES = dict.fromkeys(OFFLINE, 6_000) | {"cql": 3_000, "discrete_cql": 10_000}


def main() -> None:
    options = parse_arguments()
    out = kept_in(options)
    found = json.loads(out.read_text()) if out and out.exists() else {}
    for name in options.only:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            measured = (
                practised(name, options, Path(folder)) if name in PRACTICE else learnt(name, options, Path(folder))
            )
        found[name] = measured | {"wall_s": round(time.monotonic() - began)}
        print(name, json.dumps(found[name]), flush=True)
        if out:
            out.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


def kept_in(options: Any) -> Path | None:
    """The file that results are added to: the one named, else the repository's for those that mean something."""
    usual = not options.tiny and options.seeds == SEEDS
    return options.out or (RESULTS if usual else None)


def parse_arguments(arguments: list[str] | None = None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=[*PRACTICE, *OFFLINE], type=lambda text: text.split(","), help="with commas")
    parser.add_argument("--seeds", default=SEEDS, type=int)
    parser.add_argument("--peers", type=Path, help="folder of d3rlpy's environment")
    parser.add_argument("--tiny", action="store_true", help="a few steps of everything; its numbers mean nothing")
    parser.add_argument("--out", type=Path, help="file to add the results to, whatever they are")
    return parser.parse_args(arguments)


def practised(name: str, options: Any, folder: Path) -> Json:
    """SAC from scratch, ours and Stable-Baselines3's, by mean return."""
    task, steps, first = PRACTICE[name]
    steps = 2 * first if options.tiny else steps
    config = {"lr": RATE, "lr_policy": RATE, "temperature_lr": RATE, "polyak": POLYAK}
    stage = {"kind": "online", "agent": "sac", "config": config, "env_steps": steps, "warmup_steps": first}
    stage |= {"batch_size": BATCH, "gamma": GAMMA, "final_episodes": EPISODES, "eval_every": steps, "eval_episodes": 1}
    summary = run(task, {"sac": stage}, options.seeds, folder)
    ours = summary["stages"]["sac"]["return"]["per_seed"]
    theirs = sb3_returns(load_card(task), steps, first, options.seeds)
    return {"measure": "return", "env_steps": steps, **compared(ours, theirs, "stable-baselines3")}


def run(task: str, stages: dict[str, Any], seeds: int, folder: Path) -> Json:
    """A pipeline of these stages in `folder`."""
    file = folder / "agreement.yaml"
    pipeline = {"name": "agreement", "task": task, "seeds": list(range(seeds)), "hidden": list(HIDDEN)}
    file.write_text(render({**pipeline, "stages": stages}), encoding="utf-8")
    return run_pipeline(file, out=folder / "run")


def sb3_returns(card: TaskCard, steps: int, first: int, seeds: int) -> list[float]:
    """Mean return of each seed of Stable-Baselines3's SAC after `steps` steps."""
    from gymnasium.spaces import Box
    from gymnasium.wrappers import TransformObservation
    from stable_baselines3 import SAC

    env: Any = make_env(card)
    flat: Any = TransformObservation(env, card.policy_input, Box(-np.inf, np.inf, (env.sizes.obs_dim,), np.float32))
    models = []
    for seed in range(seeds):
        model = SAC(
            "MlpPolicy", flat, learning_rate=RATE, batch_size=BATCH, gamma=GAMMA, tau=POLYAK, learning_starts=first,
            policy_kwargs={"net_arch": list(HIDDEN)}, seed=seed, device="cpu",
        )  # fmt: skip
        models.append(model.learn(steps))

    def act(inputs: FloatArray) -> FloatArray:
        pairs = zip(models, inputs, strict=True)
        return np.stack([np.asarray(model.predict(seen, deterministic=True)[0]) for model, seen in pairs])

    return evaluate(act, card, seeds, EPISODES, base_seed=SEED).ret.mean(1).tolist()


def learnt(name: str, options: Any, folder: Path) -> Json:
    """An offline algorithm, ours and d3rlpy's, by success."""
    updates = 40 if options.tiny else UPDATES[name]
    kind, ours, theirs = OFFLINE[name]
    stage = {"kind": "offline", "agent": name, "updates": updates, "batch_size": BATCH, "gamma": GAMMA}
    config: Json = {"lr": RATE, "polyak": POLYAK, **ours}
    stage |= {"config": config, "final_episodes": EPISODES}
    collect = {"kind": "collect", "recipe": RECIPE, "episodes": 100 if options.tiny else 1_000}
    summary = run(TASK[name], {"collect": collect, "train": stage}, options.seeds, folder)
    card = load_card(TASK[name])
    sizes = task_sizes(card)
    (recording,) = (folder / "run/data").glob("*/*-v0")
    material = prepare(card, recording, make_agent(name, config, sizes), GAMMA)
    settings = {"kind": kind, "config": theirs, "updates": updates, "seeds": list(range(options.seeds))}
    settings |= {"hidden": HIDDEN, "batch": BATCH, "gamma": GAMMA, "rate": RATE, "polyak": POLYAK}
    np.savez(folder / "data.npz", allow_pickle=False, **transitions(material, sizes.discrete))
    (folder / "settings.json").write_text(json.dumps(settings))
    script = Path(__file__).with_name("d3rlpy_train.py")
    subprocess.run([str(d3rlpy_python(options.peers)), str(script), str(folder)], check=True, stdout=2)
    scores = played(card, material, [folder / f"{seed}.pt" for seed in range(options.seeds)])
    cloned = float(relabel(card, read_minari(recording)).terminated.sum() / collect["episodes"])
    result = {"measure": "success", "updates": updates, "in the data": round(cloned, 3)}
    return result | compared(summary["stages"]["train"]["success"]["per_seed"], scores, "d3rlpy")


def transitions(material: Material, discrete: bool) -> dict[str, npt.NDArray[Any]]:
    """What our agents learn from, as d3rlpy wants it: the last step of an episode says how it ends."""
    assert material.replay is not None
    spec, rows = material.replay.spec, material.replay.rows[0]
    rows = rows[rows[:, LEFT] > 0]
    obs, action = rows[:, -spec.obs_dim - spec.action_dim : -spec.action_dim], rows[:, -spec.action_dim :]
    ended = rows[:, TERMINATED] != 0
    return {
        "observations": obs,
        "actions": action.argmax(-1, keepdims=True) if discrete else action,
        "rewards": rows[:, REWARD],
        "terminals": ended.astype(np.float32),
        "timeouts": ((rows[:, LEFT] == 1) & ~ended).astype(np.float32),
    }


def played(card: TaskCard, material: Material, files: list[Path]) -> list[float]:
    """Success of each policy that d3rlpy wrote as TorchScript."""
    policies = [torch.jit.load(str(file)) for file in files]
    sizes = task_sizes(card)

    def act(inputs: FloatArray) -> FloatArray:
        pairs = zip(policies, torch.from_numpy(material.normalizer(inputs)), strict=True)
        with torch.no_grad():
            action = np.stack([np.asarray(policy(seen)) for policy, seen in pairs])
        return np.eye(sizes.action_dim, dtype=np.float32)[action] if sizes.discrete else action

    return evaluate(act, card, len(files), EPISODES, base_seed=SEED).success.mean(1).tolist()


def compared(ours: list[float], theirs: list[float], library: str) -> Json:
    """Both sides, and whether their intervals overlap."""
    sides = {"toolkit": ours, library: theirs}
    found: Json = {}
    for name, values in sides.items():
        found[name] = value_summary([[value] for value in values])
        found[name]["per_seed"] = [None if x is None else round(x, 4) for x in found[name]["per_seed"]]
    (a, b), (c, d) = (side["ci95"] for side in found.values())
    versions = {"torch": version("torch")} | ({library: version(library)} if library != "d3rlpy" else {})
    return found | {
        "overlap": None if None in (a, c) else bool(a <= d and c <= b),
        "versions": versions,
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


if __name__ == "__main__":
    main()
