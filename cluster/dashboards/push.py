"""`heliostat dashboards push`: the dashboard into a Grafana, once or again."""

from cluster.dashboards.board import HELIOSTAT
from cluster.dashboards.grafana import Json
from cluster.dashboards.grafana_client import DataSource, Grafana
from heliostat import __version__
from heliostat.errors import HeliostatError

ITS_OWN = ("id", "version")
"""Keys that Grafana adds to a dashboard."""


def push(grafana: Grafana, folder: str, data_source: str | None) -> str:
    """Push it unless it is there already, and say in one line what was done. Raises HeliostatError."""
    source = _choose(grafana, data_source)
    folder_uid = _folder_uid(grafana, folder)
    dashboard = HELIOSTAT.to_json(source.uid)
    stored = grafana.dashboard(HELIOSTAT.uid)
    place = f"{grafana.url}/d/{HELIOSTAT.uid}"
    if stored and stored.meta.folderUid == folder_uid and _same(stored.dashboard, dashboard):
        return f"{place} is as it should be: nothing was changed"
    pushed = grafana.push(dashboard, folder_uid, f"heliostat {__version__}")
    done = "replaced" if stored else "created"
    return f"{place} {done}: version {pushed.version}, in {folder}, from the data source {source.name}"


def _same(stored: dict[str, object], made: Json) -> bool:
    return {key: value for key, value in stored.items() if key not in ITS_OWN} == made


def _choose(grafana: Grafana, name: str | None) -> DataSource:
    """The named data source, or else Grafana's default or only Prometheus."""
    there = [source for source in grafana.data_sources() if source.type == "prometheus"]
    names = ", ".join(source.name for source in there)
    if name is not None:
        for source in there:
            if name in (source.name, source.uid):
                return source
        raise HeliostatError(
            f"{grafana.url} has no Prometheus data source {name}; it has: {names or 'none at all'}"
        )
    if not there:
        raise HeliostatError(
            f"{grafana.url} has no Prometheus data source; add one under Connections, with the address of "
            "the Prometheus that scrapes the cluster (docs/observability.md)"
        )
    default = [source for source in there if source.isDefault]
    if len(there) > 1 and not default:
        raise HeliostatError(f"{grafana.url} has several Prometheus data sources: {names}; say --datasource")
    return (default or there)[0]


def _folder_uid(grafana: Grafana, title: str) -> str:
    """Of the folder with that title, which is made when there is none."""
    for folder in grafana.folders():
        if folder.title == title:
            return folder.uid
    return grafana.create_folder(title).uid
