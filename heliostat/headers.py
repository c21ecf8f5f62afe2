"""The headers that our clients and routers add to OpenAI's protocol. Any other server ignores them."""

SESSION = "x-heliostat-session"
"""A name for the conversation, or for a context that several models are asked over."""

DEADLINE = "x-heliostat-deadline"
"""Seconds that the client waits for a place at most; then it gets a 429."""

PRIORITY = "x-heliostat-priority"
"""An integer; lower is served first, as with vLLM's body field `priority`."""

EXPECTED_TOKENS = "x-heliostat-expected-tokens"
"""Output tokens that the client expects."""

REUSE = "x-heliostat-reuse"
"""`soon`: what this prompt begins with will be asked again soon."""

PREFILL = "x-heliostat-prefill"
DECODE = "x-heliostat-decode"
"""Which replicas served a request; the prefill header is absent for a prompt of one token."""

CACHED_TOKENS = "x-heliostat-cached-tokens"
"""Prompt tokens that came from a prefix cache."""

CROSS_MODEL_TOKENS = "x-heliostat-cross-model-tokens"
"""Those of the cached tokens that another model had brought."""

SAVED_MS = "x-heliostat-saved-ms"
"""What computing the cached tokens would have taken on that prefill replica, in ms."""
