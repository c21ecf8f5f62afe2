"""`ray up cluster/ray/onprem.yaml`, over ssh: an sshd of the test's own makes two machines of this host.

The file's start commands run as they are; its installation is not tried. `ray down` says `ray stop` on the
head, which would stop every Ray of this host: on these machines it stops their own node alone.
"""

import asyncio
import getpass
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from served_cluster import connection_for_each

from cluster.ports import claim_block, free_ports
from cluster.serve_api import ServeApi

pytestmark = pytest.mark.nodes

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
WEIGHTS = ROOT / "examples" / "quickstart" / "weights"
SSHD = Path("/usr/sbin/sshd")
HEAD, WORKER = "127.0.0.1", "127.0.0.2"
UP_S, GONE_S = 240, 90

SPEC = """
family: {{base: {weights}/base, dtype: float32, max_model_len: 2048, block_size: 32}}
transfer: {{lease_s: 10, directory: {folder}/kv}}
router: {{resources: {{"node:__internal_head__": 0.01}}}}
prefill:
  home: {{weights: {weights}/{home}, engine: sim, gpus: 0, cpus: 0.1, replicas: 2}}
decode:
  base: {{weights: {weights}/base, engine: sim, gpus: 0, cpus: 0.1, resources: {{decode_gpu: 1}},
          max_running: 64, sim: {{step_ms: 5}}}}
models:
  home: {{prefill: home, decode: base}}
"""


@dataclass
class Machines:
    """Two addresses of this host, each a Ray node by its own account."""

    folder: Path
    config: Path
    dashboard: str
    environment: dict[str, str]

    def ray(self, *args: str) -> str:
        command = [str(Path(sysconfig.get_path("scripts")) / "ray"), *args]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=UP_S, env=self.environment, cwd=self.folder
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout + done.stderr

    def stop(self, ip: str) -> None:
        """What `ray stop` does on that machine."""
        subprocess.run([sys.executable, HERE / "stop_node.py", self.folder / "home", ip], check=True)

    def processes(self) -> list[str]:
        """Whatever runs from the machines' home."""
        home, found = str(self.folder / "home"), []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == home:
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:160]}")
            except psutil.Error:
                continue
        return found


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    missing = [tool for tool in (str(SSHD), "ssh", "ssh-keygen", "rsync") if not shutil.which(tool)]
    if missing:
        reason = f"needs {', '.join(missing)}; scripts/install-tools installs them"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="hup-", dir="/tmp"))  # Ray's sockets lie deep below it
    ssh_port, ray_port, dashboard_port, *haproxy_ports = free_ports(9)
    for name in ("home", "client/.ray", "bin"):
        (folder / name).mkdir(parents=True)
    (folder / "client/.ray/auth_token").write_text("a-token-of-this-test-alone-0123456789abcdef")
    for key in ("host_key", "client/key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    shutil.copy(folder / "client/key.pub", folder / "authorized_keys")
    replica_ports, claim = claim_block()
    with claim:
        write_shims(folder, ssh_port)
        write_profile(folder, ray_port, dashboard_port, haproxy_ports, replica_ports)
        config = write_config(folder)
        environment = {**os.environ, "HOME": str(folder / "client"), "RAY_AUTH_MODE": "token"}
        environment["PATH"] = f"{folder}/bin:{environment['PATH']}"
        address = f"http://127.0.0.1:{dashboard_port}"
        with running_sshd(folder, ssh_port):
            there = Machines(folder, config, address, environment)
            must_be_ours(there)
            try:
                yield there
            finally:
                for ip in (HEAD, WORKER):
                    there.stop(ip)
    shutil.rmtree(folder)
    for state in Path("/tmp/ray").glob(f"cluster-{folder.name}.*"):
        state.unlink()


def write_shims(folder: Path, ssh_port: int) -> None:
    """`ray stop` on such a machine stops its own node; everything else is Ray's own command."""
    real = Path(sysconfig.get_path("scripts")) / "ray"
    stop = f'exec {sys.executable} {HERE / "stop_node.py"} "$HOME" "$NODE_IP"'
    ray = folder / "bin" / "ray"
    ray.write_text(f'#!/bin/bash\n[ "$1" = stop ] && {stop}\nexec {real} "$@"\n')
    ssh = folder / "bin" / "ssh"  # no config of `ray up` can name a port, and ssh takes ~ from the real home
    ssh.write_text(
        f"#!/bin/bash\nkey=$HOME/ray_bootstrap_key.pem\n[ -e $key ] && mine=(-i $key)\n"
        f'exec {shutil.which("ssh")} -p {ssh_port} "${{mine[@]}}" "$@"\n'
    )
    for script in (ray, ssh):
        script.chmod(0o755)


def write_profile(
    folder: Path, ray_port: int, dashboard_port: int, haproxy_ports: list[int], replica_ports: range
) -> None:
    """What the machines have of their own: where things are, and which ports are free."""
    settings = {
        "PATH": f"{folder}/bin:{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CACHE_ROOT": os.environ.get("VLLM_CACHE_ROOT", str(Path.home() / ".cache" / "vllm")),
        "RAY_PORT": str(ray_port),
        "DASHBOARD_PORT": str(dashboard_port),
        "HEAD_CPUS": "4",
        "NODE_RESOURCES": '{"decode_gpu": 1}',
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        "RAY_DISABLE_DOCKER_CPU_WARNING": "1",
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(haproxy_ports[4]),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(haproxy_ports[5]),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(replica_ports.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(replica_ports.stop),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    number = "${NODE_IP##*.}"
    haproxy = f"{folder}/hap{number}"
    lines += [
        "set -- $SSH_CONNECTION; export NODE_IP=$3",
        f'RAY_START_ARGS="--node-ip-address $NODE_IP --temp-dir {folder}/{number} --disable-usage-stats"',
        f"[ $NODE_IP = {HEAD} ] && ports=({haproxy_ports[0]} {haproxy_ports[1]}) || "
        f"ports=({haproxy_ports[2]} {haproxy_ports[3]})",
        "export RAY_START_ARGS RAY_SERVE_HAPROXY_STATS_PORT=${ports[0]}",
        "export RAY_SERVE_HAPROXY_METRICS_PORT=${ports[1]}",
        f"mkdir -p {haproxy}; export RAY_SERVE_HAPROXY_CONFIG_FILE_LOC={haproxy}/haproxy.cfg",
        f"export RAY_SERVE_HAPROXY_SOCKET_PATH={haproxy}/admin.sock",
        f"export RAY_SERVE_HAPROXY_SERVER_STATE_BASE={haproxy}",
        f"export RAY_SERVE_HAPROXY_SERVER_STATE_FILE={haproxy}/server-state",
    ]
    (folder / "home" / ".bash_profile").write_text("\n".join(lines) + "\n")
    (folder / "home" / ".bashrc").write_text("")


def write_config(folder: Path) -> Path:
    """cluster/ray/onprem.yaml for these two machines, which have Heliostat already."""
    config = yaml.safe_load((ROOT / "cluster" / "ray" / "onprem.yaml").read_text())
    config["cluster_name"] = folder.name
    config["provider"] |= {"head_ip": HEAD, "worker_ips": [WORKER]}
    config["auth"] = {
        "ssh_user": getpass.getuser(),
        "ssh_private_key": str(folder / "client" / "key"),
    }
    config["setup_commands"] = []
    path = folder / "onprem.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def running_sshd(folder: Path, port: int) -> Iterator[None]:
    """In the foreground, on loopback, with keys and a home folder of its own."""
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where its unprivileged part is locked in
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress {HEAD}\nListenAddress {WORKER}\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nPermitRootLogin prohibit-password\nSetEnv HOME={folder}/home\n"
        "PrintMotd no\nMaxStartups 100\nMaxSessions 100\n"
    )
    log = (folder / "sshd.log").open("w")
    sshd = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        deadline = time.monotonic() + 20
        while "Server listening" not in (folder / "sshd.log").read_text():
            assert sshd.poll() is None and time.monotonic() < deadline, (folder / "sshd.log").read_text()
        yield
    finally:
        sessions = psutil.Process(sshd.pid).children(recursive=True)
        sshd.terminate()
        sshd.wait(20)
        for session in sessions:
            if session.is_running() and "sshd" in session.name():
                session.terminate()


def must_be_ours(machines: Machines) -> None:
    """Before anything says `ray stop` there: it must be that of `write_shims`."""
    for ip in (HEAD, WORKER):
        said = subprocess.run(
            [
                *(
                    str(machines.folder / "bin" / "ssh"),
                    "-o",
                    "StrictHostKeyChecking=no",
                    "-o",
                    "UserKnownHostsFile=/dev/null",
                ),
                *("-o", "IdentitiesOnly=yes", "-i", str(machines.folder / "client" / "key")),
                f"{getpass.getuser()}@{ip}",
                "bash --login -c -i 'source ~/.bashrc; command -v ray; echo $NODE_IP; echo ~'",
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert said.stdout.split() == [
            f"{machines.folder}/bin/ray",
            ip,
            f"{machines.folder}/home",
        ], said.stdout + said.stderr + (machines.folder / "sshd.log").read_text()


async def test_up_deploy_change_under_load_down_and_nothing_left(
    machines: Machines, head_class, load_class, expected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", f"{machines.folder}/client/.ray/auth_token")
    await asyncio.to_thread(machines.ray, "up", "-y", "--no-config-cache", str(machines.config))
    (port,) = free_ports(1)
    head = head_class(machines.dashboard, port, machines.folder)
    old = head.write(SPEC.format(weights=WEIGHTS, folder=machines.folder, home="home-prefill"))
    deployed = await asyncio.to_thread(head.run, "deploy")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr

    async with connection_for_each(head.url) as http:
        prompt = list(range(60, 90))
        body = {
            "model": "home",
            "prompt": prompt,
            "max_tokens": 9,
            "temperature": 0,
            "return_token_ids": True,
        }
        answer = await http.post("/v1/completions", json=body)
        assert answer.json()["choices"][0]["token_ids"] == expected(old, "home", prompt, 9)

        load = load_class(head.url, ("home",))
        load.start(http)
        await load.until(10)
        new = head.write(SPEC.format(weights=WEIGHTS, folder=machines.folder, home="base"))
        changed = await asyncio.to_thread(head.run, "deploy")
        await load.until(10)
        await load.stop()
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert load.failures == []
    versions = set()
    for _, model, ids, num_tokens, tokens in load.answers:
        both = [expected(spec, model, list(ids), num_tokens) for spec in (old, new)]
        versions.add(both.index(tokens))
    assert versions == {0, 1}, "exact tokens of the old version and of the new one, and nothing else"

    gone = await asyncio.to_thread(head.run, "down")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert ServeApi(machines.dashboard).details().applications == {}
    await asyncio.to_thread(machines.ray, "down", "-y", str(machines.config))
    # `ray down` stops Ray on the head alone (Ray 2.60, local provider). A worker's raylet follows its head;
    # its log monitor stays until the `ray stop` with which the next `ray up` begins.
    deadline = time.monotonic() + GONE_S
    while left := [process for process in machines.processes() if "/log_monitor.py" not in process]:
        assert time.monotonic() < deadline, left
        await asyncio.sleep(1)
    machines.stop(WORKER)
    assert machines.processes() == []
