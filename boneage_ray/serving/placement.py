"""What is to be served, and what each model's replica gets of the cluster. No Ray here: it runs before Ray starts."""

from __future__ import annotations

from dataclasses import dataclass

from boneage_ray import bundle
from boneage_ray.errors import UsageError
from boneage_ray.findings.task_findings import findings_of
from boneage_ray.prediction import members
from boneage_ray.prediction.predictor import CPU_BATCH, GPU_BATCH
from boneage_ray.runtime.devices import Device, Precision
from boneage_ray.serving.schema import ModelInfo

INGRESS_CPUS, MODEL_CPUS = 0.1, 0.25
# Of more threads each would wait for the others' Python: of the built-in hand, one process makes 250 images a second at most.
THREADS = 4


@dataclass(frozen=True)
class Placement:
    """What one model's replica gets: `cpus` and `gpus` as Ray counts them; `ingress_cpus`: what the ingress gets.

    `threads`: how many files are decoded at a time, and on CPUs how many are predicted, each by one thread.
    `replicas`: how many of them a model has, where nothing else was asked for.
    `auto`: what automatic precision means on all of them, so that no answer depends on the node; None: decided by the replica.
    """

    cpus: float
    gpus: float
    threads: int
    auto: Precision | None = None
    ingress_cpus: float = INGRESS_CPUS
    replicas: int = 1

    @property
    def device(self) -> Device:
        """Where it computes."""
        return "cuda" if self.gpus else "cpu"

    @property
    def batch_size(self) -> int:
        """As many images as the predictor takes at once."""
        return GPU_BATCH if self.gpus else CPU_BATCH


def place(models: int, cluster: dict[str, float]) -> Placement:
    """Shares that fit twice into any cluster, also one with a single CPU: an update starts new replicas beside the old ones."""
    cpus, gpus = cluster.get("CPU", 1.0), int(cluster.get("GPU", 0))
    threads = max(1, int(cpus) // models)
    replicas = 1 if gpus else max(1, threads // THREADS)
    share = min(MODEL_CPUS, 0.8 * (cpus - 2 * INGRESS_CPUS) / (2 * models * replicas))
    # Whole fractions of a GPU, so that the last model still finds its share on one device. Half of a single one is left for
    # updates; of several Ray would put two halves onto the same one and leave the other idle.
    gpu = 1 / (2 * models) if gpus == 1 else 1.0 if gpus >= models else 1 / -(-models // gpus) if gpus else 0.0
    return Placement(round(max(share, 0.0), 4), gpu, threads // replicas, replicas=replicas)


def asked_place(chosen: Placement, cpus: float | None, gpus: float | None) -> Placement:
    """The chosen shares, but for those asked for: then one replica, with as many threads as whole CPUs were asked for."""
    if cpus is None and gpus is None:
        return chosen
    threads = chosen.threads if cpus is None else max(1, int(cpus))
    return Placement(chosen.cpus if cpus is None else cpus, chosen.gpus if gpus is None else gpus, threads, chosen.auto)


@dataclass(frozen=True)
class ModelPlace:
    """A verified bundle: where it is, and what it must still be when a replica loads it."""

    uri: str
    info: ModelInfo


def inspect_models(uris: list[str], coverage: float | None = None) -> list[ModelPlace]:
    """Load and verify every bundle; an ensemble is one model. Two of one recipe get names that end in the start of their hash.

    `coverage`: of intervals, which every model must be able to give.
    """
    found = [(uri, members.resolve([uri])) for uri in uris]
    for uri, models in found:
        findings = findings_of(models.recipe)
        if refusal := findings.not_served:
            raise UsageError(f"--model {uri} {refusal}")
        findings.check_coverage(models, coverage)
        if any(image.mask == "file" for image in models.images):
            raise UsageError(
                f"--model {uri} needs a mask file for each image, which a request cannot bring: `boneage score` it"
            )
    names = [models.name for _, models in found]
    places: list[ModelPlace] = []
    for uri, models in found:
        if any(models.sha256 == place.info.model_sha256 for place in places):
            raise UsageError(f"--model {uri} is the same model as one before; give each once")
        for member in models.members:
            bundle.load(member.uri)  # one after the other: only to see that every file is whole
        name = models.name if names.count(models.name) == 1 else f"{models.name}-{models.sha256[:8]}"
        places.append(ModelPlace(uri, _info(name, models)))
    return places


def _info(name: str, models: members.Models) -> ModelInfo:
    """Of an ensemble as a whole the bundles hold no figures: `boneage evaluate` makes them."""
    single = models.members[0].metrics if len(models.members) == 1 else {}
    return ModelInfo(
        name=name,
        model_sha256=models.sha256,
        recipe=models.name,
        task=models.recipe.task_kind.name,
        summary=models.summary,
        members=len(models.members),
        site=models.site,
        metrics={key: value for key, value in single.items() if type(value) in (int, float)},
    )
