"""The dashboard and the rules as files, for Grafana's provisioning, Prometheus, and whoever ships them."""

import json
from pathlib import Path
from string import Template

from cluster.dashboards.alerts import ALERTS
from cluster.dashboards.board import HELIOSTAT
from cluster.dashboards.recordings import RECORDINGS
from cluster.dashboards.rules import to_yaml
from heliostat.errors import HeliostatError
from router.frontend.scrape import PATH

DASHBOARD = "heliostat-dashboard.json"
RULES = "heliostat-rules.yml"
PROMETHEUS = "prometheus.yml"

_PROMETHEUS = Template("""\
# prometheus --config.file=$file scrapes a Heliostat cluster and evaluates its rules.
global:
  scrape_interval: 10s # Ray's agents have news every 10 s
  evaluation_interval: 15s
rule_files: [$rules]
scrape_configs:
  # The job is the cluster's name in rules and dashboard: another cluster, another job.
  - job_name: heliostat
    http_sd_configs:
      - url: $url
""")


def dashboard_json() -> str:
    """What Grafana imports."""
    return json.dumps(HELIOSTAT.to_json(), indent=2) + "\n"


def rules_yaml() -> str:
    """What Prometheus' `rule_files` names."""
    return to_yaml(RECORDINGS, ALERTS)


def prometheus_yaml(url: str) -> str:
    """A whole configuration for the cluster at `url`, to start from."""
    return _PROMETHEUS.substitute(file=PROMETHEUS, rules=RULES, url=f"{url.rstrip('/')}{PATH}")


def write_files(folder: Path, url: str) -> tuple[Path, ...]:
    """All three, over what is there; the same again when nothing has changed. Raises HeliostatError."""
    texts = {DASHBOARD: dashboard_json(), RULES: rules_yaml(), PROMETHEUS: prometheus_yaml(url)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text)
    except OSError as error:
        raise HeliostatError(f"cannot write to {folder}: {error.strerror}") from error
    return tuple(folder / name for name in texts)
