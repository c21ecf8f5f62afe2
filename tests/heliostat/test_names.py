"""`heliostat` has the client's names, and imports the client only for who uses one."""

import subprocess
import sys

import heliostat
from heliostat import client

LAZY = """
import sys
import heliostat.errors
assert "heliostat.client" not in sys.modules
names = {}
exec("from heliostat import *", names)
assert "heliostat.client" in sys.modules
print(*sorted(name for name in names if not name.startswith("_")))
"""


def test_tab_completion_finds_the_clients_names() -> None:
    assert {*client.__all__, "errors", "__version__"} <= set(dir(heliostat))


def test_a_star_imports_the_clients_names_and_only_then_the_client() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == client.__all__
