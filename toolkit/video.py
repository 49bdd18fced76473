"""Films of recorded episodes: a maze from above, one ball a seed with its trail; any other robot as MuJoCo draws it.

The second needs OpenGL and plays the episodes again, which follow from their seeds and actions.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from toolkit.evaluate import Route
from toolkit.maze import Maze
from toolkit.tasks import TaskCard, TaskEnv, make_env
from toolkit.types import FloatArray, ToolkitError

WIDTH = 480  # pixels, about
SMOOTH = 2  # drawn this many times larger, then averaged
FRAMES_PER_S = 25
STEPS_PER_FRAME = 4  # in a maze
PAUSE_FRAMES = 10  # after each episode
TILE = 240  # pixels a seed's robot gets, each way
MOST_FRAMES = 200  # of an episode of a robot; of a longer one steps are left out
WALL, FLOOR, GOAL, REACHED = "#475569", "#f8fafc", "#fca5a5", "#86efac"
COLOURS = ("#2563eb", "#d97706", "#7c3aed", "#059669", "#db2777", "#0891b2", "#4d7c0f", "#be123c")


def check_video(path: Path, card: TaskCard | None = None) -> None:
    """Raise ToolkitError where this installation cannot write such a file, or not draw the task."""
    if path.suffix not in (".mp4", ".gif"):
        raise ToolkitError(f"{path}: expected a name that ends in .mp4 or .gif")
    if path.suffix == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise ToolkitError(
                f"{path}: .mp4 needs the video extra (pip install 'offline2online-toolkit[video]'); .gif needs nothing"
            ) from None
    if card is not None and not card.in_maze:
        try:
            with warnings.catch_warnings(action="ignore"), contextlib.closing(make_env(card, "rgb_array")) as env:
                env.reset(seed=0)
                _tile(env)
        except Exception as error:  # each way to OpenGL fails with errors of its own
            raise ToolkitError(
                f"{path}: {card.env_id} cannot be drawn ({type(error).__name__}: {error}). It has to take render_mode "
                "rgb_array and render (H, W, 3) uint8. MuJoCo needs OpenGL for that: without a screen install "
                "libosmesa6 and set MUJOCO_GL=osmesa, or with a GPU MUJOCO_GL=egl"
            ) from error


def write_video(path: Path, card: TaskCard, routes: Sequence[Sequence[Route]], words: Sequence[str] = ()) -> Path:
    """Draw routes[seed][episode] as an .mp4 or .gif: episode after episode, all seeds at once, each under its word.

    Raises ToolkitError where the name is no film's, or a simulator does not repeat an episode.
    """
    check_video(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = (_maze_frames if card.in_maze else _robot_frames)(card, routes, words)
    unfinished = path.with_name(f".{path.stem}.tmp{path.suffix}")  # a broken film never stands under the given name
    try:
        if path.suffix == ".gif":
            _write_gif(unfinished, frames)
        else:
            _write_mp4(unfinished, frames)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _write_gif(path: Path, frames: Iterator[npt.NDArray[np.uint8]]) -> None:
    first, *rest = [Image.fromarray(frame).quantize(64) for frame in frames]
    first.save(path, save_all=True, append_images=rest, duration=1000 // FRAMES_PER_S, loop=0, disposal=1)


def _write_mp4(path: Path, frames: Iterator[npt.NDArray[np.uint8]]) -> None:
    import imageio_ffmpeg

    first = next(frames)
    height, width = first.shape[:2]
    writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=FRAMES_PER_S, macro_block_size=2)
    writer.send(None)
    try:
        for frame in (first, *frames):
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()


def _maze_frames(
    card: TaskCard, routes: Sequence[Sequence[Route]], words: Sequence[str] = ()
) -> Iterator[npt.NDArray[np.uint8]]:
    """Pictures (H, W, 3) of all episodes in turn."""
    canvas = _Canvas(card.maze)
    for place, episode in enumerate(zip(*routes, strict=True)):
        word = words[place] if place < len(words) else ""
        longest = max(len(route.xy) for route in episode)
        for step in [*range(0, longest, STEPS_PER_FRAME), *[longest] * PAUSE_FRAMES]:
            yield canvas.draw(card, [route.xy[: step + 1] for route in episode], episode, word)


def _robot_frames(
    card: TaskCard, routes: Sequence[Sequence[Route]], words: Sequence[str] = ()
) -> Iterator[npt.NDArray[np.uint8]]:
    """Pictures (H, W, 3) of all episodes in turn, the seeds side by side; one that is over stands still."""
    with contextlib.closing(make_env(card, "rgb_array")) as env:
        for place, episode in enumerate(zip(*routes, strict=True)):
            longest = max(len(route.action) for route in episode)
            clips = [_clip(env, route, -(-longest // MOST_FRAMES)) for route in episode]
            for frame in range(max(map(len, clips)) + PAUSE_FRAMES):
                picture = Image.fromarray(np.concatenate([clip[min(frame, len(clip) - 1)] for clip in clips], axis=1))
                if place < len(words):
                    pen = ImageDraw.Draw(picture)
                    pen.text((8, 4), words[place], fill="white", stroke_width=1, stroke_fill="black")
                yield np.asarray(picture, np.uint8)


def _clip(env: TaskEnv, route: Route, every: int) -> list[npt.NDArray[np.uint8]]:
    """What one episode looked like, every so many steps and at its end."""
    seen, _ = env.reset(seed=route.seed)
    pictures = []
    for step, inputs in enumerate(route.inputs):
        if step:
            seen = env.step(route.action[step - 1])[0]
        if (seen["observation"].astype(np.float32) != inputs[: len(seen["observation"])]).any():
            raise ToolkitError(
                f"task {env.card.name}: step {step} of an episode looks otherwise when it is played again for the "
                "film; expected a simulator all of whose chance follows from the seed of its reset"
            )
        if step % every == 0 or step == len(route.action):
            pictures.append(_tile(env))
    return pictures


def _tile(env: TaskEnv) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(env.render()).resize((TILE, TILE), Image.Resampling.BOX), np.uint8)


class _Canvas:
    """Metres to pixels, and the maze drawn once."""

    def __init__(self, maze: Maze) -> None:
        self.maze = maze
        side = max(8, WIDTH // maze.wall.shape[1] // 2 * 2)  # of a cell in the film; even, as video codecs ask
        self.size = (side * maze.wall.shape[1], side * maze.wall.shape[0])
        self.pixels = SMOOTH * side
        blown = maze.wall.repeat(self.pixels, 0).repeat(self.pixels, 1)
        self.empty = Image.new("RGB", (blown.shape[1], blown.shape[0]), FLOOR)
        self.empty.paste(WALL, mask=Image.fromarray(blown.astype(np.uint8) * 255))

    def draw(
        self, card: TaskCard, trails: Sequence[FloatArray], routes: Sequence[Route], word: str
    ) -> npt.NDArray[np.uint8]:
        picture = self.empty.copy()
        pen = ImageDraw.Draw(picture)
        goals = [_goal(card, route) for route in routes]
        over = [len(trail) == len(route.xy) for trail, route in zip(trails, routes, strict=True)]
        for goal in goals:
            self._disc(pen, goal, card.goal.radius, GOAL)
        for trail, goal in itertools.compress(zip(trails, goals, strict=True), over):
            if card.reached(trail[-1], goal):
                self._disc(pen, goal, card.goal.radius, REACHED)
        for index, trail in enumerate(trails):
            colour = COLOURS[index % len(COLOURS)]
            if len(trail) > 1:
                pen.line([self._at(xy) for xy in trail], fill=colour, width=2 * SMOOTH, joint="curve")
            self._disc(pen, trail[-1], 0.2 * self.maze.scale, colour)
        pen.text((0.3 * self.pixels, 0.2 * self.pixels), word, fill=FLOOR, font_size=0.5 * self.pixels)  # on a wall
        return np.asarray(picture.resize(self.size, Image.Resampling.BOX), np.uint8)

    def _at(self, xy: npt.NDArray[Any]) -> tuple[float, float]:
        scale = self.pixels / self.maze.scale
        return (float(xy[0]) - self.maze.left) * scale, (self.maze.top - float(xy[1])) * scale

    def _disc(self, pen: ImageDraw.ImageDraw, xy: npt.NDArray[Any], radius: float, colour: str) -> None:
        x, y = self._at(xy)
        r = radius * self.pixels / self.maze.scale
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def _goal(card: TaskCard, route: Route) -> npt.NDArray[Any]:
    """The task's fixed goal, or the one the policy saw, which its input ends with."""
    return card.goal_xy if card.goal_xy is not None else route.inputs[0, -route.xy.shape[1] :]
