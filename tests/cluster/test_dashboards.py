"""cluster/dashboards/: Prometheus takes the files, each alert is raised when it must be, every name, label and value exists."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from scrape import OWN

from boneage_ray.runtime.metrics import METRICS

FOLDER = Path(__file__).parents[2] / "cluster" / "dashboards"
DASHBOARDS = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}
RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text("utf-8"))
FOREIGN = {"up": {"job", "instance"}}  # Prometheus' own
EVERY_SERIES = {"SessionName"}  # of the labels that Ray adds, those that we use
WORDS = {"sum", "avg", "max", "rate", "increase", "histogram_quantile", "unless", "or", "offset"}


def queries():
    """Every query of a dashboard or an alert, as Prometheus gets it."""
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                text = target["expr"].replace("$__rate_interval", "5m").replace("$session", ".*")
                yield f"{name}: {panel['title']}", text
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def wrong_in(query):
    """Names, labels and values of a query that no metric has."""
    wrong, labels = [], set(EVERY_SERIES)
    for name, selector in re.findall(r"(\w+)\{([^}]*)\}", query):
        metric = OWN.get(name)
        known = dict(metric.labels) if metric else dict.fromkeys(FOREIGN.get(name, ()))
        for label, sign, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', selector):
            if label not in known.keys() | EVERY_SERIES:
                wrong.append(f"{name}: {label}")
            elif known.get(label) and not any(re.fullmatch(value, one) for one in known[label]):
                wrong.append(f"{name}: {label}{sign}{value}")
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b\d+\w*", " ", query)
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", bare) for label in group.split(", ")}
    names = set(re.findall(r"[a-zA-Z_]\w*", re.sub(r"by \([^)]*\)", " ", bare))) - WORDS
    wrong += sorted(name for name in names if name not in OWN and name not in FOREIGN)
    labels |= {label for name in names & OWN.keys() for label in OWN[name].labels}
    labels |= {"le"} if any(name.endswith("_bucket") for name in names) else set()
    return wrong + sorted(grouped - labels)


def test_every_name_label_and_value_of_dashboards_and_alerts_exists():
    found = dict.fromkeys(where for where, _ in queries())
    assert len(found) > 30
    assert {where: wrong for where, query in queries() if (wrong := wrong_in(query))} == {}


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("sum(rate(ray_boneage_score_file_total[5m]))", ["ray_boneage_score_file_total"]),
        ("ray_boneage_score_files", ["ray_boneage_score_files"]),
        ('ray_boneage_score_files_total{state="failed"}', ["ray_boneage_score_files_total: state"]),
        ('ray_boneage_score_files_total{status!="fialed"}', ["ray_boneage_score_files_total: status!=fialed"]),
        ('ray_boneage_serve_requests_total{status=~"6.."}', ["ray_boneage_serve_requests_total: status=~6.."]),
        ("sum by (route, step) (ray_boneage_serve_requests_total)", ["step"]),
        ('sum by (SessionName) (ray_boneage_serve_requests_total{route="/v1/predict"} offset 15m)', []),
    ],
)
def test_a_planted_wrong_query_is_found(query, wrong):
    assert wrong_in(query) == wrong


def test_every_metric_is_on_a_dashboard():
    shown = " ".join(query for where, query in queries() if not where.startswith("alert"))
    assert [metric.name for metric in METRICS if not any(series in shown for series in metric.series)] == []


def test_the_dashboards_are_whole():
    assert set(DASHBOARDS) == {"scoring", "serving", "training"}
    for name, dashboard in DASHBOARDS.items():
        assert dashboard["uid"] == f"boneage-{name}"
        panels = dashboard["panels"]
        assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
        assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
        squares = [
            (x, y)
            for where in (panel["gridPos"] for panel in panels)
            for x in range(where["x"], where["x"] + where["w"])
            for y in range(where["y"], where["y"] + where["h"])
        ]
        assert len(squares) == len(set(squares)), "panels lie on each other"
        assert max(x for x, _ in squares) < 24


def promtool(*words, folder):
    """What promtool says, and whether it is content. Without it these tests are skipped, but never in CI."""
    path = shutil.which("promtool")
    if path is None:
        if "CI" in os.environ:
            pytest.fail("promtool is missing: apt-get install prometheus")
        pytest.skip("promtool is not installed (Debian package prometheus)")
    told = subprocess.run([path, *words], cwd=folder, capture_output=True, text=True, check=False)
    return told.returncode, told.stdout + told.stderr


@pytest.fixture
def copies(tmp_path):
    """A folder with rules and configurations. Debian's promtool is built without Kubernetes: that one gets a fixed target."""
    shutil.copy(FOLDER / "rules.yaml", tmp_path)
    shutil.copy(FOLDER / "prometheus.yaml", tmp_path)
    values = yaml.safe_load((FOLDER / "prometheus-kubernetes.yaml").read_text("utf-8"))
    (job,) = values["scrape_configs"]
    (discovery,) = job.pop("kubernetes_sd_configs")
    assert discovery.keys() == {"role", "namespaces", "selectors"}
    job["static_configs"] = [{"targets": ["10.0.0.5:8080"]}]
    (tmp_path / "prometheus-kubernetes.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


@pytest.mark.parametrize("name", ["prometheus.yaml", "prometheus-kubernetes.yaml"])
def test_prometheus_takes_the_configuration_with_its_rules(name, copies):
    code, told = promtool("check", "config", name, folder=copies)
    assert code == 0, told
    assert "SUCCESS: 8 rules found" in told
    assert f"SUCCESS: {name} is valid" in told


def test_a_planted_fault_in_a_rule_is_found(copies):
    text = (copies / "rules.yaml").read_text("utf-8")
    (copies / "rules.yaml").write_text(text.replace("sum by (SessionName) (", "sum by (SessionName ", 1))
    code, told = promtool("check", "config", "prometheus.yaml", folder=copies)
    assert code != 0
    assert "could not parse expression" in told


def test_prometheus_can_parse_every_query_of_a_dashboard(tmp_path):
    rules = [{"record": f"query{k}", "expr": query} for k, (_, query) in enumerate(queries())]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}))
    code, told = promtool("check", "rules", "--lint=none", "queries.yaml", folder=tmp_path)
    assert (code, f"SUCCESS: {len(rules)} rules found" in told) == (0, True), told


def test_each_alert_is_raised_when_it_must_be_and_not_otherwise(tmp_path):
    cases = (Path(__file__).parent / "alert_rules.yaml").read_text("utf-8")
    bare = yaml.safe_load((FOLDER / "rules.yaml").read_text("utf-8"))
    names = set()
    for rule in (rule for group in bare["groups"] for rule in group["rules"]):
        assert rule.pop("annotations").keys() == {"summary", "description"}
        names.add(rule["alert"])
    assert set(re.findall(r"alertname: (\w+)\n", cases)) == names, "one that is raised for each alert"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(bare))
    (tmp_path / "cases.yaml").write_text(cases.replace("[RULES]", "[rules.yaml]"))
    code, told = promtool("test", "rules", "cases.yaml", folder=tmp_path)
    assert code == 0, told
