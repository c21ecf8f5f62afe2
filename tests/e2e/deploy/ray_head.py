"""A Ray with a dashboard, in the foreground until SIGTERM: `python ray_head.py DASHBOARD_PORT FOLDER`.

Its Serve has HAProxy and files of its own, as under `heliostat serve`.
"""

import os
import signal
import subprocess
import sys

from cluster.ports import free_ports
from cluster.serve_environment import set_serve_environment

set_serve_environment()
(gcs_port,) = free_ports(1)
ray = subprocess.Popen(
    [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address", "127.0.0.1", "--port", str(gcs_port), "--num-cpus", "8"),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", sys.argv[1], "--temp-dir", sys.argv[2]),
        "--disable-usage-stats",
    ],
    env=os.environ,
)
signal.signal(signal.SIGTERM, lambda *_: ray.send_signal(signal.SIGTERM))
ray.wait()
