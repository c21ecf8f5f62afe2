"""A request's way as OpenTelemetry spans: made in one go when it is over, from what its trace has noted."""
