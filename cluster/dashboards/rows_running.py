"""The rows about what runs the cluster: autoscaling, routers, and the nodes as Ray sees them."""

from cluster.dashboards.grafana import Panel, Query, Row
from cluster.dashboards.promql import largest, metric, quantile, rate, total
from cluster.dashboards.rows_serving import BY_POOL, CLUSTER, MODEL, POOL, POOL_NAME

APPLICATION = f'{CLUSTER},application=~"$application"'
DEPLOYMENT, DEPLOYMENT_NAME = "application, deployment", "{{deployment}}"

AUTOSCALING = Row(
    "Autoscaling",
    (
        Panel(
            "Replicas wanted and there",
            (
                Query(largest(BY_POOL, metric("pool_wanted_replicas", *POOL)), f"{POOL_NAME} wanted"),
                Query(largest(BY_POOL, metric("pool_replicas", *POOL)), f"{POOL_NAME} there"),
            ),
            "short",
            "What the scaling policy asks for, and what the routers see.",
        ),
        Panel(
            "Serve's target",
            (
                Query(
                    largest(DEPLOYMENT, f"ray_serve_autoscaling_target_replicas{{{APPLICATION}}}"),
                    DEPLOYMENT_NAME,
                ),
            ),
            "short",
            "Replicas that Ray Serve is about to have.",
        ),
        Panel(
            "Healthy replicas",
            (
                Query(
                    total(DEPLOYMENT, f"ray_serve_deployment_replica_healthy{{{APPLICATION}}}"),
                    DEPLOYMENT_NAME,
                ),
            ),
            "short",
            "That passed Serve's last health check.",
        ),
    ),
)

ROUTERS = Row(
    "Routers",
    (
        Panel(
            "Event loop stall p99",
            (
                Query(largest("", metric("event_loop_stall_p99_seconds", CLUSTER)), "worst router"),
                Query(quantile(0.99, "", "event_loop_stall_seconds", CLUSTER), "all"),
            ),
            "s",
            "How late a timer of the event loop fires: tokens are late by as much.",
        ),
        Panel(
            "Choice of a replica",
            (
                Query(quantile(0.5, "", "routing_seconds", CLUSTER), "p50"),
                Query(quantile(0.99, "", "routing_seconds", CLUSTER), "p99"),
            ),
            "s",
            "Per leg, in the router's own process.",
        ),
        Panel(
            "Routers",
            (Query(f"count ({metric('event_loop_stall_p99_seconds', CLUSTER)})", "routers"),),
            "short",
            "Router replicas that report.",
            kind="stat",
        ),
        Panel(
            "Failed legs",
            (Query(rate(BY_POOL, metric("pool_failed_legs_total", *POOL)), POOL_NAME),),
            "ops",
            "Also those of requests that another replica then served.",
        ),
        Panel(
            "Failovers",
            (Query(rate("model", metric("failovers_total", *MODEL)), "{{model}}"),),
            "ops",
            "Attempts beyond the first.",
        ),
        Panel(
            "HTTP errors of Serve's front door",
            (
                Query(
                    rate("error_code", f"ray_serve_num_http_error_requests_total{{{CLUSTER}}}"),
                    "{{error_code}}",
                ),
            ),
            "reqps",
            "Ray Serve's own count, also of paths that do not exist.",
        ),
    ),
)

NODES = Row(
    "Nodes",
    (
        Panel(
            "CPU",
            (Query(f"ray_node_cpu_utilization{{{CLUSTER}}}", "{{ip}}"),),
            "percent",
            "Of each node, by Ray.",
        ),
        Panel(
            "Memory",
            (Query(f"ray_node_mem_used{{{CLUSTER}}}", "{{ip}}"),),
            "bytes",
            "In use on each node, by Ray.",
        ),
        Panel(
            "GPU",
            (Query(f"ray_node_gpus_utilization{{{CLUSTER}}}", "{{ip}} {{GpuIndex}}"),),
            "percent",
            "Of each GPU, by Ray.",
        ),
    ),
)
