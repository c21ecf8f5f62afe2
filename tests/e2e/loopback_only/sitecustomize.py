"""Runs first where PYTHONPATH names this folder: writes down every other host that is asked for.

Into the file that the variable ASKED names, one host a line. What a framework sends home is seen, by
whichever client, and whatever becomes of it. Unix sockets and this host do not count.
"""

import os
import sys

HERE = ("127.0.0.1", "::1", "localhost", None)


def note(event: str, args: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in HERE:
        with open(os.environ["ASKED"], "a") as asked:
            print(host, file=asked)


sys.addaudithook(note)
