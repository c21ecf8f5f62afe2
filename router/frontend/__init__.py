"""HTTP in: vLLM's OpenAI layer over an engine client to which the cluster is one engine."""
