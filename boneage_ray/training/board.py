"""How a training's progress comes from the workers to the terminal."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from boneage_ray.runtime.runs import ProgressLine, say
from boneage_ray.tasks.kind import ValidationFigure


class _Board:
    """An actor that passes progress from the workers to the terminal."""

    def __init__(self) -> None:
        self.text, self.lines = "", list[dict[str, Any]]()
        self.stopping, self.notes = False, list[str]()
        self.stepping = self.pausing = self.pausing_after_epoch = False

    def stop(self) -> None:
        self.stopping = True

    def begin(self) -> None:
        """Another group of workers begins: what the one before was asked is over."""
        self.stepping = self.pausing = self.pausing_after_epoch = False

    def pause(self, after_epoch: bool) -> None:
        """End the workers, to go on with more of them."""
        self.pausing, self.pausing_after_epoch = not after_epoch, after_epoch

    def state(self) -> tuple[bool, bool]:
        """Whether this group of workers has begun to train, and whether the run was asked to stop."""
        return self.stepping, self.stopping

    def step(self, loss: float, rate: float) -> bool:
        """What a worker tells of a step; whether the workers shall end."""
        shown = f"{loss:.3f}" if math.isfinite(loss) else "not known yet"
        self.text, self.stepping = f"loss {shown}, {rate:.1f} images/s", True
        return self.stopping or self.pausing

    def epoch(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        self.pausing = self.pausing or self.pausing_after_epoch

    def leaving(self) -> None:
        self.notes.append("a node is about to be taken away: a checkpoint is written, and training goes on")

    def read(self) -> tuple[str, list[dict[str, Any]], list[str]]:
        lines, notes, self.lines, self.notes = self.lines, self.notes, [], []
        return self.text, lines, notes


@contextmanager
def progress_line(total: int, figure: ValidationFigure, on_epoch: Callable[[dict[str, Any]], None]) -> Iterator[Any]:
    """Show the board of a run until it ends, and hand each epoch's line on.

    A first SIGTERM, the notice before a machine is taken away, makes the workers commit a checkpoint after the next step and end.
    A second one, and one before the first step, ends the command at once, as Ctrl-C does.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the command's own node: elsewhere a node that is lost would end the training with it. A soft affinity is none for an
    # actor without CPUs.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0)(_Board).options(scheduling_strategy=here).remote()
    done, notice = threading.Event(), _PutOffSignal()
    watcher = threading.Thread(
        target=_watch, args=(board, done, notice, ProgressLine("epochs", total), figure, on_epoch)
    )
    watcher.daemon = True
    watcher.start()
    try:
        with notice.heeded():
            yield board
    finally:
        done.set()
        watcher.join(timeout=15)
        ray.kill(board)


class _PutOffSignal:
    """A SIGTERM that is put off until the workers have committed what they do."""

    def __init__(self) -> None:
        self.came, self.stepping = threading.Event(), threading.Event()

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Handle SIGTERM in this block, if it is the main thread's."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _note(self, number: int, frame: object) -> None:
        if self.came.is_set() or not self.stepping.is_set():
            raise KeyboardInterrupt
        self.came.set()


def _watch(
    board: Any,  # noqa: ANN401
    done: threading.Event,
    notice: _PutOffSignal,
    bar: ProgressLine,
    figure: ValidationFigure,
    on_epoch: Callable[[dict[str, Any]], None],
) -> None:
    import ray

    with bar, suppress(ray.exceptions.RayActorError):
        finished, text, asked, passed_on = False, "starting workers", board.read.remote(), False
        while not finished:
            finished = done.wait(0.25)
            if notice.came.is_set() and not passed_on:
                passed_on = True
                board.stop.remote()
                say("asked to stop: a checkpoint follows after the next step")
            try:  # a board that is slow to start must not end this thread
                text, lines, notes = ray.get(asked, timeout=10 if finished else 1)
                asked = board.read.remote()
            except ray.exceptions.GetTimeoutError:
                lines, notes = [], []
            for note in notes:
                say(note)
            if lines or (text and text != "starting workers"):
                notice.stepping.set()
            for line in lines:
                rate = line["train_cases"] / max(line["train_seconds"], 1e-9)
                say(_epoch_text(line, bar.total or 0, rate, figure), **line)
                on_epoch(line)
            bar.update(max([bar.done, *(int(line["epoch"]) for line in lines)]), text)


def _epoch_text(line: dict[str, Any], total: int, rate: float, figure: ValidationFigure) -> str:
    value, name = line[figure.key], figure.name
    shown = "not finite" if value is None else f"{value:.{figure.digits}f}{figure.unit}"
    loss = f"epoch {line['epoch']}/{total}: loss {line['train_loss']:.4f}"
    return f"{loss}, validation {name} {shown}, {rate:.1f} images/s"
