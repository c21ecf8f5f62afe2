"""Our log lines in Ray Serve's log files, in the level and format that the spec says.

Serve hands its `LoggingConfig` to every replica: a rotating file per replica, text or JSON, with deployment,
replica and request id in each line. Code of ours logs under its own name, so its records are passed on to
Serve's logger, which is the documented way into these files. Without that they end in stderr, which Serve's
throughput mode takes for lines of level INFO.
"""

import logging

from ray.serve.schema import LoggingConfig

from heliostat.spec import Logs

SERVE_LOGGER = "ray.serve"
PASSED_ON = ("deployments", "router", "kvtransfer", "simulator", "opentelemetry")


class _ToServe(logging.Handler):
    """Hands records on as they are: name, level and fields stay."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger(SERVE_LOGGER).handle(record)


def logging_config(logs: Logs) -> LoggingConfig:
    """For every deployment. Serve's access log stays off: a line per leg would say less than ours."""
    return LoggingConfig(encoding=logs.format.upper(), log_level=logs.level.upper(), enable_access_log=False)


def pass_on_logs(logs: Logs) -> None:
    """In a replica's process, before anything of ours has something to say; twice is once."""
    for name in PASSED_ON:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _ToServe) for handler in logger.handlers):
            logger.addHandler(_ToServe())
        logger.setLevel(logs.level.upper())
        logger.propagate = False
