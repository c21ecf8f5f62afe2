"""A load generator that leaves the cores to the servers: completions streamed, in a loop or all at once.

    python -m benchmarks.router_load --url http://127.0.0.1:8000 --model base --streams 32

HTTP/1.1 over plain TCP with kept connections, nothing else. Not covered: chat, TLS, an open loop; a failed
request is counted by its reason and not sent again. `benchmarks.load` checks every token instead.
"""

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import uvloop
from pydantic import BaseModel, ConfigDict

from benchmarks.load import random_letters
from benchmarks.router_stream import LoadError, Reply, StreamProtocol
from cluster.percentiles import percentile
from heliostat.errors import HeliostatError

CONNECT_TOGETHER = 256
"""More connections at once than a listen backlog holds would wait for a repeated SYN, a whole second."""

SPARE_FILES = 64


class LoadResult(BaseModel):
    """What one load gave. `tok_per_s` is that of the steady part, in which every stream was under way.

    `cpu_share` is the load generator's own CPU time over the wall time: 1.0 is one whole core.
    `most_open` is the largest number of requests that were sent and not yet ended. Without a single good
    stream all times are None.
    """

    model_config = ConfigDict(frozen=True)

    streams: int
    requests: int
    tokens: int
    events: int
    tok_per_s: float
    ttft_p50_ms: float | None
    ttft_p95_ms: float | None
    tpot_p50_ms: float | None
    tpot_p95_ms: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    wall_s: float
    cpu_share: float
    most_open: int
    failures: dict[str, int]


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go and what each asks for: one greedy completion of exactly `max_tokens` tokens."""

    url: str
    model: str
    prompt_tokens: int = 200
    max_tokens: int = 64

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        if parts.scheme != "http" or parts.hostname is None:
            raise HeliostatError(f"{self.url!r} is no http:// URL with a host")
        return parts.hostname, parts.port or 80

    def payload(self, prompt: str) -> bytes:
        """A whole HTTP request."""
        body = json.dumps(
            {
                "model": self.model,
                "prompt": prompt,
                "max_tokens": self.max_tokens,
                "temperature": 0.0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        host, port = self.address
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body


@dataclass(slots=True)
class _Run:
    """A load under way."""

    target: Target
    replies: list[list[Reply]] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    open_now: int = 0
    most_open: int = 0

    async def connect(self) -> StreamProtocol:
        host, port = self.target.address
        _, protocol = await asyncio.get_running_loop().create_connection(StreamProtocol, host, port)
        return protocol

    async def send(self, protocol: StreamProtocol, payload: bytes, replies: list[Reply]) -> None:
        """One request; its failure is counted."""
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            reply = await protocol.request(payload)
            if reply.tokens != self.target.max_tokens:
                raise LoadError(f"{reply.tokens} tokens came, not {self.target.max_tokens}")
            replies.append(reply)
        except LoadError as error:
            self.failures[str(error)] += 1
        finally:
            self.open_now -= 1

    async def stream(self, protocol: StreamProtocol, payloads: Sequence[bytes]) -> None:
        """One request after the other."""
        replies: list[Reply] = []
        self.replies.append(replies)
        for payload in payloads:
            try:
                if not protocol.open:
                    protocol = await self.connect()
                await self.send(protocol, payload, replies)
            except OSError as error:
                self.failures[f"{type(error).__name__} while connecting"] += 1
        protocol.close()


async def closed_loop(target: Target, *, streams: int, requests: int, seed: str = "load") -> LoadResult:
    """`streams` requests at a time, `requests` in each stream, every one with a prompt of its own."""
    rng = random.Random(seed)
    payloads = [
        [target.payload(random_letters(rng, target.prompt_tokens)) for _ in range(requests)]
        for _ in range(streams)
    ]
    allow_files(streams)
    run = _Run(target)
    protocols = await _connect_all(run, streams)
    began_s, cpu_s = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for protocol, mine in zip(protocols, payloads, strict=True):
            group.create_task(run.stream(protocol, mine))
    wall_s = time.perf_counter() - began_s
    return summarize(run.replies, run.failures, wall_s, time.process_time() - cpu_s, run.most_open)


async def open_streams(target: Target, *, streams: int = 4000, seed: str = "load") -> LoadResult:
    """One request on each of `streams` connections, all sent in one sweep; see `most_open`."""
    return await closed_loop(target, streams=streams, requests=1, seed=seed)


async def _connect_all(run: _Run, streams: int) -> list[StreamProtocol]:
    protocols: list[StreamProtocol] = []
    while len(protocols) < streams:
        few = min(CONNECT_TOGETHER, streams - len(protocols))
        try:
            protocols += await asyncio.gather(*(run.connect() for _ in range(few)))
        except OSError as error:
            raise HeliostatError(f"{run.target.url}: connection {len(protocols)}: {error}") from error
    return protocols


def summarize(
    replies: Sequence[Sequence[Reply]],
    failures: Counter[str],
    wall_s: float,
    cpu_s: float,
    most_open: int,
) -> LoadResult:
    """The result of a load, from the replies of each stream in their order."""
    good = [reply for stream in replies for reply in stream]
    tpots = [reply.tpot_ms for reply in good if reply.tpot_ms is not None]

    def at(values: Sequence[float], percent: float) -> float | None:
        return percentile(values, percent) if values else None

    return LoadResult(
        streams=len(replies),
        requests=len(good) + failures.total(),
        tokens=sum(reply.tokens for reply in good),
        events=sum(reply.events for reply in good),
        tok_per_s=steady_tok_per_s(replies),
        ttft_p50_ms=at([reply.ttft_ms for reply in good], 50),
        ttft_p95_ms=at([reply.ttft_ms for reply in good], 95),
        tpot_p50_ms=at(tpots, 50),
        tpot_p95_ms=at(tpots, 95),
        latency_p50_ms=at([reply.latency_ms for reply in good], 50),
        latency_p95_ms=at([reply.latency_ms for reply in good], 95),
        wall_s=wall_s,
        cpu_share=cpu_s / wall_s,
        most_open=most_open,
        failures=dict(failures),
    )


def steady_tok_per_s(replies: Sequence[Sequence[Reply]]) -> float:
    """Tokens a second from the moment when the last stream began until the first one had no more to send.

    Where that leaves nothing (one request per stream), from the first sending to the last byte.
    """
    streams = [stream for stream in replies if stream]
    if not streams:
        return 0.0
    begin_s = max(stream[0].first_s for stream in streams)
    end_s = min(stream[-1].last_s for stream in streams)
    if end_s <= begin_s or all(len(stream) == 1 for stream in streams):
        begin_s = min(stream[0].sent_s for stream in streams)
        end_s = max(stream[-1].last_s for stream in streams)
    tokens = sum(reply.tokens_between(begin_s, end_s) for stream in streams for reply in stream)
    return tokens / (end_s - begin_s)


def allow_files(connections: int) -> None:
    """Raise the soft limit of open files if need be. Raises HeliostatError where the hard one forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and need > hard:
        raise HeliostatError(f"{connections} connections need {need} open files; the limit is {hard}")
    if need > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def load_from_outside(target: Target, *, streams: int, requests: int, seed: str = "load") -> LoadResult:
    """`closed_loop` in a process of its own. Raises HeliostatError when that process fails."""
    options = {
        "--url": target.url,
        "--model": target.model,
        "--streams": streams,
        "--requests": requests,
        "--prompt-tokens": target.prompt_tokens,
        "--max-tokens": target.max_tokens,
        "--seed": seed,
    }
    line = [
        sys.executable,
        "-m",
        "benchmarks.router_load",
        *(str(part) for pair in options.items() for part in pair),
    ]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise HeliostatError(f"the load generator failed: {done.stderr.strip()[-2000:]}")
    return LoadResult.model_validate_json(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--requests", type=int, default=20, help="in each stream; 1 opens all at once")
    parser.add_argument("--prompt-tokens", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--seed", default="load")
    options = parser.parse_args()
    target = Target(options.url, options.model, options.prompt_tokens, options.max_tokens)
    load = closed_loop(target, streams=options.streams, requests=options.requests, seed=options.seed)
    print(uvloop.run(load).model_dump_json())


if __name__ == "__main__":
    main()
