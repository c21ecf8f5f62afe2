"""Run the commands of the examples' READMEs again, and put their real output in its place.

    python examples/capture.py --base-url http://127.0.0.1:8000

A `bash` block that starts an example, followed by a `text` block, is such a command. A cluster of
examples/agents/cluster.yaml must be running, a new one: what was cached is part of the output.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
COMMAND = re.compile(
    r"^```bash\n\.venv/bin/python (examples/[^\n]+)\n```\n\n```text\n(.*?)^```", re.MULTILINE | re.DOTALL
)


def commands(page: str) -> list[str]:
    """The commands of a page that have their output below them."""
    return [found.group(1) for found in COMMAND.finditer(page)]


def with_outputs(page: str, outputs: list[str]) -> str:
    """The page with these outputs instead, in the order of its commands."""
    left = iter(outputs)
    return COMMAND.sub(
        lambda found: f"```bash\n.venv/bin/python {found.group(1)}\n```\n\n```text\n{next(left)}```", page
    )


def run(command: str, base_url: str) -> str:
    """What the command prints; raises CalledProcessError if it fails."""
    words = [sys.executable, *shlex.split(command), "--base-url", base_url]
    return subprocess.run(words, cwd=HERE.parent, check=True, text=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    """Every README below examples/ that has such commands."""
    parser = argparse.ArgumentParser(description="Put the examples' real output into their READMEs.")
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    base_url: str = parser.parse_args().base_url
    for file in sorted(HERE.glob("*/README.md")):
        page = file.read_text()
        outputs = []
        for command in commands(page):
            print(f"{file.parent.name}: {command}", flush=True)
            outputs.append(run(command, base_url))
        if outputs:
            file.write_text(with_outputs(page, outputs))


if __name__ == "__main__":
    main()
