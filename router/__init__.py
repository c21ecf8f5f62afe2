"""From an OpenAI request to a token stream: admission, policies, pipeline, telemetry view."""
