"""Spans and log lines of a whole cluster: a real collector gets them, and every request is one tree."""

import json
import random
from pathlib import Path

import psutil
import pytest

from heliostat.wire import Role

pytestmark = pytest.mark.sim

ONE_PROMPT = (
    *("admit", "prefill", "route", "engine prefill"),
    *("decode", "route", "engine decode", "handoff load"),
)
"""Spans below a prompt's; a sim engine's save takes no time."""

ROUTER = "ray::ServeReplica:heliostat:router"


@pytest.fixture(autouse=True)
def ours(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--cluster-url"):
        pytest.skip("the cluster at --cluster-url sends its spans elsewhere")


def prompt(seed: object, length: int = 40) -> list[int]:
    rng = random.Random(f"trace-{seed}")
    return [rng.randint(60, 90) for _ in range(length)]


def new_trace() -> str:
    return f"{random.getrandbits(128) | 1:032x}"


def parent(trace_id: str, sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-00000000000000aa-{'01' if sampled else '00'}"}


def routers(status) -> list[psutil.Process]:
    """Siblings of any replica, for Ray's daemon is the parent of them all."""
    pid = status.pools[0].replicas[0].pid
    siblings = psutil.Process(pid).parent().children()
    return [p for p in siblings if p.name().startswith(ROUTER[:15]) and ROUTER in " ".join(p.cmdline())]


def serve_logs(processes) -> set[Path]:
    """Serve's log files that they have open."""
    files = {Path(file.path) for process in processes for file in process.open_files()}
    return {file for file in files if file.parent.name == "serve" and file.suffix == ".log"}


def of_trace(spans, trace_id: str):
    return [span for span in spans if span.trace_id == trace_id]


async def traced(sim, collector, trace_id: str, count: int, **body: object):
    """One completion in that trace, and its spans once so many are there."""
    headers = {**parent(trace_id), "tracestate": "vendor=x", "x-request-id": f"id-{trace_id[:8]}"}
    answer = await sim.http.post("/v1/completions", json=body, headers=headers)
    await collector.wait_for(lambda spans: len(of_trace(spans, trace_id)) >= count)
    return answer, of_trace(collector.spans, trace_id)


def shape(spans, root: str, depth: int = 0) -> list[tuple[int, str, str, str]]:
    """The tree below a span, in the order of time."""
    found = []
    for span in sorted((s for s in spans if s.parent_id == root), key=lambda s: (s.start_ns, s.name)):
        found += [(depth, span.name, span.kind, span.service), *shape(spans, span.span_id, depth + 1)]
    return found


async def test_one_request_is_one_tree_from_the_clients_span_to_the_replicas(sim, collector) -> None:
    trace_id = new_trace()
    ids = prompt("tree")
    answer, spans = await traced(sim, collector, trace_id, 10, model="home", prompt=ids, max_tokens=5)
    assert shape(spans, "00000000000000aa") == [
        (0, "POST /v1/completions", "SERVER", "heliostat-router"),
        (1, "text_completion home", "INTERNAL", "heliostat-router"),
        (2, "admit", "INTERNAL", "heliostat-router"),
        (2, "prefill", "CLIENT", "heliostat-router"),
        (3, "route", "INTERNAL", "heliostat-router"),
        (3, "engine prefill", "SERVER", "heliostat-prefill-home"),
        (2, "decode", "CLIENT", "heliostat-router"),
        (3, "route", "INTERNAL", "heliostat-router"),
        (3, "engine decode", "SERVER", "heliostat-decode-base"),
        (4, "handoff load", "INTERNAL", "heliostat-decode-base"),
    ]
    assert {span.state for span in spans} == {"vendor=x"}
    by_name = {span.name: span for span in spans}
    assert answer.headers["traceresponse"] == f"00-{trace_id}-{by_name['POST /v1/completions'].span_id}-01"
    whole = by_name["text_completion home"].attributes
    assert (whole["gen_ai.request.model"], whole["heliostat.outcome"]) == ("home", "finished")
    assert (whole["gen_ai.usage.input_tokens"], whole["gen_ai.usage.output_tokens"]) == (40, 5)
    for role, header in (("prefill", "x-heliostat-prefill"), ("decode", "x-heliostat-decode")):
        replica = answer.headers[header]
        assert whole[f"heliostat.{role}.replica"] == replica
        assert by_name[role].attributes["heliostat.replica"] == replica
        assert by_name[f"engine {role}"].instance == replica
    starts = [
        by_name[n].start_ns for n in ("POST /v1/completions", "text_completion home", "admit", "prefill")
    ]
    assert starts == sorted(starts)
    assert by_name["prefill"].end_ns <= by_name["decode"].start_ns
    for span in spans:
        assert span.start_ns <= span.end_ns
    for role in ("prefill", "decode"):
        (route,) = [s for s in spans if s.name == "route" and s.parent_id == by_name[role].span_id]
        assert route.attributes["heliostat.replica"] == by_name[f"engine {role}"].instance
        assert route.end_ns <= by_name[f"engine {role}"].start_ns, "chosen before the replica has it"


async def test_a_parent_that_is_not_sampled_and_a_request_without_one_leave_no_span(sim, collector) -> None:
    silent = new_trace()
    body = {"model": "home", "prompt": prompt("silent"), "max_tokens": 3}
    answer = await sim.http.post("/v1/completions", json=body, headers=parent(silent, sampled=False))
    assert answer.headers["traceresponse"].startswith(f"00-{silent}-")
    assert answer.headers["traceresponse"].endswith("-00")
    rootless = await sim.http.post("/v1/completions", json=body)
    assert rootless.headers["traceresponse"].endswith("-00")
    # Each process sends in order: what comes later from both routers shows that nothing else will come.
    later: set[str] = set()
    while len(later) < sim.cluster.spec.router.replicas:
        trace_id = new_trace()
        _, spans = await traced(sim, collector, trace_id, 10, **body)
        later |= {span.instance for span in spans if span.name == "POST /v1/completions"}
    quiet = {silent, rootless.headers["traceresponse"][3:35]}
    assert not [span for span in collector.spans if span.trace_id in quiet]


async def test_every_attempt_shows_when_a_decode_replica_dies(sim, collector) -> None:
    trace_id, ids, num_tokens = new_trace(), prompt("dies"), 1200
    body = {"model": "home", "prompt": ids, "max_tokens": num_tokens}
    stream = await sim.open(headers=parent(trace_id), **body)
    victim = stream.response.headers["x-heliostat-decode"]
    (process,) = [r for r in await sim.replicas(Role.DECODE, "base") if r.name == victim]
    psutil.Process(process.pid).kill()
    await stream.read()
    assert stream.tokens == {0: sim.expected("home", ids, num_tokens)}

    def closed(spans) -> bool:
        return any(span.name == "POST /v1/completions" for span in of_trace(spans, trace_id))

    await collector.wait_for(closed)
    spans = [s for s in of_trace(collector.spans, trace_id) if s.kind == "CLIENT"]
    legs = {(span.name, span.attributes["heliostat.attempt"]): span for span in spans}
    assert legs.keys() == {("prefill", 1), ("decode", 1), ("prefill", 2), ("decode", 2)}
    failed, good = legs["decode", 1], legs["decode", 2]
    assert failed.attributes["heliostat.replica"] == victim
    assert failed.attributes["error.type"] == "HandoffFailedError"
    assert "lost" in failed.error
    assert good.attributes["heliostat.replica"] not in ("", victim)
    assert not good.error
    counts = [leg.attributes["heliostat.output_tokens"] for leg in (failed, good)]
    assert all(counts) and sum(counts) == num_tokens
    assert legs["prefill", 2].start_ns >= failed.end_ns

    async def there() -> bool:
        return len(await sim.replicas(Role.DECODE, "base")) == 2

    await sim.until(there)


async def test_a_second_try_may_have_the_name_of_a_first_one_that_was_broken_off(sim) -> None:
    headers = {"x-request-id": f"again-{new_trace()}"}
    ids = prompt("again")
    for _ in range(4):
        stream = await sim.open(headers=headers, model="home", prompt=ids, max_tokens=1500)
        assert stream.response.headers["x-request-id"] == headers["x-request-id"]
        await stream.response.aclose()
    whole = await (await sim.open(headers=headers, model="home", prompt=ids, max_tokens=30)).read()
    assert whole.tokens == {0: sim.expected("home", ids, 30)}
    assert whole.done and not whole.error


async def test_every_request_is_one_line_in_its_routers_log(sim) -> None:
    trace_id, request_id = new_trace(), f"line-{new_trace()}"
    headers = {**parent(trace_id), "x-request-id": request_id}
    body = {"model": "home", "prompt": prompt("line"), "max_tokens": 7}
    answer = await sim.http.post("/v1/completions", json=body, headers=headers)
    refused = {"x-request-id": f"refused-{request_id}"}
    wrong = {"model": "nobody", "prompt": "x"}
    assert (await sim.http.post("/v1/completions", json=wrong, headers=refused)).status_code == 404
    lines = await log_lines(sim, {request_id, refused["x-request-id"]})
    (line,) = lines[request_id]
    assert line["message"] == "request" and line["levelname"] == "INFO"
    assert (line["model"], line["outcome"], line["status"]) == ("home", "finished", 200)
    assert (line["prompt_tokens"], line["output_tokens"], line["attempts"]) == (40, 7, 1)
    assert line["prefill_replica"] == answer.headers["x-heliostat-prefill"]
    assert line["decode_replica"] == answer.headers["x-heliostat-decode"]
    assert line["trace_id"] == trace_id
    assert 0 < line["ttft_ms"] <= line["duration_ms"]
    (line,) = lines[refused["x-request-id"]]
    assert (line["status"], line["outcome"]) == (404, "failed")
    assert "model" not in line, "a name that nobody serves is a client's text"


async def log_lines(sim, request_ids: set[str]) -> dict[str, list[dict[str, object]]]:
    """The request lines of the routers' logs by request id, once all of these are there."""
    found: dict[str, list[dict[str, object]]] = {}

    async def all_there() -> bool:
        found.clear()
        for file in serve_logs(routers(await sim.status())):
            for text in file.read_text().splitlines():
                line = json.loads(text)
                if line["message"] == "request":
                    found.setdefault(line["request_id"], []).append(line)
        return request_ids <= found.keys()

    await sim.until(all_there)
    return found


async def test_neither_prompt_nor_answer_is_in_any_span_or_log(sim, collector) -> None:
    """As text, and as token ids however they are written."""
    trace_id, text = new_trace(), "Tell nobody that the vault opens with Zyzzyva"
    headers = {**parent(trace_id), "x-request-id": f"secret-{trace_id}"}
    body = {"model": "home", "prompt": text, "max_tokens": 60, "return_token_ids": True}
    answer = (await sim.http.post("/v1/completions", json=body, headers=headers)).json()["choices"][0]
    assert len(answer["text"]) > 20
    await collector.wait_for(lambda spans: len(of_trace(spans, trace_id)) >= 10)
    await log_lines(sim, {headers["x-request-id"]})
    status = await sim.status()
    replicas = [psutil.Process(replica.pid) for pool in status.pools for replica in pool.replicas]
    files = serve_logs([*routers(status), *replicas])
    assert len(files) > 5
    written = b"".join(file.read_bytes() for file in files) + b"".join(collector.bodies)
    assert trace_id.encode() in written and bytes.fromhex(trace_id) in written, "we look in the right places"
    for ids in (answer["prompt_token_ids"], answer["token_ids"]):
        for separator in (", ", ",", " "):
            assert separator.join(map(str, ids[:6])).encode() not in written
        assert bytes(ids[:6]) not in written
    for secret in ("vault", "Zyzzyva", text[:12], answer["text"][:8], json.dumps(answer["text"])[1:9]):
        assert secret.encode() not in written, secret


async def test_spans_of_several_prompts_do_not_mix(sim, collector) -> None:
    trace_id, prompts = new_trace(), [prompt(n) for n in range(3)]
    _, spans = await traced(sim, collector, trace_id, 1 + 3 * 9, model="home", prompt=prompts, max_tokens=3)
    whole = [span for span in spans if span.name == "text_completion home"]
    assert len(whole) == 3
    for span in whole:
        names = sorted(name for _, name, *_ in shape(spans, span.span_id))
        assert names == sorted(ONE_PROMPT)


async def test_requests_that_end_early_are_reported_as_that(sim, collector) -> None:
    trace_id = new_trace()
    headers = {**parent(trace_id), "x-request-id": f"early-{trace_id}"}
    stream = await sim.open(headers=headers, model="home", prompt=prompt("early"), max_tokens=1500)
    await stream.response.aclose()
    await collector.wait_for(
        lambda spans: any(s.name == "text_completion home" for s in of_trace(spans, trace_id))
    )
    (whole,) = [s for s in of_trace(collector.spans, trace_id) if s.name == "text_completion home"]
    assert whole.attributes["heliostat.outcome"] == "cancelled"
    (leg,) = [s for s in of_trace(collector.spans, trace_id) if s.name == "decode"]
    assert leg.attributes["heliostat.cut"] is True and not leg.error
    lines = await log_lines(sim, {headers["x-request-id"]})
    assert [line["outcome"] for line in lines[headers["x-request-id"]]] == ["cancelled"]
