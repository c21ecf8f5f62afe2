"""A small Kubernetes API server: it answers discovery, stores what is created, and records the order."""

import base64
import copy
import json
import re
import select
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]

KINDS = {
    "v1": {
        "ConfigMap": "configmaps",
        "Namespace": "namespaces",
        "PersistentVolumeClaim": "persistentvolumeclaims",
        "Pod": "pods",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "gateway.networking.k8s.io/v1": {"HTTPRoute": "httproutes"},
    "monitoring.coreos.com/v1": {"PodMonitor": "podmonitors", "PrometheusRule": "prometheusrules"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "ray.io/v1": {"RayService": "rayservices"},
}
"""What the API server knows: another kind in a chart is an error of the installation."""

PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))/namespaces/(?P<namespace>[^/]+)"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?"
)


@dataclass
class Cluster:
    """What the API server holds, by kind and name, and the order in which it came."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    created: list[Object] = field(default_factory=list)
    events: list[Object] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def put(self, event: str, key: tuple[str, str], thing: Object) -> None:
        """Keep an object, or for `DELETED` drop it, and tell who watches."""
        with self.changed:
            self.objects.pop(key, None)
            if event != "DELETED":
                self.objects[key] = thing
            self.events.append({"type": event, "object": thing})
            self.changed.notify_all()

    def of_kind(self, kind: str) -> list[Object]:
        return [thing for (of, _), thing in self.objects.items() if of == kind]

    def chart_objects(self) -> list[Object]:
        """Without Helm's own records of releases."""
        return [thing for thing in self.created if thing.get("type") != "helm.sh/release.v1"]


def _discovery(path: str) -> Object | None:
    if path == "/version":
        return {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = [version.split("/") for version in KINDS if "/" in version]
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {
                    "name": name,
                    "versions": [{"groupVersion": f"{name}/{version}", "version": version}],
                    "preferredVersion": {"groupVersion": f"{name}/{version}", "version": version},
                }
                for name, version in groups
            ],
        }
    if path.startswith("/openapi/v3"):
        return _openapi(path)
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version not in KINDS:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": version,
        "resources": [
            {
                "name": plural,
                "singularName": kind.lower(),
                "namespaced": kind != "Namespace",
                "kind": kind,
                "verbs": verbs,
            }
            for kind, plural in KINDS[version].items()
        ],
    }


def _openapi(path: str) -> Object | None:
    """As much as tells Helm that the server checks fields itself, so that Helm need not."""
    if path == "/openapi/v3":
        return {"paths": {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"}}}
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    patch = {
        "parameters": [{"name": "fieldValidation", "in": "query"}],
        "x-kubernetes-group-version-kind": kind,
        "responses": {},
    }
    paths = {"/api/v1/namespaces/{namespace}/pods/{name}": {"patch": patch}}
    return {"openapi": "3.0.0", "info": {"title": "", "version": ""}, "paths": paths}


PROTOBUF = b"k8s\0"
"""How client-go writes kinds that it knows: here Helm's records of releases, which are Secrets."""


def _fields(data: bytes) -> dict[int, list[bytes]]:
    """The fields of a protobuf message that have a length; the others are of no interest here."""
    fields: dict[int, list[bytes]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key, wire = divmod(number(), 8)
        length = number()
        if wire == 2:
            fields.setdefault(key, []).append(data[at : at + length])
            at += length
    return fields


def _map(entries: list[bytes]) -> dict[str, bytes]:
    pairs = [_fields(entry) for entry in entries]
    return {pair[1][0].decode(): pair.get(2, [b""])[0] for pair in pairs}


def _secret(data: bytes) -> Object:
    """A Secret (`k8s.io.api.core.v1.Secret`) out of its envelope (`runtime.Unknown`)."""
    envelope = _fields(data.removeprefix(PROTOBUF))
    kind = _fields(envelope[1][0])
    assert (kind[1], kind[2]) == ([b"v1"], [b"Secret"]), kind
    secret = _fields(envelope[2][0])
    metadata = _fields(secret[1][0])
    labels = {key: value.decode() for key, value in _map(metadata.get(11, [])).items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": metadata[1][0].decode(), "labels": labels},
        "data": {key: base64.b64encode(value).decode() for key, value in _map(secret.get(2, [])).items()},
        "type": secret[3][0].decode(),
    }


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7386. Kubernetes' strategic merge is the same for what Helm patches here: maps, and whole lists."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet; in two, each answer waits 40 ms for the client's delayed ACK
    cluster: Cluster

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, code: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _fail(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
        self._answer(code, {**status, "reason": reason, "message": message})

    def _body(self) -> Object:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        if data.startswith(PROTOBUF):
            return {} if self.command == "DELETE" else _secret(data)
        return yaml.safe_load(data) if data else {}

    def _target(self) -> tuple[str, str, str, str] | None:
        """Kind, API version, namespace and name of the path."""
        found = PATH.fullmatch(urlsplit(self.path).path)
        if not found:
            return None
        version = found["core"] or found["group"]
        kinds = {plural: kind for kind, plural in KINDS.get(version, {}).items()}
        if found["plural"] not in kinds:
            return None
        return kinds[found["plural"]], version, found["namespace"], found["name"] or ""

    def do_GET(self) -> None:
        target = self._target()
        if target is None:
            known = _discovery(urlsplit(self.path).path)
            return self._answer(200, known) if known else self._fail(404, "NotFound", self.path)
        kind, version, _, name = target
        query = parse_qs(urlsplit(self.path).query)
        if name:
            thing = self.cluster.objects.get((kind, name))
            return self._answer(200, thing) if thing else self._fail(404, "NotFound", f"{kind} {name}")
        things = [thing for thing in self.cluster.of_kind(kind) if self._selected(thing, query)]
        if "watch" in query:
            return self._watch(kind, things, query)
        listed = {"kind": f"{kind}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}}
        return self._answer(200, {**listed, "items": things})

    def _selected(self, thing: Object, query: dict[str, list[str]]) -> bool:
        labels = thing["metadata"].get("labels", {})
        wanted = [pair.split("=") for pair in query.get("labelSelector", [""])[0].split(",") if "=" in pair]
        names = [pair.split("=") for pair in query.get("fieldSelector", [""])[0].split(",") if "=" in pair]
        return all(labels.get(key) == value for key, value in wanted) and all(
            thing["metadata"]["name"] == value for key, value in names if key == "metadata.name"
        )

    def _watch(self, kind: str, things: list[Object], query: dict[str, list[str]]) -> None:
        """What is there now, a mark that this was all, and then what changes, until the client leaves."""
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("connection", "close")
        self.end_headers()
        end = {"annotations": {"k8s.io/initial-events-end": "true"}, "resourceVersion": "1"}
        mark = {"type": "BOOKMARK", "object": {"kind": kind, "apiVersion": "v1", "metadata": end}}
        waiting = [*({"type": "ADDED", "object": thing} for thing in things), mark]
        seen = len(self.cluster.events)
        while not select.select([self.connection], [], [], 0)[0]:  # a client that leaves becomes readable
            for event in waiting:
                if event is mark or (
                    event["object"]["kind"] == kind and self._selected(event["object"], query)
                ):
                    self.wfile.write(json.dumps(event).encode() + b"\n")
            self.wfile.flush()
            with self.cluster.changed:
                if len(self.cluster.events) == seen:
                    self.cluster.changed.wait(timeout=0.2)
                waiting, seen = self.cluster.events[seen:], len(self.cluster.events)

    def do_POST(self) -> None:
        target, body = self._target(), self._body()
        if target is None:
            return self._fail(404, "NotFound", self.path)
        kind, version, namespace, _ = target
        name = body["metadata"]["name"]
        if (body["kind"], body["apiVersion"]) != (kind, version):
            return self._fail(400, "BadRequest", f"{body['kind']} at {self.path}")
        if (kind, name) in self.cluster.objects:
            return self._fail(409, "AlreadyExists", f"{kind} {name}")
        self.cluster.created.append(copy.deepcopy(body))
        body["metadata"] |= {"namespace": namespace, "uid": f"{kind}-{name}", "resourceVersion": "1"}
        if kind == "Pod":  # a pod of `helm test`: nothing runs it here
            body["status"] = {"phase": "Succeeded"}
        self.cluster.put("ADDED", (kind, name), body)
        return self._answer(201, body)

    def do_PUT(self) -> None:
        target, body = self._target(), self._body()
        if target is None or (target[0], target[3]) not in self.cluster.objects:
            return self._fail(404, "NotFound", self.path)
        self.cluster.put("MODIFIED", (target[0], target[3]), body)
        return self._answer(200, body)

    def do_PATCH(self) -> None:
        target, patch = self._target(), self._body()
        if target is None or (target[0], target[3]) not in self.cluster.objects:
            return self._fail(404, "NotFound", self.path)
        key = target[0], target[3]
        self.cluster.put("MODIFIED", key, _merged(self.cluster.objects[key], patch))
        return self._answer(200, self.cluster.objects[key])

    def do_DELETE(self) -> None:
        self._body()
        target = self._target()
        if target is None or (target[0], target[3]) not in self.cluster.objects:
            return self._fail(404, "NotFound", self.path)
        key = target[0], target[3]
        self.cluster.put("DELETED", key, self.cluster.objects[key])
        return self._answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
