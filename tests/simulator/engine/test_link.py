from simulator.engine.link import Link, transfer


def test_a_port_receives_one_kv_at_a_time() -> None:
    target = Link()
    ends = [transfer(Link(), target, begin_s, 2.0) for begin_s in (1.0, 1.5, 10.0)]
    assert ends == [3.0, 5.0, 12.0]


def test_a_port_sends_one_kv_at_a_time() -> None:
    source = Link()
    assert [transfer(source, Link(), 0.0, 2.0) for _ in range(3)] == [2.0, 4.0, 6.0]


def test_directions_do_not_disturb_each_other() -> None:
    one, other = Link(), Link()
    assert transfer(one, other, 0.0, 2.0) == 2.0
    assert transfer(other, one, 0.0, 2.0) == 2.0


def test_a_transfer_waits_for_the_later_of_its_two_ports() -> None:
    busy_source, busy_target = Link(), Link()
    transfer(busy_source, Link(), 0.0, 3.0)
    transfer(Link(), busy_target, 0.0, 5.0)
    assert transfer(busy_source, busy_target, 1.0, 1.0) == 6.0
