"""How Ray Serve runs under us: HAProxy as the front door, and its throughput mode.

Serve reads these variables when it is imported, in this process and in every process of the Ray that it
starts, so they must be set before the first `import ray.serve`. What the operator has set stays.
"""

import argparse
import atexit
import os
import resource
import shlex
import shutil
import sysconfig
import tempfile
from pathlib import Path

from cluster.ports import claim_block, free_ports
from heliostat.errors import HeliostatError

MAX_CONNECTIONS = 16_384
"""Open client connections of one HAProxy; Serve's own default, 4096, is what one busy agent fleet opens."""

FILES_PER_CONNECTION = 2.6
"""HAProxy refuses to start when it may not open so many files (2.5 each, and a few of its own)."""


def serve_command(args: argparse.Namespace) -> int:
    """`heliostat serve`; Ray Serve is imported here, because its environment comes first."""
    set_serve_environment()
    from cluster.serve import serve

    return serve(args.spec, args.host, args.port, args.ray)


def env_command(args: argparse.Namespace) -> int:
    """`heliostat env`: for a shell's eval."""
    for name, value in node_environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def set_serve_environment() -> None:
    """Defaults for a Serve of this run alone; it has files and ports of its own, so two can run at once."""
    # Serve appends 58 characters, and a Unix socket's path has 97 at most.
    folder = Path(tempfile.mkdtemp(prefix="hap-", dir="/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    stats_port, metrics_port, fallback_port, grpc_port = free_ports(4)
    replica_ports, claim = claim_block()
    atexit.register(claim.close)
    defaults = {
        **_defaults(folder),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics_port),
        # HAProxy turns to it while no router listens. Two of them share a port (SO_REUSEPORT): with Serve's
        # default, one cluster answered another's requests.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_port),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc_port),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replica_ports.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replica_ports.stop),
        # HAProxy stops sending to a router that leaves; waiting 30 s more would only delay Ctrl-C.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def node_environment() -> dict[str, str]:
    """The same for one node of a Ray that stays: its ports are Serve's defaults, its files outlive us.

    What the environment has already is left out. Raises HeliostatError when another user has our folder.
    """
    folder = Path(f"/tmp/heliostat-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise HeliostatError(f"{folder} is somebody else's; remove it")
    return {name: value for name, value in _defaults(folder).items() if name not in os.environ}


def _defaults(folder: Path) -> dict[str, str]:
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # Its throughput mode keeps a thousand log lines back, and loses them with their process.
        "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(sysconfig.get_path("scripts")) / "heliostat-haproxy"),
        "RAY_SERVE_HAPROXY_MAXCONN": str(_max_connections()),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, (os.cpu_count() or 1) // 4)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
    }


def _max_connections() -> int:
    """As many as this process's limit of open files allows."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, int(limit / FILES_PER_CONNECTION))
