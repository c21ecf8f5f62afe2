"""The Ray Serve application: pools, replicas, engines, and the one place that wires them together."""
