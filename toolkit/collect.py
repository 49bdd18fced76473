"""Collecting a data set: a recipe's scripted controllers drive a task's simulator, and Minari gets the episodes.

An episode depends on the seed and its own index only, so the data set has the same bytes for any number of workers.
Workers are plain Python processes that run this module; they import no torch and hand blocks of episodes back as
files, which the parent writes in order while they go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import toolkit
from toolkit.config import dump
from toolkit.controllers import Recipe
from toolkit.data.minari import dataset_path
from toolkit.data.minari_writer import RecordedEpisode, write_minari
from toolkit.recorder import PLACE, Block, Lost, Recorder
from toolkit.tasks import TaskCard, TaskEnv, make_env
from toolkit.types import Failed, Json, Progress, ToolkitError

BLOCK = 25  # episodes handed over at once
DISTRIBUTION = "offline2online-toolkit"


def dataset_id(recipe: Recipe, card: TaskCard) -> str:
    """Minari id of the data set a recipe makes for a task: pointmaze/medium-stitch-v0."""
    family, _, variant = card.name.partition("-")
    return f"{family}/{variant + '-' if variant else ''}{recipe.name}-v0"


def collect(
    recipe: Recipe,
    card: TaskCard,
    out: Path,
    seed: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
    replace: bool = False,
) -> Path:
    """Record `recipe.episodes` episodes of the task below the Minari root `out`; the data set's folder.

    An episode in which simulator, controller or process fails is left out: a line on standard error names it, and the
    data set's metadata does. Raises ToolkitError where the data set exists already, unless `replace`, or nothing is to
    be kept, and Failed where more than a tenth of the episodes fail, and more than ten or all.
    """
    name = dataset_id(recipe, card)
    card = card.model_copy(update={"max_episode_steps": recipe.max_episode_steps})
    env = make_env(card)
    handover = _handover(out, name)
    Recorder(recipe, env, seed).check()
    about = _describe(recipe, card, seed)

    def drop(lost: Lost) -> None:
        found: list[Json] = about["toolkit"]["lost"]
        found.append(lost._asdict())
        where = f"{card.name}: episode {lost.episode}, seed {lost.seed}, step {lost.step}: {lost.reason}"
        print(f"{where}; the episode is left out", file=sys.stderr)
        if len(found) > recipe.episodes // 10 and len(found) > min(10, recipe.episodes - 1):
            raise Failed(f"{len(found)} episodes failed, the last one in {where}")

    if workers <= 1:
        blocks = _record_here(recipe, env, seed, drop)
    else:
        blocks = _record_apart(recipe, card, seed, workers, handover, drop)

    def episodes() -> Iterator[RecordedEpisode]:
        kept = 0
        with contextlib.closing(blocks):
            for (_, played), block in zip(_blocks(recipe.episodes), blocks, strict=True):
                yield from block
                kept += len(block)
                if progress:
                    progress(played, recipe.episodes)
        if not kept:
            raise ToolkitError(
                f"recipe {recipe.name}: keep: {recipe.keep}: none of {recipe.episodes} episodes is such a one"
            )

    return write_minari(
        episodes(),
        name,
        out,
        observation_space=env.observation_space if env.achieved_dim else env.observation_space["observation"],
        action_space=env.actions.recorded,
        env_spec=env.env_spec.to_json(),
        metadata=about,
        replace=replace,
    )


def _handover(out: Path, name: str) -> Path:
    """Hidden folder beside the data set where workers leave their blocks."""
    target = dataset_path(name, out)
    folder = target.with_name(f".{target.name}.blocks")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    return folder


def _blocks(episodes: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, episodes)) for start in range(0, episodes, BLOCK)]


def _record_here(recipe: Recipe, env: TaskEnv, seed: int, drop: Callable[[Lost], None]) -> Generator[Block, None, None]:
    recorder = Recorder(recipe, env, seed)
    for start, stop in _blocks(recipe.episodes):
        block, lost = recorder.block(start, stop)
        for episode in lost:
            drop(episode)
        yield block


def _record_apart(
    recipe: Recipe, card: TaskCard, seed: int, workers: int, folder: Path, drop: Callable[[Lost], None]
) -> Generator[Block, None, None]:
    """Blocks in order; block k is recorded by worker process k % W, which prints a line when the file is there.

    The episode in which a worker dies is dropped, and another worker goes on after it.
    """
    blocks = _blocks(recipe.episodes)
    workers = min(workers, len(blocks))
    folder.mkdir(parents=True, exist_ok=True)
    skip: list[int] = []

    def start_worker(first: int) -> Any:
        """A process for every W-th block from number `first` on."""
        place = folder / f"place-{first % workers}"
        np.full(PLACE, -1).tofile(place)
        job = {"recipe": dump(recipe), "card": dump(card), "seed": seed, "folder": str(folder), "place": str(place)}
        return _start({**job, "blocks": blocks[first::workers], "skip": skip})

    processes = []
    try:
        for worker in range(workers):
            processes.append(start_worker(worker))
        for number, (start, stop) in enumerate(blocks):
            worker = number % workers
            while not (line := processes[worker].stdout.readline()):
                status = processes[worker].wait()
                episode, env_seed, step = np.fromfile(folder / f"place-{worker}", np.int64).tolist()
                if not start <= episode < stop or episode in skip:
                    raise Failed(
                        f"collection worker {worker} ended with status {status} while recording episodes {start} to "
                        f"{stop - 1}; what it printed is above"
                    )
                drop(Lost(episode, env_seed, step, f"its process ended with status {status}"))
                skip.append(episode)
                processes[worker].stdout.close()
                processes[worker] = start_worker(number)
            for lost in json.loads(line):
                drop(Lost(*lost))
            yield _load(folder / f"{start}.npz")
    finally:
        for process in processes:
            process.terminate()
            process.wait()
            process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def _start(job: Json) -> Any:
    """A worker process with its job on standard input; -P keeps the user's folder out of its imports."""
    paths = [str(Path(toolkit.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "toolkit.collect"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    with process.stdin as stdin:
        json.dump(job, stdin)
    return process


def _work() -> None:
    """A worker's life: a job in, blocks of episodes out as files, a line for each. Ends when nobody listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C and ends its workers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a controller or the simulator prints is no answer
    os.nice(5)  # who writes what they record goes first, or their files pile up and it writes on alone at the end
    job = json.load(sys.stdin)
    recipe, card = Recipe.model_validate(job["recipe"]), TaskCard.model_validate(job["card"])
    place = np.memmap(job["place"], np.int64, "r+", shape=PLACE)  # outlives this process
    recorder = Recorder(recipe, make_env(card), job["seed"], place)
    for start, stop in job["blocks"]:
        block, lost = recorder.block(start, stop, tuple(job["skip"]))
        _save(Path(job["folder"]) / f"{start}.npz", block)
        try:
            print(json.dumps(lost), file=answers, flush=True)
        except BrokenPipeError:
            os._exit(1)


def _save(path: Path, block: Block) -> None:
    keys = block[0].observations if block else ()
    arrays = {f"observations/{key}": [e.observations[key] for e in block] for key in keys}
    arrays |= {key: [getattr(e, key) for e in block] for key in ("actions", "rewards", "terminations", "truncations")}
    packed: dict[str, Any] = {key: np.concatenate(rows) for key, rows in arrays.items() if rows}
    np.savez(path, seed=np.array([e.seed for e in block], np.int64), length=[len(e.rewards) for e in block], **packed)


def _load(path: Path) -> Block:
    with np.load(path, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    path.unlink()
    seeds, lengths = arrays.pop("seed"), arrays.pop("length").astype(np.int64)
    parts = {
        key: np.split(rows, np.cumsum(lengths + key.startswith("observations/"))[:-1]) for key, rows in arrays.items()
    }
    return [
        RecordedEpisode(
            seed=int(seed),
            observations={key.partition("/")[2]: parts[key][i] for key in parts if key.startswith("observations/")},
            **{key: parts[key][i] for key in ("actions", "rewards", "terminations", "truncations")},
        )
        for i, seed in enumerate(seeds)
    ]


def _describe(recipe: Recipe, card: TaskCard, seed: int) -> Json:
    """Metadata that says how to make the same data again."""
    packages = ("mujoco", "gymnasium", "gymnasium-robotics")
    requirements = [f"{name}=={version(name)}" for name in packages]
    return {
        "algorithm_name": f"scripted controllers, recipe {recipe.name}",
        "description": f"{recipe.description}. Actions, rewards, terminations and truncations follow the task card "
        "below, not the environment of env_spec.",
        "requirements": [*requirements, f"{DISTRIBUTION}=={toolkit.__version__}"],
        "toolkit": {
            "version": toolkit.__version__,
            "seed": seed,
            "recipe": dump(recipe),
            "task": dump(card),
            "lost": [],
        },
    }


if __name__ == "__main__":
    _work()
