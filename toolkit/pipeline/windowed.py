"""What a training stage learns from where the recording passes through memory; `material` is for the other cases."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from toolkit.agents import Agent
from toolkit.data.audit import shared
from toolkit.data.columns import Columns
from toolkit.data.imported import checked
from toolkit.data.replay import Normalizer, Replay
from toolkit.data.window import BLOCKS, Window
from toolkit.pipeline.material import Material, Trained, chosen, drawn_inputs, far_starts, refuse_long_chunks
from toolkit.pipeline.spec import TrainingStage
from toolkit.recordings import check, merge, without_motion
from toolkit.tasks import TaskCard, relabel
from toolkit.types import Episodes


def prepare_window(
    card: TaskCard, columns: Columns, agent: Agent[Any], stage: TrainingStage, rows: int, earlier: Trained | None = None
) -> Material:
    """As `material.prepare`, with at most `rows` rows of the recording in memory, but for places and rewards of all.

    The audit looks at a block at a time, and finds no episode that two of them have.
    """
    whole = stage.relabel is not None
    spans = list(pairwise(columns.spans(max(rows // BLOCKS, 1)).tolist()))

    def block(index: int) -> Episodes:
        return relabel(card, checked(columns.part(*spans[index])), whole)

    findings, parts = [], []
    for span in spans:
        imported = columns.part(*span)
        findings.append(check(imported, card))
        parts.append(without_motion(relabel(card, checked(imported), whole)))
    everything = merge(parts)
    seen = (drawn_inputs(card, block(index), whole) for index in range(len(spans)) if len(parts[index]))
    normalizer = earlier.normalizer if earlier else Normalizer.fit(seen)
    far = earlier.far_starts if earlier else far_starts(card, everything)
    kept = chosen(agent, everything)
    masks = np.split(kept, np.cumsum([len(part) for part in parts])[:-1])
    sizes = np.array([np.diff(part.starts)[mask].sum() for part, mask in zip(parts, masks, strict=True)], np.int64)
    filled = np.flatnonzero(sizes)

    def pack(index: int) -> Replay:
        episodes = block(filled[index]).select(masks[filled[index]])
        inputs = normalizer(card.inputs(episodes))
        return Replay.from_episodes(episodes, inputs, stage.gamma, card.cut_value(stage.gamma))

    window = Window(sizes[filled], pack, min(rows, int(sizes.sum())), stage.batch_size)
    refuse_long_chunks(agent, window.at(0), whole, everything.select(kept))
    return Material(normalizer, far, window, tuple(shared(findings)))
