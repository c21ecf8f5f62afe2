"""The headers that our clients and routers add to OpenAI's protocol. Any other server ignores them."""

SESSION = "x-heliostat-session"
"""A name for the conversation, or for a context that several models are asked over."""

DEADLINE = "x-heliostat-deadline"
"""Seconds that the client waits for a place at most; then it gets a 429."""

PRIORITY = "x-heliostat-priority"
"""As the body's `priority` (vLLM's field), which wins where both are given: lower goes first."""

EXPECTED_TOKENS = "x-heliostat-expected-tokens"
"""Output tokens that the client expects; admission and placement reckon with them."""

REUSE = "x-heliostat-reuse"
"""`soon`: the beginning of this prompt will be asked again soon."""

PREFILL = "x-heliostat-prefill"
DECODE = "x-heliostat-decode"
"""Which replicas served a request; the prefill header is absent for a prompt of one token."""

CACHED_TOKENS = "x-heliostat-cached-tokens"
CROSS_MODEL_TOKENS = "x-heliostat-cross-model-tokens"
SAVED_MS = "x-heliostat-saved-ms"
"""Prompt tokens that were not computed again, those of them that another model had brought, and the time that
it would have taken; sums over the prompts of a request. The last one is absent while no rate is known."""
