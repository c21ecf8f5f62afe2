"""The pictures of docs/ui.md: the live page over the quickstart's cluster of real engines, under load.

    python docs/screenshots.py                              starts the cluster, stops it at the end
    python docs/screenshots.py --url http://127.0.0.1:8000  one that runs

Needs `scripts/install-tools` (Chromium) and the extras `test` and `dev`.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from itertools import chain, cycle
from pathlib import Path

import httpx
from PIL import Image
from playwright.async_api import Browser, async_playwright

DOCS = Path(__file__).parent
QUICKSTART = DOCS.parent / "examples" / "quickstart"
CLIENTS = {"base": 1, "home": 3, "mirror": 2, "spell": 6}
"""How many ask each model, one prompt after the other."""

PROMPTS = {"base": ("base", "spell")}
"""Whose held-out prompts a model is asked, if not its own: base and spell share a prefill pool."""

SHOTS = (("light", "light", 1180), ("dark", "dark", 1180), ("narrow", "light", 390))
WARM_S = 20
COLOURS = 256
"""Enough for a page of flat colours, and a third of the bytes."""


@asynccontextmanager
async def served(url: str | None) -> AsyncIterator[str]:
    """The address of the cluster that runs, or of one of our own."""
    if url:
        yield url
        return
    command = [sys.executable, "-m", "cluster.cli", "serve", "--ray", "local", "--port", "0"]
    server = await asyncio.create_subprocess_exec(
        *command, str(QUICKSTART / "cluster.yaml"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert server.stdout is not None
    try:
        async for line in server.stdout:
            print(line.decode(), end="")
            if b"ready: http://" in line:
                yield line.decode().split()[1].removesuffix("/v1")
                break
    finally:
        if server.returncode is None:
            server.terminate()
        await server.communicate()


@asynccontextmanager
async def loaded(url: str) -> AsyncIterator[None]:
    """While the block runs, clients ask every model what it was trained for."""
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)) as http:
        asking = [
            asyncio.create_task(ask(http, model)) for model, many in CLIENTS.items() for _ in range(many)
        ]
        try:
            yield
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


async def ask(http: httpx.AsyncClient, model: str) -> None:
    tasks = PROMPTS.get(model, (model,))
    files = [(QUICKSTART / "heldout" / f"{task}.jsonl").read_text().splitlines() for task in tasks]
    for line in cycle(chain.from_iterable(zip(*files, strict=True))):
        messages = [{"role": "user", "content": json.loads(line)["prompt"]}]
        body = {"model": model, "messages": messages, "temperature": 0, "max_tokens": 64}
        (await http.post("/v1/chat/completions", json=body)).raise_for_status()


async def shoot(browser: Browser, url: str, name: str, scheme: str, width: int) -> None:
    page = await browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
    await page.goto(f"{url}/ui")
    await page.wait_for_selector(".model[data-model=home]")
    await page.click(".model[data-model=home] button")
    await page.fill("textarea", "turn my lamp to 40")
    await page.wait_for_timeout(8000)  # rates are of four seconds
    await page.click("button[type=submit]")
    await page.wait_for_selector("button[name=stop]:disabled", state="attached")
    await page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    await page.mouse.move(0, 0)
    await page.wait_for_timeout(1500)  # the next beat, and the end of every transition
    await page.wait_for_function("() => document.querySelectorAll('.bars .busy').length > 1")
    picture = Image.open(BytesIO(await page.screenshot(full_page=True))).convert("RGB")
    path = DOCS / "ui" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    picture.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KiB")
    await page.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", help="of a running cluster of examples/quickstart/cluster.yaml")
    async with served(parser.parse_args().url) as url, loaded(url), async_playwright() as playwright:
        await asyncio.sleep(WARM_S)
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for shot in SHOTS:
            await shoot(browser, url, *shot)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
