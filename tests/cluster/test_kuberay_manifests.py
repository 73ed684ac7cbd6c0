"""cluster/kuberay: every overlay fits the schemas of KubeRay and Kubernetes, and is as safe as its README says."""

from __future__ import annotations

import copy
import shlex
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from crd_schema import faults, strict

from boneage_ray.cli import check_words

KUBERAY = Path(__file__).parents[2] / "cluster" / "kuberay"
OVERLAYS = sorted(path.name for path in (KUBERAY / "overlays").iterdir())
KUBERNETES = ("1.32", "1.37")
CLUSTER_FIELD = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}


def of_kind(documents, *kinds):
    return [document for document in documents if document["kind"] in kinds]


def clusters(documents):
    """(name, spec) of every Ray cluster that the documents describe."""
    for document in of_kind(documents, *CLUSTER_FIELD):
        spec = document["spec"]
        for field in CLUSTER_FIELD[document["kind"]]:
            spec = spec[field]
        yield document["metadata"]["name"], spec


def templates(documents):
    """(name, pod template) of every pod that the documents describe."""
    for name, spec in clusters(documents):
        yield f"{name} head", spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield f"{name} {group['groupName']}", group["template"]
    for document in of_kind(documents, "RayJob"):
        yield f"{document['metadata']['name']} submitter", document["spec"]["submitterPodTemplate"]
    for document in of_kind(documents, "StatefulSet"):
        yield document["metadata"]["name"], document["spec"]["template"]


def test_the_overlays_are_those_that_the_readme_names():
    assert OVERLAYS == ["cpu", "dev", "gpu"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_ray_resource_fits_kuberays_schema_strictly(overlay, manifests, ray_schemas):
    found = of_kind(manifests(overlay), *ray_schemas)
    assert [document["kind"] for document in found] == ["RayCluster", *["RayJob"] * 4, "RayService"]
    assert {d["metadata"]["name"]: faults(ray_schemas[d["kind"]], d) for d in found} == {
        d["metadata"]["name"]: [] for d in found
    }


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda spec: spec["autoscalerOptions"].update(idleTimeoutSecond=1), "'idleTimeoutSecond' was unexpected"),
        (lambda spec: spec["autoscalerOptions"].update(version="v3"), "'v3' is not one of ['v1', 'v2']"),
        (lambda spec: spec["workerGroupSpecs"][0].update(maxReplica=1), "'maxReplica' was unexpected"),
        (lambda spec: spec["workerGroupSpecs"][0].update(maxReplicas="8"), "'8' is not of type 'integer'"),
        (
            lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].update(imag="x"),
            "'imag' was unexpected",
        ),
        (lambda spec: spec["headGroupSpec"].pop("template"), "'template' is a required property"),
    ],
)
def test_a_planted_fault_is_found_and_named(plant, said, manifests, ray_schemas):
    document = copy.deepcopy(of_kind(manifests("cpu"), "RayCluster")[0])
    plant(document["spec"])
    (told,) = faults(ray_schemas["RayCluster"], document)
    assert said in told
    assert told.startswith("$.spec")


def test_a_schema_made_strict_leaves_open_what_is_meant_to_be_open():
    schema = strict(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                        "free": {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True},
                    },
                },
            },
        }
    )
    good = {"metadata": {"name": "x"}, "spec": {"labels": {"any": "thing"}, "free": {"any": 1}}}
    assert faults(schema, good) == []
    assert len(faults(schema, {"spec": {"any": 1}})) == 1


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_and_plain_resource_fits_kubernetes_schema(overlay, version, manifests):
    documents = manifests(overlay)
    pods = [{"apiVersion": "v1", "kind": "Pod", **template} for _, template in templates(documents)]
    plain = [document for document in documents if document["kind"] not in CLUSTER_FIELD]
    secrets = list(yaml.safe_load_all((KUBERAY / "secret.example.yaml").read_text()))
    assert len(pods) > 15
    assert len(plain) > 7
    for document in [*pods, *plain, *secrets]:
        kubernetes_validate.validate(document, version, strict=True)


def test_a_planted_fault_in_a_pod_is_found(manifests):
    (_, template), *_ = templates(manifests("cpu"))
    template = copy.deepcopy(template)
    template["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="readOnlyRootFileSystem"):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **template}, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_is_root_writes_its_root_or_gains_privileges(overlay, manifests):
    for name, template in templates(manifests(overlay)):
        pod = template["spec"]["securityContext"]
        assert pod["runAsNonRoot"], name
        assert pod["runAsUser"] >= 999, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in template["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
    for name, spec in clusters(manifests(overlay)):
        assert spec["autoscalerOptions"]["securityContext"]["readOnlyRootFilesystem"], name
        assert spec["authOptions"] == {"mode": "token"}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_head_may_speak_to_kubernetes(overlay, manifests):
    for name, template in templates(manifests(overlay)):
        assert template["spec"].get("automountServiceAccountToken", True) == name.endswith("head"), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_has_requests_limits_and_nodes_have_probes(overlay, manifests):
    for name, template in templates(manifests(overlay)):
        for container in template["spec"]["containers"]:
            asked = container["resources"]
            assert {"cpu", "memory"} <= set(asked["requests"]) <= set(asked["limits"]), name
            if "submitter" not in name:
                assert {"livenessProbe", "readinessProbe"} <= set(container), name
            assert not {"LATEST", ""} & {container["image"].rpartition(":")[2].upper()}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_workers_of_the_service_are_ready_when_serve_answers_and_other_nodes_when_ray_does(overlay, manifests):
    for name, template in templates(manifests(overlay)):
        probe = template["spec"]["containers"][0].get("readinessProbe", {}).get("httpGet")
        if name.startswith("boneage-service ") and not name.endswith("head"):
            assert probe == {"path": "/-/healthz", "port": 8000}, name
        elif "submitter" not in name and "redis" not in name:
            assert probe == {"path": "/api/healthz", "port": 52365}, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_cluster_is_the_one_that_is_described_once(overlay, manifests):
    described = dict(clusters(manifests(overlay)))
    marked = {name: _without_marks(spec) for name, spec in described.items()}
    assert len(marked) == 6
    for name, spec in marked.items():
        if name != "boneage-service":
            assert spec == marked["boneage"], name
    assert described["boneage-service"]["workerGroupSpecs"][0]["template"]["metadata"]["labels"]["part"] == "service"


def _without_marks(spec):
    spec = copy.deepcopy(spec)
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        group["template"]["metadata"]["labels"].pop("part")
    return spec


def test_gpus_are_asked_for_by_the_gpu_overlay_only(manifests):
    def groups(overlay):
        (_, spec), *_ = clusters(manifests(overlay))
        limits = {g["groupName"]: g["template"]["spec"]["containers"][0]["resources"] for g in spec["workerGroupSpecs"]}
        return {name: asked["limits"].get("nvidia.com/gpu") for name, asked in limits.items()}

    assert groups("gpu") == {"cpu": None, "gpu": "1"}
    assert groups("cpu") == groups("dev") == {"cpu": None}


def test_a_head_that_is_lost_is_survived_where_there_is_redis(manifests):
    for overlay in OVERLAYS:
        tolerant = {name for name, spec in clusters(manifests(overlay)) if "gcsFaultToleranceOptions" in spec}
        stores = {document["metadata"]["name"] for document in of_kind(manifests(overlay), "StatefulSet")}
        assert (tolerant, stores) == (
            (set(), set()) if overlay == "dev" else ({"boneage-service"}, {"boneage-redis"})
        ), overlay


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_policies_and_budgets_choose_pods_that_exist(overlay, manifests):
    documents = manifests(overlay)
    labels = [template["metadata"]["labels"] for _, template in templates(documents)]
    for document in of_kind(documents, "NetworkPolicy", "PodDisruptionBudget"):
        spec = document["spec"]
        chosen = (spec.get("podSelector") or spec["selector"])["matchLabels"]
        hits = [found for found in labels if chosen.items() <= found.items()]
        assert hits or (overlay == "dev" and "redis" in document["metadata"]["name"]), document["metadata"]["name"]
        # Without a scale of its own a RayCluster is outside what maxUnavailable can count.
        assert "maxUnavailable" not in spec
    nodes = next(d for d in of_kind(documents, "NetworkPolicy") if d["metadata"]["name"] == "boneage-nodes")
    assert nodes["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert all("from" in rule for policy in of_kind(documents, "NetworkPolicy") for rule in policy["spec"]["ingress"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_named_and_never_written_out(overlay, manifests):
    assert of_kind(manifests(overlay), "Secret") == []
    example = list(yaml.safe_load_all((KUBERAY / "secret.example.yaml").read_text()))
    values = [value for secret in example for value in secret["stringData"].values()]
    assert set(values) == {"CHANGE-ME"}
    kept = {secret["metadata"]["name"] for secret in example}
    for name, template in templates(manifests(overlay)):
        for container in template["spec"]["containers"]:
            named = [source["secretRef"]["name"] for source in container.get("envFrom", [])]
            named += [e["valueFrom"]["secretKeyRef"]["name"] for e in container.get("env", []) if "valueFrom" in e]
            assert set(named) <= kept, name
            tokens = {"secretRef": {"name": "boneage-api"}} in container.get("envFrom", [])
            assert tokens == name.startswith("boneage-service "), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_jobs_command_and_flags_exist(overlay, manifests):
    jobs = {d["metadata"]["name"]: d["spec"]["entrypoint"] for d in of_kind(manifests(overlay), "RayJob")}
    assert sorted(jobs) == [f"boneage-{name}" for name in ("evaluate", "prepare", "score", "train")]
    for name, entrypoint in jobs.items():
        program, *words = shlex.split(entrypoint)
        assert program == "boneage"
        assert f"boneage-{words[0]}" == name
        check_words(words)
        assert ("--gpu" in words) == (overlay == "gpu" and words[0] != "prepare")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_job_waits_or_runs_for_ever(overlay, manifests):
    for document in of_kind(manifests(overlay), "RayJob"):
        spec = document["spec"]
        assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"] <= 86400
        assert spec["shutdownAfterJobFinishes"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_versions_are_those_of_the_package_and_of_the_images_ray(overlay, manifests):
    version = tomllib.loads((KUBERAY.parents[1] / "pyproject.toml").read_text())["project"]["version"]
    pinned = (KUBERAY.parent / "constraints.txt").read_text().splitlines()
    (ray_version,) = {spec["rayVersion"] for _, spec in clusters(manifests(overlay))}
    assert f"ray=={ray_version}" in pinned
    images = {t["spec"]["containers"][0]["image"] for name, t in templates(manifests(overlay)) if "redis" not in name}
    expected = "boneage-ray:dev" if overlay == "dev" else f"registry.example.org/boneage-ray:{version}-{overlay}"
    assert images == {expected}
