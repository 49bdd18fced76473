"""The maze from above: what the data shows, and the ways the policy went."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from toolkit.files import write_text
from toolkit.maze import Maze
from toolkit.report.chart import Figure
from toolkit.report.run import Run, Stage, real
from toolkit.report.svg import tag
from toolkit.types import Episodes, Floats, Json, ToolkitError

CELL = 100  # pixels a side
MOST_PIECES = 180
MOST_ROUTES = 90
TOLERANCE = 2.0  # pixels a drawn line may differ from the recorded one


def maze_figures(run: Run) -> list[Figure]:
    """The data's pieces, then the routes before and after, as far as they were recorded."""
    with_routes = [stage for stage in run.stages if stage.routes and stage.routes.get("maze")]
    if not with_routes:
        return []
    last = with_routes[-1]
    first = run.before if run.before in with_routes and run.before is not last else None
    figures = [_pieces_figure(_recording(run, last), last.routes or {})]
    figures += [_routes_figure(stage) for stage in (first, last) if stage]
    return [figure for figure in figures if figure]


def _recording(run: Run, stage: Stage) -> Json:
    """Pieces of the recording that tells which cells are far for a stage: that of the first one it goes on from."""
    stages = {stage.name: stage for stage in run.stages}
    while (source := stage.start or ["", *stage.plan.get("of", ())][-1]) in stages:
        stage = stages.pop(source)
    recorded = {name: found.pieces for name, found in stages.items() if found.pieces and found.pieces.get("pieces")}
    named = recorded.get(str(stage.plan.get("data")))
    return named or next(iter(recorded.values()), None) or {}


def _pieces_figure(found: Json, layout: Json) -> Figure | None:
    if not found:
        return None
    pieces = found["pieces"]
    flags = found.get("reaches_goal") or []
    reaches = [bool(flags[place]) if place < len(flags) else False for place in range(len(pieces))]
    board = _Board(layout)
    final = _spread([place for place, reached in enumerate(reaches) if reached], MOST_PIECES // 4)
    others = _spread([place for place, reached in enumerate(reaches) if not reached], MOST_PIECES - len(final))
    shown = [*others, *final]
    drawn = [
        board.path(pieces[place], "piece reaches" if reaches[place] else f"piece line{1 + place % 6}", "")
        for place in shown
    ]
    caption = f"A choice of {len(shown)} recorded pieces."
    caption += " None joins a shaded cell to the goal." if board.far else ""
    legend = [("reaches", "reaches the goal")] if any(reaches) else []
    return Figure("What the data shows", caption, board.picture(drawn, "Recorded pieces in the maze"), legend)


def _routes_figure(stage: Stage) -> Figure | None:
    layout = stage.routes or {}
    routes = [route for route in layout.get("routes", []) if len(route.get("xy", [])) > 1]
    if not routes:
        return None
    board = _Board(layout)
    seeds = sorted({int(route.get("seed", 0)) for route in routes})
    lost = [route for route in routes if not route.get("success")]
    reached = [route for route in routes if route.get("success")]
    shown = _spread(reached, MOST_ROUTES) + _spread(lost, MOST_ROUTES)
    drawn = []
    for route in shown:
        seed = int(route.get("seed", 0))
        ending = "reached the goal" if route.get("success") else "did not reach the goal"
        style = f"route line{1 + seeds.index(seed) % 6}" + ("" if route.get("success") else " lost")
        drawn.append(board.path(route["xy"], style, f"seed {seed}, {ending}"))
        drawn.append(board.dot(route["xy"][0], f"start fill{1 + seeds.index(seed) % 6}"))
        if not route.get("success"):
            drawn.append(board.cross(route["xy"][-1]))
    legend = [(f"fill{1 + place % 6}", f"seed {seed}") for place, seed in enumerate(seeds)]
    if lost:
        legend.append(("lost", "lost the way"))
    caption = f"{len(reached)} of {len(routes)} recorded routes reach the goal."
    title = f"Routes after {stage.name}"
    return Figure(title, caption, board.picture(drawn, f"{title}: {caption}"), legend)


def write_coverage(path: Path, maze: Maze, goal: Any, episodes: Episodes) -> Path:
    """Draw recorded episodes in their maze into an .svg that stands alone; `goal` is (x, y), or None for many.

    Raises ToolkitError where the data has no positions.
    """
    if episodes.achieved.shape[1] != 2:
        raise ToolkitError(f"expected achieved goals (x, y) to draw, got {episodes.achieved.shape[1]} numbers")
    board = _Board({**maze.layout(), "goal": None if goal is None else list(goal)})
    drawn = []
    for e in _spread(range(len(episodes)), MOST_PIECES):
        rows = slice(episodes.starts[e], episodes.starts[e + 1])
        style = "piece reaches" if episodes.terminated[rows].any() else f"piece line{1 + e % 6}"
        drawn.append(board.path(episodes.achieved[rows], style, ""))
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    picture = board.picture(drawn, "Recorded episodes in the maze")
    text = str(picture).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    text = text.replace("<rect ", f"<style><![CDATA[{css}]]></style><rect ", 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, text)


def route_figures(run: Run) -> list[Figure]:
    """One route with the most stitches, each piece in the colour of the trajectory it comes from."""
    return [_route_figure(found["example"]) for found in run.stitching if found.get("example")]


def _route_figure(example: Json) -> Figure:
    board = _Board(example)
    lines = [f"line{1 + place % 6}" for place in range(len(example["pieces"]))]
    words = [f"trajectory {piece['episode']}" for piece in example["pieces"]]
    drawn = [
        board.path(piece["xy"], f"route {line}", word)
        for piece, line, word in zip(example["pieces"], lines, words, strict=True)
    ]
    drawn += [board.dot(piece["xy"][0], f"start fill{1 + place % 6}") for place, piece in enumerate(example["pieces"])]
    count = example["stitches"]
    caption = f"A route that needs {count} {'stitch' if count == 1 else 'stitches'}, from the recording alone."
    legend = [(f"fill{1 + place % 6}", word) for place, word in enumerate(words)]
    return Figure("Pieces of one route", caption, board.picture(drawn, f"Pieces of one route: {caption}"), legend)


class _Board:
    """Walls, goal and far starts; metres to pixels as `Maze` lays out its map."""

    def __init__(self, layout: Json) -> None:
        self.walls = np.array([[entry in (1, "1") for entry in row] for row in layout["maze"]])  # (H, W)
        self.height, self.width = self.walls.shape
        self.scale = real(layout.get("scale", 1.0))
        self.centre = np.array([real(number) for number in layout.get("centre", (0.0, 0.0))])
        self.goal = layout.get("goal")
        self.radius = real(layout.get("radius", 0.45))
        self.far = [(int(row), int(col)) for row, col in layout.get("far_starts") or []]

    def pixels(self, xy: Any) -> Floats:
        """(T, 2) metres to (T, 2) pixels, points without a value dropped."""
        points = np.asarray(xy, np.float64).reshape(-1, 2)
        points = (points[np.isfinite(points).all(1)] - self.centre) / self.scale
        return np.stack([points[:, 0] + self.width / 2, self.height / 2 - points[:, 1]], axis=1) * CELL

    def path(self, xy: Any, style: str, title: str) -> Markup:
        points = _simplified(self.pixels(xy), TOLERANCE).round().astype(int)
        if len(points) < 2:
            return Markup()
        moves = "".join(f" {dx} {dy}" for dx, dy in np.diff(points, axis=0))
        words = tag("title", title) if title else ""
        return tag("path", words, class_=style, d=f"M{points[0, 0]} {points[0, 1]}l{moves[1:]}")

    def dot(self, xy: Any, style: str) -> Markup:
        return Markup("").join(tag("circle", class_=style, cx=x, cy=y, r=9) for x, y in self.pixels([xy]).tolist())

    def cross(self, xy: Any) -> Markup:
        ends = self.pixels([xy]).tolist()
        return Markup("").join(
            tag("path", class_="end", d=f"M{x - 9:.0f} {y - 9:.0f}l18 18m-18 0l18 -18") for x, y in ends
        )

    def picture(self, drawn: Iterable[Markup], words: str) -> Markup:
        """Walls below, marks and lines above."""
        size = {"width": CELL, "height": CELL}
        floor = tag("rect", class_="floor", width=self.width * CELL, height=self.height * CELL)
        far = [tag("rect", class_="far", x=col * CELL, y=row * CELL, **size) for row, col in self.far]
        # One path for all walls: neighbours drawn apart would show a seam between them.
        cells = np.argwhere(self.walls).tolist()
        walls = tag(
            "path", class_="wall", d="".join(f"M{c * CELL} {r * CELL}h{CELL}v{CELL}h-{CELL}z" for r, c in cells)
        )
        target = []
        if self.goal is not None and len(self.pixels([self.goal])):
            x, y = self.pixels([self.goal])[0].tolist()
            radius = self.radius / self.scale * CELL
            target = [
                tag("circle", tag("title", "goal"), class_="goal", cx=x, cy=y, r=radius),
                tag("path", class_="star", d=_star(x, y, 22)),
            ]
        # Half of the outer wall is enough of it.
        box = f"{CELL // 2} {CELL // 2} {(self.width - 1) * CELL} {(self.height - 1) * CELL}"
        return tag("svg", floor, *far, walls, *drawn, *target, viewBox=box, role="img", aria_label=words, class_="maze")


def _star(x: float, y: float, radius: float) -> str:
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    size = np.where(np.arange(10) % 2, 0.42, 1.0) * radius
    points = zip(x + size * np.cos(angle), y + size * np.sin(angle), strict=True)
    return "M" + "L".join(f"{px:.0f} {py:.0f}" for px, py in points) + "Z"


def _spread(items: Sequence[Any] | range, most: int) -> list[Any]:
    """At most `most` of the items, evenly chosen."""
    if len(items) <= most:
        return list(items)
    return [items[place] for place in np.linspace(0, len(items) - 1, most).round().astype(int)]


def _simplified(points: Floats, tolerance: float) -> Floats:
    """Fewer points (T', 2), none of the dropped ones farther than `tolerance` off the line (Douglas, Peucker)."""
    if len(points) < 3:
        return points
    keep = np.zeros(len(points), np.bool_)
    keep[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        base, along = points[first], points[last] - points[first]
        inner = points[first + 1 : last] - base
        length = float(np.hypot(*along))
        if length > 0:
            place = np.clip(inner @ along / length**2, 0, 1)[:, None]
            inner = inner - place * along
        distance = np.hypot(inner[:, 0], inner[:, 1])
        worst = int(distance.argmax())
        if distance[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return points[keep]
