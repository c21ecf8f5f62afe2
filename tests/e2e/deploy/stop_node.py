"""`ray stop` for one node among others on a host: `python stop_node.py HOME NODE`.

Ray's own command stops every Ray of the host. This one stops what was started from that home folder for that
node, and what that has started.
"""

import sys

import psutil

STOP_S = 40


def belongs(process: psutil.Process) -> bool:
    try:
        environment = process.environ()
    except psutil.Error:
        return False
    return environment.get("HOME") == sys.argv[1] and environment.get("NODE_IP") == sys.argv[2]


me = psutil.Process()
spared = {me, *me.parents()}
mine = [process for process in psutil.process_iter() if process not in spared and belongs(process)]
family = {child for process in mine for child in process.children(recursive=True)} | set(mine)
for process in mine:
    process.terminate()
_, alive = psutil.wait_procs(family - spared, timeout=STOP_S)
for process in alive:
    process.kill()
