"""Our loggers end in Serve's log files, with their own level and fields."""

import logging
from collections.abc import Iterator

import pytest

from deployments.logs import PASSED_ON, SERVE_LOGGER, logging_config, pass_on_logs
from heliostat.spec import Logs


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def serve_log() -> Iterator[Kept]:
    """What arrives at Serve's logger; every logger is as before afterwards."""
    kept, serve = Kept(), logging.getLogger(SERVE_LOGGER)
    ours = [logging.getLogger(name) for name in PASSED_ON]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in ours]
    serve.addHandler(kept)
    yield kept
    serve.removeHandler(kept)
    for logger, (level, propagate, handlers) in zip(ours, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.handlers = propagate, handlers


def test_a_record_of_ours_arrives_once_with_its_fields(serve_log: Kept) -> None:
    pass_on_logs(Logs(level="info"))
    pass_on_logs(Logs(level="info"))
    logging.getLogger("router.request_log").info("request", extra={"prompt_tokens": 4})
    (record,) = serve_log.records
    assert (record.getMessage(), record.levelname, record.__dict__["prompt_tokens"]) == ("request", "INFO", 4)


def test_what_is_below_the_level_is_not_even_made(serve_log: Kept) -> None:
    pass_on_logs(Logs(level="warning"))
    logging.getLogger("deployments.cluster_view").info("quiet")
    logging.getLogger("deployments.cluster_view").warning("loud")
    assert [record.getMessage() for record in serve_log.records] == ["loud"]
    assert not logging.getLogger("router.request_log").isEnabledFor(logging.INFO)


def test_serves_own_settings_follow_the_spec() -> None:
    config = logging_config(Logs(level="debug", format="json"))
    assert (config.encoding, config.log_level, config.enable_access_log) == ("JSON", "DEBUG", False)
    assert logging_config(Logs()).encoding == "TEXT"
