"""What an operator sees of a cluster: the Grafana dashboard, and Prometheus' rules and alerts, as code."""
