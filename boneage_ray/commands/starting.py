"""What commands do before their work begins: look at the tables, and join or start Ray."""

from __future__ import annotations

from typing import Any

from boneage_ray.archives.archive import Archive
from boneage_ray.archives.notes import caution_of_labels, cautions
from boneage_ray.archives.tables import cautions_in_words, in_words
from boneage_ray.runtime import cluster, nodes, resources
from boneage_ray.runtime.runs import Run, say


def say_cautions(manifest: dict[str, Any]) -> None:
    """Say before training what of the labels must be looked at."""
    for text in cautions(manifest.get("tables", {"read": []})["read"]):
        say(text)


def check_tables(run: Run, archive: Archive, learns: bool = True) -> None:
    """Say and record what is taken from which column, before any file is read; refuse tables that belong to no file."""
    if not learns:
        caution_of_labels(archive.accounts)
    for account in archive.accounts:
        for text in (in_words(account), *cautions_in_words(account)):
            say(text)
    run.note(tables=archive.accounts)
    archive.check_join()


def join_ray(run: Run) -> float:
    """Join or start Ray, and note in run.json what it offers."""
    cpus = cluster.connect()
    run.note(cluster=resources.offers())
    return cpus


def check_group(batch_size: int, workers: int, least: int) -> None:
    """Raise `UsageError` for --workers and --min-workers (0: not given) that cannot share a batch, before anything is begun."""
    from boneage_ray.training import elastic
    from boneage_ray.training.feed import shared_batch

    if least:
        elastic.sizes(shared_batch(batch_size, workers), workers, least)


def wait_for_group(workers: int, least: int, gpu: bool, cpus: float) -> None:
    """Wait for the GPUs of the fewest workers. Raises `UsageError` if the cluster will never have room for them."""
    from boneage_ray.training import elastic

    needed, flag = (least, "--min-workers") if least else (workers, "--workers")
    resources.check_workers(needed, gpu, cpus, flag, 1 / elastic.CPU_OF_EACH if least else 4.0)
    if gpu:
        nodes.wait_for("GPU", needed, f"--gpu {flag} {needed}")
