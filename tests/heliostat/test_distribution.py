"""`heliostat-client`, as an agent author gets it: built, installed alone, and asked for an answer."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

import heliostat

ROOT = Path(__file__).parents[2]
UV = Path(sysconfig.get_path("scripts")) / "uv"
NEEDED = {"annotated_types", "anyio", "certifi", "h11", "heliostat", "httpcore", "httpx", "idna", "pydantic"}
NEEDED |= {"pydantic_core", "typing_extensions", "typing_inspection"}
"""What is imported beside the standard library; its time is in `benchmarks/results/client_import.json`."""

AGENT = """
import asyncio, json, sys
from importlib.metadata import packages_distributions

from heliostat import AsyncClient


async def main() -> None:
    async with AsyncClient(sys.argv[1]) as client, client.context(system="Be brief.") as context:
        answers = await context.ask_all({"math": "1 + 1?", "code": "print?"})
    of_us = [name for name, homes in packages_distributions().items() if "heliostat-client" in homes]
    answered = {model: answer.text for model, answer in answers.items()}
    print(json.dumps([answered, of_us, sorted(sys.modules)]))


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = str(tmp_path_factory.mktemp("wheel"))
    (built,) = WheelBuilder(str(ROOT / "heliostat")).build(directory=folder, versions=["standard"])
    return Path(built)


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and what it asks for, and no more."""
    python = tmp_path_factory.mktemp("alone") / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, python.parents[1])
    install = (UV, "pip", "install", "--quiet", "--python", python)
    install += ("--constraints", ROOT / "constraints.txt", wheel)
    # All of it lies in uv's cache where `scripts/install` has run; only where not is an index asked.
    index = ("--default-index", os.environ["PIP_INDEX_URL"]) if "PIP_INDEX_URL" in os.environ else ()
    for place in (("--offline",), index):
        done = subprocess.run([*install, *place], capture_output=True, text=True)
        if done.returncode == 0:
            return python
    reason = f"there is nothing to install from: {done.stderr}"
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    folder = ROOT / "heliostat"
    here = {f"heliostat/{file.relative_to(folder)}" for file in folder.rglob("*.py")}
    assert {name for name in packed if ".dist-info/" not in name} == here | {"heliostat/py.typed"}


def test_both_distributions_are_of_one_version_and_licence() -> None:
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert server["dependencies"] == [f"heliostat-client[server]=={heliostat.__version__}"]
    assert (ROOT / "heliostat" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


async def test_alone_in_an_environment_it_gets_answers(alone: Path, server, answering) -> None:
    """No server's package and no YAML is there; the modules are counted, since times would flake."""
    server.always = answering("all right")
    told = await server.run(alone, "-I", "-c", AGENT, server.url)
    answers, of_us, modules = json.loads(told)
    assert answers == {"math": "all right", "code": "all right"}
    assert of_us == ["heliostat"]
    foreign = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    assert {module for module in foreign if not module.startswith("_")} == NEEDED
