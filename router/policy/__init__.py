"""Pure choices over plain values: candidates and a request in, a ranking with its reasons out."""

from router.policy.base import Candidate, Choice, Policy
from router.policy.decode import LeastLoad
from router.policy.prefill import FewestQueuedTokens

POLICIES: dict[str, Policy] = {
    "fewest_queued_tokens": FewestQueuedTokens(),
    "least_load": LeastLoad(),
}
"""By the name that a pool's request router is configured with; a new policy is a file and a line here."""

__all__ = ["POLICIES", "Candidate", "Choice", "FewestQueuedTokens", "LeastLoad", "Policy"]
