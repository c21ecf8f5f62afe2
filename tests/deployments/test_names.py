"""Names are read as they were made."""

import pytest

from deployments.names import (
    APP_NAME,
    application_label,
    application_name,
    deployment_name,
    is_our_application,
    pool_key,
)
from heliostat.wire import Role

KEYS = [(Role.PREFILL, "math"), (Role.DECODE, "shared"), (Role.PREFILL, "with-a-dash")]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_pool_is_found_by_its_names(key) -> None:
    assert pool_key(deployment_name(*key)) == key
    assert is_our_application(application_name(*key))
    assert application_label(application_name(*key)) == f"{key[0]}.{key[1]}"


def test_the_routers_application_is_ours_and_no_pool() -> None:
    assert is_our_application(APP_NAME)
    assert application_label(APP_NAME) == "routers"


@pytest.mark.parametrize("name", ["other", "heliostat-other", "prefill-math"])
def test_applications_of_others_keep_their_names(name: str) -> None:
    assert not is_our_application(name)
    assert application_label(name) == name
