"""`boneage receive`: a DICOM node that keeps what it is sent as an archive, scores it, and sends the results back."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from boneage_ray import storage
from boneage_ray.commands.export import known_formats
from boneage_ray.commands.rounds import Rounds, go_round
from boneage_ray.commands.service import stop_signals
from boneage_ray.commands.words import line, model_places, refuse_overlap
from boneage_ray.errors import ServerError, UsageError
from boneage_ray.runtime.runs import Run, say
from boneage_ray.storage.dicomweb import client_of, is_dicomweb
from boneage_ray.storage.dimse import Receiver
from boneage_ray.storage.dimse_node import parsed_node
from boneage_ray.storage.dimse_query import fetch_all, parsed_node_query


@dataclass(frozen=True)
class ReceiveArguments:
    """Flags of `boneage receive`."""

    to: str
    allow: list[str]
    aet: str = "BONEAGE"
    host: str = "127.0.0.1"
    port: int = 11112
    model: str | None = None
    out: str | None = None
    quiet_seconds: float = 30.0
    send: str | None = None
    fetch: str | None = None


def receive(run: Run, arguments: ReceiveArguments) -> None:
    """Listen until SIGINT or SIGTERM, or until all is there that is to be fetched; the answer counts what became of the objects.

    Raises `ServerError` if at the end something is not fetched, scored or sent; the same command does it.
    """
    place = storage.absolute(arguments.to)
    query = parsed_node_query(arguments.fetch, arguments.aet) if arguments.fetch else None
    allowed = [*arguments.allow, *([query.node.title] if query else [])]
    receiver = Receiver(place, arguments.aet, allowed, say)
    storage.check_writable(place)
    rounds = _rounds(place, arguments)
    with stop_signals() as stop:
        server = receiver.start(arguments.host, arguments.port)
        where = f"{arguments.host}:{arguments.port}"
        say(f"listening as {arguments.aet} on {where} for {', '.join(allowed)}; objects: {place}")
        try:
            fetched = fetch_all(query, stop.is_set) if query else None
            if rounds and not query:
                go_round(rounds.round, lambda: receiver.kept_at, arguments.quiet_seconds, stop)
            elif not query:
                stop.wait()
        finally:
            server.shutdown()
        left = ["fetched"] if fetched and (fetched.failed or stop.is_set()) else []
    if rounds and not rounds.round():
        left.append("scored and sent")
    answer: dict[str, object] = {"kept": 0, **dict(receiver.counts.most_common())}
    answer |= {"fetched": asdict(fetched)} if fetched else {}
    following = f"Next: {line('boneage score', place, model='hand', out='SCORES', update=True)}"
    if rounds:
        answer |= {"scored": rounds.scored} | ({"sent": dict(rounds.sent)} if arguments.send else {})
        following = f"Results: {rounds.out}/results/  Report: {rounds.out}/report.html"
    run.finish(answer, f"Objects: {place}", following)
    if left:
        raise ServerError(f"not all is {' and '.join(left)}; what was received is kept, and the same command goes on")


def _rounds(place: str, arguments: ReceiveArguments) -> Rounds | None:
    """What is to be done with the objects; None if they are only kept. Raises `UsageError` for flags that do not fit."""
    if arguments.model is None:
        if arguments.out or arguments.send:
            raise UsageError("--out and --send are for results: give --model, too")
        return None
    if arguments.out is None:
        raise UsageError("--model: give --out, the place of the results")
    from boneage_ray.prediction.members import resolve

    out, models = storage.absolute(arguments.out), model_places(arguments.model)
    refuse_overlap(out, "--to", [place])
    refuse_overlap(out, "--model", models)
    resolve(models)
    return Rounds(place, arguments.model, out, _known_node(arguments.send, arguments.aet) if arguments.send else None)


def _known_node(send: str, aet: str) -> str:
    """--send with our title in it. Raises `UsageError` for no such address; the node itself may be down."""
    known_formats(["dicom-sr"])
    if is_dicomweb(send):
        client_of(send)
        return send.rstrip("/")
    return parsed_node(send, aet).uri
