"""An evaluation's shares played in processes of one thread each, which end with their parent however that ends."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from toolkit.types import ToolkitError

Share = TypeVar("Share")
Result = TypeVar("Result")


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    play: Callable[[Share], Result], shares: Sequence[Share], workers: int, played: Callable[[Result], None]
) -> list[Result]:
    """`play` of each share, in their order; `played` hears of each result as it comes.

    Raises ToolkitError where `play` does not survive pickling, or a process dies.
    """
    try:
        packed = pickle.dumps(play)
    except Exception as error:
        raise ToolkitError(f"this policy cannot be sent to {workers} processes ({error}); use workers=1") from error
    executor = ProcessPoolExecutor(workers, _context(), _start, (packed,))
    futures = [executor.submit(_play, share) for share in shares]
    try:
        for future in as_completed(futures):
            played(future.result())
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise ToolkitError(f"one of {workers} evaluation processes died, out of memory?; use fewer workers") from error
    finally:
        if not all(future.done() for future in futures):  # interrupted: nobody waits for the rest of a share
            for process in list(executor._processes.values()):
                process.terminate()
        executor.shutdown(wait=True, cancel_futures=True)


def _context() -> multiprocessing.context.BaseContext:
    """Processes forked from a clean server that has done the slow imports once; spawned where there is no fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toolkit.evaluate", "toolkit.policy"])
    return context


_sent: Callable[[Any], Any]  # in a worker: what its parent sent


def _start(packed: bytes) -> None:
    import torch  # here, since collecting counts the cores without it

    global _sent
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and then ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _sent = pickle.loads(packed)  # from the parent process, never from a file


def _end_with_parent() -> None:
    """A worker waits for work on a pipe that it holds open itself: it would outlive a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _play(share: Any) -> Any:
    return _sent(share)
