"""The books, checked by hand."""

import pytest

from heliostat.spec import Family, Model, Pool, Spec
from heliostat.wire import Load, Role
from router.accounts import Accounts, Outcome, Stage
from router.histogram import BOUNDS_MS, Histogram
from router.trace import Trace

PROMPT = tuple(range(100))
POOL = Pool(weights="w")
SPEC = Spec(
    family=Family(base="b"),
    prefill={"shared": POOL, "own": POOL},
    decode={"math": POOL, "code": POOL, "idle": POOL},
    models={
        "math": Model(prefill="shared", decode="math"),
        "code": Model(prefill="shared", decode="code"),
        "alone": Model(prefill="own", decode="code"),
    },
)


def trace(cached_tokens: int = 0) -> Trace:
    """100 prompt tokens of 1,000 bytes each; 2 s in the decode pool for 21 tokens."""
    return Trace(
        prefill_replica="p0", decode_replica="d0", cached_tokens=cached_tokens, output_tokens=21,
        handoff_bytes=100_000, save_ms=2.0, load_ms=3.0, attempts=1,
        started_s=10.0, admitted_s=10.1, prefilled_s=10.5, first_token_s=10.6,
    )  # fmt: skip


def accounts() -> Accounts:
    return Accounts(SPEC, lambda: 12.5)


def load(replica: str = "p0", rate: float = 0.0) -> Load:
    return Load(replica, 0, 0, 0, 0.0, 1, prefill_tokens_per_s=rate, domain="kv")


def serve(
    books: Accounts,
    model: str,
    cached_tokens: int = 0,
    cross_model_tokens: int = 0,
    replica: str = "p0",
    rate: float = 0.0,
) -> Trace:
    """A request from the end of its prefill to its end."""
    served = trace(cached_tokens)
    served.cross_model_tokens = cross_model_tokens
    books.prefilled(model, served, load(replica, rate))
    books.ended(model, PROMPT, served, Outcome.FINISHED)
    return served


def seen(histogram: Histogram) -> list[tuple[float, int]]:
    """Upper bounds of the buckets that are not empty, ms, with their counts."""
    pairs = zip((*BOUNDS_MS, float("inf")), histogram.counts, strict=True)
    return [(bound, count) for bound, count in pairs if count]


def test_a_finished_request_by_hand() -> None:
    books = accounts()
    books.ended("math", PROMPT, trace(cached_tokens=64), Outcome.FINISHED)
    figures = books.model("math")
    assert figures.requests == {**dict.fromkeys(Outcome, 0), Outcome.FINISHED: 1}
    assert (figures.prompt_tokens, figures.cached_tokens, figures.output_tokens) == (100, 64, 21)
    assert (figures.transfer_bytes, figures.failovers) == (100_000, 0)
    assert figures.decode_slot_s == pytest.approx(12.5 - 10.5)
    assert figures.kv_byte_s == pytest.approx(1000 * (100 + 121) / 2 * 2.0)
    assert {stage: seen(histogram) for stage, histogram in figures.stages.items()} == {
        Stage.ADMIT: [(100, 1)],
        Stage.PREFILL: [(500, 1)],  # 400 ms
        Stage.HANDOFF: [(5, 1)],
        Stage.DECODE: [(100, 1)],
        Stage.TTFT: [(700, 1)],  # 600 ms
        Stage.TPOT: [(100, 1)],  # 1,900 ms over 20 steps
        Stage.E2E: [(3000, 1)],  # 2,500 ms
    }


def test_a_pool_is_the_sum_of_its_models() -> None:
    books = accounts()
    for model in ("math", "code", "alone"):
        books.ended(model, PROMPT, trace(), Outcome.FINISHED)
    books.ended("code", PROMPT, trace(), Outcome.CANCELLED)
    shared, code = books.pool(Role.PREFILL, "shared"), books.pool(Role.DECODE, "code")
    assert (shared.requests[Outcome.FINISHED], shared.requests[Outcome.CANCELLED]) == (2, 1)
    assert (code.requests[Outcome.FINISHED], code.output_tokens) == (2, 63)
    assert code.decode_slot_s == pytest.approx(6.0)
    assert len(code.stages[Stage.TTFT]) == 3
    assert books.pool(Role.DECODE, "idle").prompt_tokens == 0
    assert books.model("code").output_tokens == 42  # summing up changes no model


def test_a_refused_request_has_no_tokens_and_only_its_outcome() -> None:
    books = accounts()
    books.ended("math", PROMPT, Trace(started_s=10.0), Outcome.REFUSED)
    figures = books.model("math")
    assert figures.requests[Outcome.REFUSED] == 1
    assert (figures.prompt_tokens, figures.decode_slot_s, figures.kv_byte_s) == (0, 0, 0)
    assert not any(len(histogram) for histogram in figures.stages.values())


def test_a_cancelled_request_says_nothing_of_its_length() -> None:
    books = accounts()
    books.ended("math", PROMPT, trace(), Outcome.CANCELLED)
    stages = books.model("math").stages
    assert (len(stages[Stage.TTFT]), len(stages[Stage.TPOT]), len(stages[Stage.E2E])) == (1, 0, 0)


def test_a_request_without_a_start_begins_with_its_admission() -> None:
    books, unnoted = accounts(), trace()
    unnoted.started_s = 0.0
    books.ended("math", PROMPT, unnoted, Outcome.FINISHED)
    stages = books.model("math").stages
    assert seen(stages[Stage.ADMIT]) == [(BOUNDS_MS[0], 1)]
    assert seen(stages[Stage.TTFT]) == [(500, 1)]


def test_every_attempt_moves_bytes_but_the_kv_is_there_once() -> None:
    books, twice = accounts(), trace()
    twice.attempts, twice.handoff_bytes = 2, 200_000
    books.ended("math", PROMPT, twice, Outcome.FINISHED)
    figures = books.model("math")
    assert (figures.transfer_bytes, figures.failovers) == (200_000, 1)
    assert figures.kv_byte_s == pytest.approx(1000 * 110.5 * 2.0)


def test_a_prompt_of_one_token_has_no_handoff() -> None:
    books = accounts()
    short = Trace(output_tokens=1, attempts=1, started_s=10, admitted_s=10, prefilled_s=10, first_token_s=11)
    books.ended("math", (1,), short, Outcome.FINISHED)
    figures = books.model("math")
    assert (figures.prompt_tokens, figures.kv_byte_s) == (1, 0)
    assert (len(figures.stages[Stage.HANDOFF]), len(figures.stages[Stage.TPOT])) == (0, 0)


def test_an_unknown_model_counts_as_nothing() -> None:
    books = accounts()
    books.ended("nobody", PROMPT, trace(), Outcome.FINISHED)
    assert [status.name for status in books.to_status()] == ["math", "code", "alone"]
    assert not any(sum(status.requests.values()) for status in books.to_status())


def test_a_prefill_is_booked_once_whatever_becomes_of_the_request() -> None:
    books = accounts()
    serve(books, "math")
    cancelled = trace(cached_tokens=96)
    cancelled.cross_model_tokens = 96
    books.prefilled("code", cancelled, load())
    assert books.model("code").cross_model_tokens == 0, "until it is over"
    books.ended("code", PROMPT, cancelled, Outcome.CANCELLED)
    assert books.model("code").cross_model_tokens == 96
    assert books.pool(Role.PREFILL, "shared").cross_model_tokens == 96
    assert books.model("math").cross_model_tokens == 0


def test_saved_time_is_reckoned_at_the_replicas_rate_or_the_last_of_its_pool() -> None:
    books = accounts()
    assert serve(books, "math", 64).saved_ms == 0, "no rate is known"
    assert serve(books, "math", 64, rate=4000.0).saved_ms == pytest.approx(16.0)
    assert serve(books, "code", 64, replica="p1", rate=8000.0).saved_ms == pytest.approx(8.0)
    assert serve(books, "math", 64).saved_ms == pytest.approx(8.0)
    assert serve(books, "alone", 64).saved_ms == 0, "another pool"


def test_status_shows_quantiles_from_the_buckets() -> None:
    books = accounts()
    for _ in range(10):
        books.ended("math", PROMPT, trace(cached_tokens=20), Outcome.FINISHED)
    status = books.to_status()[0]
    assert (status.name, status.requests["finished"], status.prompt_tokens) == ("math", 10, 1000)
    assert (status.cached_tokens, status.cross_model_tokens, status.output_tokens) == (200, 0, 210)
    assert status.ttft_p50_ms == pytest.approx(600)  # the middle of 500 to 700
    assert status.ttft_p95_ms == pytest.approx(690)
    assert status.tpot_p50_ms == pytest.approx(85)  # the middle of 70 to 100
    assert books.to_status()[1].tpot_p95_ms == 0


def test_a_histogram_without_values_and_one_beyond_its_bounds() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) == 0
    histogram.add(10 * BOUNDS_MS[-1])
    assert histogram.quantile(0.5) == BOUNDS_MS[-1]
    histogram.add(0.0, times=3)
    assert 0 < histogram.quantile(0.5) < BOUNDS_MS[0]


def test_a_model_that_comes_later_has_books_of_its_own() -> None:
    books = accounts()
    serve(books, "late")
    books.add("late", Model(prefill="own", decode="idle"))
    serve(books, "late")
    serve(books, "alone", 64, 64)
    assert books.model("late").requests[Outcome.FINISHED] == 1
    assert books.model("alone").cross_model_tokens == 64
    assert books.pool(Role.DECODE, "idle").output_tokens == 21
    assert [status.name for status in books.to_status()] == ["math", "code", "alone", "late"]


def test_a_removed_models_last_requests_are_booked_and_no_pool_shrinks() -> None:
    books = accounts()
    books.ended("code", PROMPT, trace(), Outcome.FINISHED)
    books.remove("code")
    books.ended("code", PROMPT, trace(), Outcome.FINISHED)
    assert books.model("code").output_tokens == 42
    assert books.pool(Role.DECODE, "code").output_tokens == 42
    assert [status.name for status in books.to_status()] == ["math", "alone"]


def test_a_name_that_comes_back_on_other_pools_moves_nothing() -> None:
    books = accounts()
    books.ended("math", PROMPT, trace(), Outcome.FINISHED)
    books.remove("math")
    books.add("math", Model(prefill="own", decode="idle"))
    books.ended("math", PROMPT, trace(), Outcome.FINISHED)
    for pool in ("math", "idle"):
        assert books.pool(Role.DECODE, pool).output_tokens == 21
    both = [account for account in books.accounts() if account.model == "math"]
    assert [(account.prefill, account.decode) for account in both] == [("shared", "math"), ("own", "idle")]
