"""The control channel answers, carries errors across, and notices when either side is gone."""

import queue
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.errors import KVRefusedError, NoSpaceError, OwnerLostError, TicketExpiredError, TransportError
from kvtransfer.control import MAX_MESSAGE, ControlClient, ControlServer, Message, Session

KINDS = {kind.__name__: kind for kind in (KVRefusedError, NoSpaceError, TicketExpiredError, TransportError)}


class Owner:
    """A server whose handlers do what a test can see."""

    def __init__(self, folder: Path) -> None:
        self.ended: queue.Queue[object] = queue.Queue()
        self.waiting, self.go_on = threading.Event(), threading.Event()
        self.socket = str(folder / "control")
        handlers = {
            "echo": lambda session, message: {"said": message["say"]},
            "fail": self._fail,
            "wait": self._wait,
            "stay": self._stay,
        }
        self.server = ControlServer(handlers, self.socket, "127.0.0.1")

    def _fail(self, session: Session, message: Message) -> Message:
        raise KINDS[str(message["kind"])]("no luck")

    def _wait(self, session: Session, message: Message) -> Message:
        self.waiting.set()
        self.go_on.wait()
        return {}

    def _stay(self, session: Session, message: Message) -> Message:
        for name in ("first", "second"):
            session.on_end(lambda name=name: self.ended.put((message["who"], name)))
        return {}


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    owner = Owner(tmp_path)
    yield owner
    owner.go_on.set()
    owner.server.close()


@pytest.fixture(params=["local", "remote"])
def client(request: pytest.FixtureRequest, owner: Owner) -> Iterator[ControlClient]:
    client = ControlClient(owner.socket if request.param == "local" else owner.server.address)
    yield client
    client.close()


def raw(owner: Owner) -> socket.socket:
    """A connection without manners."""
    host, _, port = owner.server.address.rpartition(":")
    return socket.create_connection((host, int(port)))


@pytest.mark.parametrize("said", ["ü\n", 1.5, None, ["a", [1]], {"deep": {"er": True}}, "x" * 2**20])
def test_a_message_comes_back_as_it_was_sent(client: ControlClient, said: object) -> None:
    assert client.call("echo", say=said) == {"said": said}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_keeps_its_kind_and_the_connection(client: ControlClient, kind: str) -> None:
    with pytest.raises(TransportError, match="no luck") as raised:
        client.call("fail", kind=kind)
    assert type(raised.value) is KINDS[kind]
    assert client.is_on(1)


@pytest.mark.parametrize(("op", "arguments"), [("dance", {}), ("echo", {}), ("fail", {"kind": "Unheard"})])
def test_an_operation_that_makes_no_sense_is_an_error_of_its_own(
    client: ControlClient, op: str, arguments: Message
) -> None:
    with pytest.raises(TransportError, match=f"malformed message {op}"):
        client.call(op, **arguments)
    assert client.call("echo", say=1) == {"said": 1}


@pytest.mark.parametrize(
    "noise", [b"\x02\0\0\0{]", b"\x01\0\0\0\xff", b"\x02\0\0\0[]", struct.pack("<I", MAX_MESSAGE + 1)]
)
def test_noise_ends_only_the_session_that_made_it(owner: Owner, client: ControlClient, noise: bytes) -> None:
    client.call("stay", who="polite")
    with raw(owner) as connection:
        connection.sendall(noise)
        assert connection.recv(1) == b"", "the owner hangs up"
    assert client.call("echo", say=1) == {"said": 1}
    assert owner.ended.empty()


def test_a_session_that_ends_says_so_once_to_each_who_asked(owner: Owner, client: ControlClient) -> None:
    client.call("stay", who="a")
    client.close()
    assert [owner.ended.get(), owner.ended.get()] == [("a", "first"), ("a", "second")]
    client.call("stay", who="b")
    assert owner.ended.empty()


def test_a_client_that_vanishes_in_the_middle_of_a_message_ended_its_session(owner: Owner) -> None:
    with raw(owner) as connection:
        message = b'{"op": "stay", "who": "c"}'
        connection.sendall(struct.pack("<I", len(message)) + message)
        assert connection.recv(1)
        connection.sendall(b"\xff\0")
    assert owner.ended.get() == ("c", "first")


def test_a_closed_owner_is_lost_also_for_who_waits(owner: Owner, client: ControlClient) -> None:
    errors: queue.Queue[TransportError] = queue.Queue()

    def wait() -> None:
        try:
            client.call("wait", 60)
        except TransportError as error:
            errors.put(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    owner.waiting.wait()
    owner.server.close()
    waiting.join()
    assert isinstance(errors.get_nowait(), OwnerLostError)
    with pytest.raises(OwnerLostError):
        client.call("echo", say=1)


def test_an_owner_that_does_not_answer_is_lost(owner: Owner, client: ControlClient) -> None:
    with pytest.raises(OwnerLostError, match="does not answer"):
        client.call("wait", 0.01)
    assert client.call("echo", say="again") == {"said": "again"}


def test_a_lost_connection_is_made_again_but_not_for_what_was_said_on_the_old_one(
    client: ControlClient,
) -> None:
    client.call("echo", say=1)
    first = client.connection
    client.close()
    with pytest.raises(OwnerLostError, match="was lost"):
        client.call("echo", 5, first, say=2)
    assert client.call("echo", say=3) == {"said": 3}
    with pytest.raises(OwnerLostError, match="was lost"):
        client.call("echo", 5, first, say=4)
    client.close(first)  # another one: stays
    assert client.call("echo", 5, client.connection, say=5) == {"said": 5}


@pytest.mark.parametrize("address", ["/nowhere/control", "127.0.0.1:1", "no port"])
def test_nobody_there_is_a_lost_owner(address: str) -> None:
    with pytest.raises(OwnerLostError, match="does not answer"):
        ControlClient(address).call("echo", say=1)


def test_a_place_where_one_cannot_listen_is_named(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"cannot listen on .*too long"):
        ControlServer({}, str(tmp_path / ("x" * 108)), "127.0.0.1")
