"""`boneage receive`: a DICOM node that keeps what it is sent as an archive, for `boneage score --update`."""

from __future__ import annotations

from dataclasses import dataclass

from boneage_ray import storage
from boneage_ray.commands.service import stop_signals
from boneage_ray.commands.words import quoted
from boneage_ray.runtime.runs import Run, say
from boneage_ray.storage.dimse import Receiver


@dataclass(frozen=True)
class ReceiveArguments:
    """Flags of `boneage receive`."""

    to: str
    allow: list[str]
    aet: str = "BONEAGE"
    host: str = "127.0.0.1"
    port: int = 11112


def receive(run: Run, arguments: ReceiveArguments) -> None:
    """Listen until SIGINT or SIGTERM; the answer counts what became of the objects."""
    place = storage.absolute(arguments.to)
    receiver = Receiver(place, arguments.aet, arguments.allow, say)
    storage.check_writable(place)
    with stop_signals() as stop:
        server = receiver.start(arguments.host, arguments.port)
        where = f"{arguments.host}:{arguments.port}"
        say(f"listening as {arguments.aet} on {where} for {', '.join(arguments.allow)}; objects: {place}")
        try:
            stop.wait()
        finally:
            server.shutdown()
    counts = {"kept": 0, **dict(receiver.counts.most_common())}
    run.finish(counts, f"Objects: {place}", f"Next: boneage score {quoted(place)} --model hand --out SCORES --update")
