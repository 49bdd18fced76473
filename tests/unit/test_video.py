"""Films: they open, show what was recorded, and never stand half written."""

from __future__ import annotations

import sys
from ctypes.util import find_library
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from toolkit import video
from toolkit.evaluate import Route, evaluate
from toolkit.tasks import Goal, TaskCard, load_card
from toolkit.types import ToolkitError
from toolkit.video import check_video, write_video

CARD = TaskCard(
    name="umaze-test",
    description="A corner",
    env_id="PointMaze_UMaze-v3",
    env_kwargs={"continuing_task": False},
    max_episode_steps=40,
    goal=Goal(cell=(3, 1)),
)


def make_route(*cells: tuple[int, int]) -> Route:
    """Straight lines between the centres of cells, ten steps each."""
    corners = CARD.maze.cell_to_xy(np.array(cells))
    at = np.linspace(0, len(cells) - 1, 10 * (len(cells) - 1) + 1)
    xy = np.stack([np.interp(at, range(len(cells)), corners[:, i]) for i in (0, 1)], -1).astype(np.float32)
    steps = len(xy) - 1
    return Route(0, xy, np.concatenate([xy, 0 * xy], -1), np.zeros((steps, 2), np.float32), -np.ones(steps, np.float32))


TO_GOAL, AWAY = make_route((2, 3), (3, 3), (3, 2), (3, 1)), make_route((1, 1), (1, 2))
ROUTES = [[TO_GOAL, AWAY], [AWAY, AWAY]]


def test_frames_show_maze_balls_and_the_goal_turning_green() -> None:
    frames = list(video._maze_frames(CARD, ROUTES))
    assert len({frame.shape for frame in frames}) == 1
    height, width, _ = frames[0].shape
    assert width % 2 == height % 2 == 0
    first, last_of_first = frames[0], frames[len(range(0, 31, video.STEPS_PER_FRAME))]
    side = width // 5

    def colour(frame: np.ndarray, row: float, col: float) -> str:
        return "#{:02x}{:02x}{:02x}".format(*frame[int(row * side), int(col * side)])

    assert colour(first, 0.5, 0.5) == video.WALL
    assert colour(first, 1.5, 3.5) == video.FLOOR
    assert colour(first, 3.5, 1.5) == video.GOAL
    assert colour(first, 2.5, 3.5) == video.COLOURS[0]
    assert colour(first, 1.5, 1.5) == video.COLOURS[1]
    assert colour(last_of_first, 3.5, 1.5) == video.COLOURS[0]
    assert colour(last_of_first, 3.5, 1.15) == video.REACHED  # beside the ball, and not hidden by the other seed's
    assert colour(frames[-1], 3.5, 1.5) == video.GOAL


def test_each_episode_has_its_word() -> None:
    plain, worded = list(video._maze_frames(CARD, ROUTES)), list(video._maze_frames(CARD, ROUTES, ("", "worst")))
    other = [not np.array_equal(a, b) for a, b in zip(plain, worded, strict=True)]
    first = len(range(0, 31, video.STEPS_PER_FRAME)) + video.PAUSE_FRAMES
    assert other == [False] * first + [True] * (len(plain) - first)


def test_gif_opens(tmp_path: Path) -> None:
    made = write_video(tmp_path / "deep" / "out.gif", CARD, ROUTES)
    with Image.open(made) as film:
        assert film.n_frames > 10
    assert [path.name for path in made.parent.iterdir()] == ["out.gif"]


def test_mp4_opens(tmp_path: Path) -> None:
    made = write_video(tmp_path / "out.mp4", CARD, ROUTES)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(made))
    assert frames == len(list(video._maze_frames(CARD, ROUTES)))
    assert seconds == pytest.approx(frames / video.FRAMES_PER_S, abs=0.1)


@pytest.mark.skipif(find_library("OSMesa") is None, reason="no OSMesa: apt-get install libosmesa6 (CI installs it)")
def test_a_robot_is_drawn_by_its_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Best, median and worst of two seeds, as they were played: side by side, every so many steps."""
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    size = {"width": 96, "height": 96}
    card = load_card("hopper").model_copy(update={"env_kwargs": size, "max_episode_steps": 7})
    check_video(tmp_path / "film.gif", card)
    played = evaluate(lambda inputs: np.full((*inputs.shape[:2], 3), 0.1, np.float32), card, 2, 2, record_routes=True)
    assert played.routes is not None
    monkeypatch.setattr(video, "MOST_FRAMES", 4)  # so every second step: 0, 2, 4, 6 and the last, 7
    frames = list(video._robot_frames(card, played.routes, ("best",)))
    assert len(frames) == 2 * (5 + video.PAUSE_FRAMES)
    assert {frame.shape for frame in frames} == {(video.TILE, 2 * video.TILE, 3)}
    assert frames[0].std() > 5 and np.abs(frames[0] - frames[4].astype(float)).max() > 20
    other = [[route._replace(seed=route.seed + 1) for route in seed] for seed in played.routes]
    with pytest.raises(ToolkitError, match="step 0 of an episode looks otherwise when it is played again"):
        list(video._robot_frames(card, other))
    monkeypatch.setenv("MUJOCO_GL", "paper")
    with pytest.raises(ToolkitError, match=r"Hopper-v5 cannot be drawn .* install libosmesa6 and set MUJOCO_GL=osmesa"):
        check_video(tmp_path / "film.gif", card)


def test_a_failed_film_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out.gif").write_text("before")

    def breaks(*_: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(video._Canvas, "draw", breaks)
    with pytest.raises(RuntimeError):
        write_video(tmp_path / "out.gif", CARD, ROUTES)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.gif", "before")]


def test_what_cannot_be_written_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolkitError, match=r"\.mp4 or \.gif"):
        check_video(Path("film.avi"))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ToolkitError, match=r"toolkit\[video\]"):
        check_video(Path("film.mp4"))
    check_video(Path("film.gif"))
