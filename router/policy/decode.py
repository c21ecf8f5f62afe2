"""Decode: the replica where one more request costs least, itself and those already there."""

import numpy as np

from router.policy.base import Candidates, Column, LegRequest, Ranking, known_or_median, outside, rank_by

OVER_TARGET = 10.0
"""A millisecond of TPOT beyond the target costs as much as so many below it."""

NEAR_TARGET = 0.95
"""The part of the target from which on that holds: contexts grow until their answers end."""

SAME = 0.01
"""As in `router.policy.prefill`."""


class MarginalLatency:
    """Milliseconds that one more request costs, asked when there is KV to read:

        wait for a slot and for KV headroom
      + expected output * TPOT(b+1)              what it takes itself
      + b * (TPOT(b+1) - TPOT(b)) * output left  what it takes from the b others
      + loading its adapter, and (ICaRus) computing what is not cached of its prompt

    Milliseconds beyond the target count several times, the request's own and the others' alike: else replicas
    would sort themselves into fast ones with few long contexts and slow ones with many short ones.

    A step's time is `base + per_request * b + per_token * context`, as each replica measures it; TPOT grows
    with the batch, whatever models the batch serves, so a decode pool is balanced as one. A replica that
    has measured nothing is taken for a typical one of its pool, and so is what one that has measured a base
    alone pays for another request. In a pool where none knows, a step costs 1 per request, which ranks by
    load.
    """

    def rank(self, candidates: Candidates, request: LegRequest) -> Ranking:
        running = candidates.running
        output = max(request.expected_tokens, 1)
        context = candidates.context_tokens
        step = _StepTime(candidates)
        now = step.at(running, context)
        # The request's context grows from its prompt to prompt plus output: half of it on average.
        then = step.at(running + 1, context + request.num_tokens + output / 2)
        waits = _wait(candidates, request.num_tokens + output, output * now)
        others = running * (then - now) * (output / 2)
        costs = waits + output * then + others + candidates.adapter_ms
        if request.reuses:
            costs = costs + step.rows(request.num_tokens - candidates.cached_tokens)
        if request.tpot_target_ms > 0:
            limit = NEAR_TARGET * request.tpot_target_ms
            over, before = np.maximum(then - limit, 0.0), np.maximum(now - limit, 0.0)
            costs = costs + OVER_TARGET * output * (over + running * (over - before) / 2)

        def explain(index: int) -> str:
            return (
                f"{waits[index]:.1f} ms wait, {output} tokens at {then[index]:.2f} ms, "
                f"{others[index]:.1f} ms to {running[index]:.0f} others"
            )

        return rank_by(costs, candidates, request, explain, SAME, outside(len(costs), request))


class LeastLoad:
    """Fewest requests computing or waiting; KV use (0 to 1, so less than one request) breaks ties."""

    def rank(self, candidates: Candidates, request: LegRequest) -> Ranking:
        requests = candidates.running + candidates.waiting
        limits = candidates.kv_tokens
        free = np.divide(candidates.free_kv_tokens, limits, out=np.ones_like(limits), where=limits > 0)
        use = np.clip(1.0 - free, 0.0, 0.999)
        return rank_by(
            requests + use,
            candidates,
            request,
            lambda index: f"{requests[index]:.0f} requests, KV {use[index]:.0%}",
        )


class _StepTime:
    """The step times of a pool, ms."""

    def __init__(self, candidates: Candidates) -> None:
        base, per_request = candidates.step_base_ms, candidates.step_per_request_ms
        per_token = candidates.step_per_token_ms
        sloped = (per_request + per_token) > 0
        self._base = known_or_median(base, sloped | (base > 0), 0.0)
        # A base alone is a batch that never changed: taken at its word, one more request would cost nothing
        # there, and every router would send all it has until the next report.
        self._per_request = known_or_median(per_request, sloped, 1.0)
        self._per_token = known_or_median(per_token, sloped, 0.0)

    def rows(self, tokens: Column) -> Column:
        """So many tokens of a prompt beside the batch: each is one row more, once."""
        return np.maximum(tokens, 0.0) * self._per_request

    def at(self, requests: Column, context: Column) -> Column:
        return self._base + self._per_request * requests + self._per_token * context


def _wait(candidates: Candidates, kv_tokens: int, lifetime_ms: Column) -> Column:
    """Until there is a slot and room for that much KV: running requests end one by one, evenly spread
    over the lifetime of one, and each takes its share of the KV with it.

    A replica without a slot or without room costs one lifetime more. Who waits for a slot has no first token,
    which is worse than a slower next one; and should it begin without room all the same, somebody is
    preempted there, and has to be handed off and decoded again.
    """
    running = np.maximum(candidates.running, 1.0)
    limits = candidates.max_running
    busy = (limits > 0) & (candidates.running + candidates.waiting >= limits)
    ends = candidates.waiting + busy * (1.0 + running)
    missing = kv_tokens - candidates.free_kv_tokens
    full = missing > 0
    if full.any():
        # What the running ones do not hold, waiting for them does not free.
        used = np.maximum(candidates.kv_tokens - candidates.free_kv_tokens, missing)
        ends = (
            np.maximum(ends, np.where(full, np.ceil(missing * running / np.maximum(used, 1.0)), 0.0))
            + full * running
        )
    waits: Column = ends * lifetime_ms / running
    return waits
