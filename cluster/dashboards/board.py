"""The dashboard: its variables and its rows."""

from cluster.dashboards.grafana import Dashboard, Variable
from cluster.dashboards.rows_running import AUTOSCALING, NODES, ROUTERS
from cluster.dashboards.rows_serving import ADMISSION, MODELS, POOLS
from cluster.dashboards.rows_sharing import SHARING, TRANSFERS

HELIOSTAT = Dashboard(
    uid="heliostat",
    title="Heliostat",
    description="Many fine-tuned models from shared prefill and decode pools.",
    variables=(
        Variable("job", "Cluster", "label_values(ray_heliostat_pool_replicas, job)"),
        Variable(
            "application",
            "Application",
            'label_values(ray_serve_deployment_replica_healthy{job=~"$job"}, application)',
        ),
        Variable("pool", "Pool", 'label_values(ray_heliostat_pool_replicas{job=~"$job"}, pool)'),
        Variable("model", "Model", 'label_values(ray_heliostat_model_pool{job=~"$job"}, model)'),
    ),
    rows=(POOLS, MODELS, TRANSFERS, SHARING, ADMISSION, AUTOSCALING, ROUTERS, NODES),
    tags=("heliostat", "ray", "llm"),
)
