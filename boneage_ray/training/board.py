"""How a training's progress comes from the workers to the terminal."""

from __future__ import annotations

import math
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

    def step(self, loss: float, rate: float) -> None:
        shown = f"{loss:.3f}" if math.isfinite(loss) else "not known yet"
        self.text = f"loss {shown}, {rate:.1f} images/s"

    def epoch(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def read(self) -> tuple[str, list[dict[str, Any]]]:
        lines, self.lines = self.lines, []
        return self.text, lines


@contextmanager
def progress_line(total: int, figure: ValidationFigure, on_epoch: Callable[[dict[str, Any]], None]) -> Iterator[Any]:
    """Show the board of a run until it ends, and hand each epoch's line on."""
    import ray

    board = ray.remote(num_cpus=0)(_Board).remote()
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(board, done, total, figure, on_epoch), daemon=True)
    watcher.start()
    try:
        yield board
    finally:
        done.set()
        watcher.join(timeout=15)
        ray.kill(board)


def _watch(
    board: Any,  # noqa: ANN401
    done: threading.Event,
    total: int,
    figure: ValidationFigure,
    on_epoch: Callable[[dict[str, Any]], None],
) -> None:
    import ray

    with ProgressLine("epochs", total) as bar, suppress(ray.exceptions.RayActorError):
        finished, text, asked = False, "starting workers", board.read.remote()
        while not finished:
            finished = done.wait(0.5)
            try:  # a board that is slow to start must not end this thread
                text, lines = ray.get(asked, timeout=10 if finished else 1)
                asked = board.read.remote()
            except ray.exceptions.GetTimeoutError:
                lines = []
            for line in lines:
                rate = line["train_cases"] / max(line["train_seconds"], 1e-9)
                say(_epoch_text(line, total, rate, figure), **line)
                on_epoch(line)
            bar.update(max([bar.done, *(int(line["epoch"]) for line in lines)]), text)


def _epoch_text(line: dict[str, Any], total: int, rate: float, figure: ValidationFigure) -> str:
    value, name = line[figure.key], figure.name
    shown = "not finite" if value is None else f"{value:.{figure.digits}f}{figure.unit}"
    loss = f"epoch {line['epoch']}/{total}: loss {line['train_loss']:.4f}"
    return f"{loss}, validation {name} {shown}, {rate:.1f} images/s"
