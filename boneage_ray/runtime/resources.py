"""What a cluster has, and how much of that a run takes."""

from __future__ import annotations

from dataclasses import dataclass

from boneage_ray.errors import UsageError
from boneage_ray.runtime import autoscaler

MOST_PARTS_AHEAD = 256


@dataclass(frozen=True)
class Resources:
    """The resources of a run: number of actors, and the CPUs, GPUs and threads of each.

    `most`: actors that the run has use for, if an autoscaler can add so many nodes; 0 where none adds any.
    """

    actors: int
    gpus_per_actor: float
    threads: int
    cluster_cpus: int
    most: int = 0

    @property
    def grows(self) -> bool:
        """Whether more actors may come during the run."""
        return self.most > self.actors

    def describe(self) -> str:
        """One line for the log."""
        device = f"{self.gpus_per_actor:g} GPU each" if self.gpus_per_actor else "on CPU"
        more = f", up to {self.most} as the cluster grows" if self.grows else ""
        return f"{self.actors} actor(s){more}, {self.threads} thread(s), {device}; the cluster has {self.cluster_cpus} CPU(s)"


def offers() -> dict[str, float]:
    """CPUs, GPUs and nodes of the connected cluster, for run.json."""
    import ray

    have = ray.cluster_resources()
    return {"cpus": have.get("CPU", 0.0), "gpus": have.get("GPU", 0.0), "nodes": float(len(ray.nodes()))}


def offered_cpus() -> int:
    """CPUs of the connected cluster, at least 1; of one that grows, as many as it may have within reason."""
    import ray

    now = max(1, int(ray.cluster_resources().get("CPU", 1)))
    return max(now, MOST_PARTS_AHEAD) if autoscaler.is_there() else now


def choose_resources(parts: int, gpu: bool = False) -> Resources:
    """One actor per core (with `gpu`, per GPU), at most one per part. Raises `UsageError` if there is no GPU."""
    import ray

    check_gpu(gpu)
    have = ray.cluster_resources()
    cpus, gpus = max(1, int(have.get("CPU", 1))), int(have.get("GPU", 0))
    actors = max(1, min(gpus if gpu else cpus, parts))
    grown = min(parts, MOST_PARTS_AHEAD) if parts > actors and autoscaler.is_there() else 0
    threads = max(1, cpus // gpus) if gpu else 1
    return Resources(actors, 1.0 if gpu else 0.0, threads, cpus, grown if grown > actors else 0)


def check_gpu(gpu: bool) -> None:
    """Raise `UsageError` if a GPU is asked for and the cluster has none (`nodes.wait_for` waits for one that may come)."""
    import ray

    if gpu and not ray.cluster_resources().get("GPU", 0):
        raise UsageError("--gpu: the cluster has no GPU; omit the flag to run on CPUs")


def check_workers(workers: int, gpu: bool, cpus: float) -> None:
    """Raise `UsageError` for a request that a cluster which does not grow can never satisfy."""
    import ray

    if workers < 1:
        raise UsageError(f"--workers {workers}: at least 1 is needed")
    if autoscaler.is_there():
        return
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if gpu and workers > gpus:
        raise UsageError(f"--gpu --workers {workers}: the cluster has {gpus} GPU(s); give at most that many workers")
    if not gpu and workers > 4 * cpus:
        raise UsageError(f"--workers {workers}: the cluster has {cpus:g} CPU(s); give at most {int(cpus)} workers")
