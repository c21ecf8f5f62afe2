"""`heliostat-client`, as an agent author gets it: built, installed alone, and asked for an answer."""

import json
import sys
import tomllib
import zipfile
from pathlib import Path

import heliostat

ROOT = Path(__file__).parents[2]
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


def test_the_wheel_holds_the_package_and_nothing_else(client_wheel: Path) -> None:
    packed = set(zipfile.ZipFile(client_wheel).namelist())
    folder = ROOT / "heliostat"
    here = {f"heliostat/{file.relative_to(folder)}" for file in folder.rglob("*.py")}
    assert {name for name in packed if ".dist-info/" not in name} == here | {"heliostat/py.typed"}


def test_both_distributions_are_of_one_version_and_licence() -> None:
    server = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert server["dependencies"] == [f"heliostat-client[server]=={heliostat.__version__}"]
    assert (ROOT / "heliostat" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


async def test_alone_in_an_environment_it_gets_answers(client_alone: Path, server, answering) -> None:
    """No server's package and no YAML is there; the modules are counted, since times would flake."""
    server.always = answering("all right")
    told = await server.run(client_alone, "-I", "-c", AGENT, server.url)
    answers, of_us, modules = json.loads(told)
    assert answers == {"math": "all right", "code": "all right"}
    assert of_us == ["heliostat"]
    foreign = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    assert {module for module in foreign if not module.startswith("_")} == NEEDED
