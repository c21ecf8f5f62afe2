"""ICaRus (arXiv 2603.13281) on vLLM 0.32: the frozen base writes all KV, adapters only read it."""
