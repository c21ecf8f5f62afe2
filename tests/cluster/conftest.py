"""One family of modules on disk, of a few bytes each, and servers to chat with and to measure."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from bench_server import Answering, Ended
from openai_server import Asked, Exchange, Json, OpenAIServer

from cluster.cli import main
from heliostat.spec import Spec
from kvtransfer.card import Method, ModuleCard, write_card
from kvtransfer.contract import digest_weights, read_module

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rope_theta": 10000.0,
    "vocab_size": 128,
}

Pools = dict[str, dict[str, object]]


@dataclass(frozen=True, slots=True)
class Family:
    """Writes modules and says what a spec of them is; the base is there from the beginning."""

    root: Path

    @property
    def base(self) -> str:
        return str(self.root / "base")

    def checkpoint(self, name: str, card: ModuleCard | None = None, **config: object) -> str:
        """A directory whose weights are its name."""
        folder = self.root / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG | config))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "model.safetensors").write_text(name)
        return self._carded(folder, card)

    def adapter(
        self, name: str, card: ModuleCard | None = None, targets: tuple[str, ...] = ("q_proj",), rank: int = 8
    ) -> str:
        folder = self.root / name
        folder.mkdir()
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": list(targets)}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "adapter_model.safetensors").write_text(name)
        return self._carded(folder, card)

    def card(
        self,
        method: Method,
        role: Literal["prefill", "decode", "both"] = "both",
        partner: str | None = None,
        kind: Literal["weights", "adapter"] = "weights",
    ) -> ModuleCard:
        """Of a module tuned from the base; `partner` is a directory."""
        base = read_module(Path(self.base))
        return ModuleCard(
            method=method,
            role=role,
            kind=kind,
            base=base.weights,
            partner=self.digest(partner) if partner else "",
            tokenizer=base.contract.tokenizer,
        )

    def digest(self, folder: str) -> str:
        """Of the weights in it."""
        return digest_weights(Path(folder))

    def spec(self, prefill: Pools, decode: Pools, models: Pools, **more: object) -> Spec:
        """Pools without `weights` have the base's."""
        pools = {
            role: {name: {"weights": self.base} | pool for name, pool in section.items()}
            for role, section in (("prefill", prefill), ("decode", decode))
        }
        return Spec.model_validate({"family": {"base": self.base}, "models": models} | pools | more)

    def _carded(self, folder: Path, card: ModuleCard | None) -> str:
        if card is not None:
            write_card(folder, card)
        return str(folder)


@pytest.fixture
def family(tmp_path: Path) -> Family:
    made = Family(tmp_path)
    made.checkpoint("base")
    return made


USAGE: Json = {"prompt_tokens": 20, "completion_tokens": 3}
HEADERS = {
    "x_heliostat_prefill": "prefill-x#1",
    "x_heliostat_decode": "decode-y#2",
    "x_heliostat_cached_tokens": "12",
    "x_heliostat_cross_model_tokens": "7",
}
WILD = "\x1b[2J\x1b]0;mine\x07cleared"
"""Commands to a terminal."""


class Talker:
    """An OpenAI server whose models say what they heard, or do what the question says.

    `unknown` keys of a request are refused.
    """

    def __init__(self, server: OpenAIServer) -> None:
        server.always = self._answer
        self.url = server.url
        self.lists_models = True
        self.unknown: frozenset[str] = frozenset()
        self.asked_chats: list[Asked] = []
        self.holding = asyncio.Event()
        self.left = asyncio.Event()

    @property
    def chats(self) -> list[Json]:
        return [asked.body for asked in self.asked_chats]

    async def _answer(self, exchange: Exchange) -> None:
        if exchange.asked.path == "/v1/models" and not self.lists_models:
            await self._hold(exchange)
            return
        if exchange.asked.path == "/v1/models":
            await exchange.answer({"data": [{"id": "math"}, {"id": "code"}]})
            return
        self.asked_chats.append(exchange.asked)
        body = exchange.asked.body
        question = body["messages"][-1]["content"]
        if refused := sorted(self.unknown & body.keys()):
            await exchange.answer({"error": {"message": f"unknown {refused[0]}"}}, 400)
        elif question == "refuse":
            await exchange.answer({"error": {"message": "no such thing"}}, 400)
        elif question == "refuse wildly":
            await exchange.answer({"error": {"message": WILD}}, 400)
        elif question == "silent":
            await self._hold(exchange)
        else:
            await exchange.head(**HEADERS)
            await self._stream(exchange, f"{body['model']} heard {question}", question)

    async def _stream(self, exchange: Exchange, text: str, question: str) -> None:
        if question in ("endless", "break off"):
            await exchange.text("so ")
            await exchange.text("far" if question == "endless" else "f")
            if question == "endless":
                await self._hold(exchange)
            else:
                exchange.drop()
            return
        if question == "escape":
            text = WILD
        for letter in text:
            await exchange.text(letter)
        await exchange.text("", "stop")
        await exchange.event({"choices": [], "usage": USAGE})
        await exchange.event("[DONE]")
        await exchange.end()

    async def _hold(self, exchange: Exchange) -> None:
        self.holding.set()
        await exchange.client_left()
        self.left.set()


@pytest.fixture
def talker(server: OpenAIServer) -> Talker:
    return Talker(server)


@pytest.fixture
def answering_server(server: OpenAIServer) -> Answering:
    return Answering(server)


@pytest.fixture
def bench(
    answering_server: Answering, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Awaitable[Ended]]:
    """The command in a thread; the server is in this one."""

    async def run(*args: str) -> Ended:
        file = tmp_path / "report.json"
        told = ["bench", "--url", answering_server.url, "--json", str(file), *args]
        status = await asyncio.to_thread(main, told)
        out, err = capsys.readouterr()
        return Ended(status, json.loads(file.read_text() or "{}") if file.exists() else {}, out, err)

    return run
