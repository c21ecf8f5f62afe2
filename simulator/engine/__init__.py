"""One simulated replica: continuous batching, chunked prefill, KV space, preemption."""
