"""What a cluster has, and how much of that a run takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

from boneage_ray.errors import UsageError
from boneage_ray.runtime import autoscaler

MOST_PARTS_AHEAD = 256
ACTOR_CPUS = 0.5
# Where a pool may grow, Ray fills the nodes that come with as many actors as fit: one a core, with room for the listing.
FULL_ACTOR_CPUS = 0.75
# Of workers that predict elsewhere, so many a core: while one waits for its last answer and commits, another one decodes.
STAGE_WORKERS = 1.25

Shape = Literal["auto", "fused", "two-stage"]


@dataclass(frozen=True)
class Resources:
    """The resources of a run: number of actors, and the CPUs, GPUs and threads of each.

    `most`: actors that the run has use for, if an autoscaler can add so many nodes; 0 where none adds any. `predictors`: further
    actors, each on a GPU, that predict for those (two stages); 0 where every actor predicts itself (fused).
    """

    actors: int
    gpus_per_actor: float
    threads: int
    cluster_cpus: int
    most: int = 0
    predictors: int = 0

    @property
    def shape(self) -> Shape:
        """In how many stages the actors work."""
        return "two-stage" if self.predictors else "fused"

    @property
    def cpus_per_actor(self) -> float:
        """What Ray sets aside for each; never all of a core, of which the listing needs a quarter."""
        return FULL_ACTOR_CPUS if self.grows or self.predictors else ACTOR_CPUS

    @property
    def grows(self) -> bool:
        """Whether more actors may come during the run."""
        return self.most > self.actors

    def describe(self) -> str:
        """One line for the log."""
        device = f"{self.gpus_per_actor:g} GPU each" if self.gpus_per_actor else "on CPU"
        more = f", up to {self.most} as the cluster grows" if self.grows else ""
        if self.predictors:
            device = f"predictions by {self.predictors} actor(s) with 1 GPU each (two-stage)"
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


def check_shape(text: str, gpu: bool) -> Shape:
    """A value of --shape. Raises `UsageError` for another one, and for two stages without GPUs."""
    if text not in get_args(Shape):
        raise UsageError(f"--shape {text}: give one of {', '.join(get_args(Shape))}")
    if text == "two-stage" and not gpu:
        raise UsageError("--shape two-stage: the second stage predicts on GPUs; give --gpu, or leave out --shape")
    return cast(Shape, text)


def in_two_stages(shape: Shape, gpu: bool) -> bool:
    """Whether predictions have actors of their own. `auto` has them on GPUs, but where an autoscaler may add some: the number of
    these actors does not change during a run.
    """
    return gpu and (shape == "two-stage" or (shape == "auto" and not autoscaler.is_there()))


def choose_resources(parts: int, gpu: bool = False, two_stages: bool = False) -> Resources:
    """One actor per core (with `gpu`, per GPU; in two stages some more than one per core, on all nodes), at most one per part.

    Raises `UsageError` if there is no GPU.
    """
    import ray

    check_gpu(gpu)
    have = ray.cluster_resources()
    cpus, gpus = max(1, int(have.get("CPU", 1))), int(have.get("GPU", 0))
    room = _stage_workers() if two_stages else gpus if gpu else cpus
    actors = max(1, min(room, parts))
    grown = min(parts, MOST_PARTS_AHEAD) if parts > actors and autoscaler.is_there() else 0
    most = grown if grown > actors else 0
    if two_stages:
        return Resources(actors, 0.0, 1, cpus, most, min(gpus, actors))
    return Resources(actors, 1.0 if gpu else 0.0, max(1, cpus // gpus) if gpu else 1, cpus, most)


def _stage_workers() -> int:
    """How many workers the nodes have room for, beside the listing on any of them."""
    import ray

    cpus = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    return sum(int(STAGE_WORKERS * int(each)) for each in cpus)


def check_gpu(gpu: bool) -> None:
    """Raise `UsageError` if a GPU is asked for and the cluster has none (`nodes.wait_for` waits for one that may come)."""
    import ray

    if gpu and not ray.cluster_resources().get("GPU", 0):
        raise UsageError("--gpu: the cluster has no GPU; omit the flag to run on CPUs")


def check_workers(workers: int, gpu: bool, cpus: float, flag: str = "--workers", most: float = 4.0) -> None:
    """Raise `UsageError` for a request that a cluster which does not grow can never satisfy: `most` workers a CPU."""
    import ray

    if workers < 1:
        raise UsageError(f"{flag} {workers}: at least 1 is needed")
    if autoscaler.is_there():
        return
    gpus = int(ray.cluster_resources().get("GPU", 0))
    if gpu and workers > gpus:
        raise UsageError(f"--gpu {flag} {workers}: the cluster has {gpus} GPU(s); give at most that many workers")
    if not gpu and workers > most * cpus:
        raise UsageError(f"{flag} {workers}: the cluster has {cpus:g} CPU(s); give at most {int(cpus)} workers")
