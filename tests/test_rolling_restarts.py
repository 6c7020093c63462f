"""Tests of two issuers and two gateways with nginx as the load balancer: nodes are restarted, killed or unreachable.

The nodes use the files in `examples/high-availability`. During most tests, clients send requests without a pause.
"""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.proxies.helpers import UNAVAILABLE
from tests.support import servers
from tests.support.answers import unverified_jti
from tests.support.demos import SetUp
from tests.support.nodes import VERIFY, Load, Node, Nodes, call
from tests.support.proxies import substitute
from tests.support.tokens import header_of

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def nodes(set_up_once: SetUp) -> Iterator[Nodes]:
    # Don't use pytest's temporary directory, which only its owner can enter. If root starts nginx, the workers run as
    # another user, and couldn't open files in that directory.
    with tempfile.TemporaryDirectory(prefix="instaccess-nodes-") as name:
        Path(name).chmod(0o755)
        nodes = Nodes(Path(name), set_up_once)
        try:
            nodes.start()
            yield nodes
        finally:
            nodes.close()


@contextmanager
def resetting_server(port: int) -> Iterator[list[bytes]]:
    """Run a server that resets each connection as soon as a request arrives. Yields the received requests."""
    received: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    received.append(client.recv(65536))
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server((servers.HOST, port)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield received
        # Without `shutdown`, the thread would keep waiting for a connection.
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def unreachable_server(port: int) -> Iterator[None]:
    """Occupy a port so that connection attempts get no answer, as if the host were switched off.

    Linux drops connection attempts to a socket whose queue of unaccepted connections is full.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((servers.HOST, port), backlog=0))
        address = listener.getsockname()

        def is_dropped() -> bool:
            attempt = stack.enter_context(socket.socket())
            attempt.settimeout(0.3)
            try:
                attempt.connect(address)
            except TimeoutError:
                return True
            return False

        servers.wait_until(is_dropped, bool)
        yield


def restart(node: Node) -> None:
    node.start()
    node.wait_until_ready()


class TestIssuersUnderLoad:
    """Tests of clients that request tokens, and use a token, while issuers restart (case O21)."""

    def assert_success(self, nodes: Nodes, load: Load) -> None:
        """Check that no request failed, and that the audit log contains each token that a client received."""
        assert load.failures == []
        token_ids = nodes.token_ids(load.tokens)
        assert len(token_ids) == len(load.tokens)
        assert token_ids <= nodes.recorded_token_ids()

    def test_o21_clients_receive_no_error_while_each_issuer_reloads_its_workers(self, nodes):
        with nodes.load() as load:
            for issuer in nodes.issuers:
                issuer.reload()
                load.wait_for_more()

        self.assert_success(nodes, load)

    def test_o21_clients_receive_no_error_while_each_issuer_is_stopped_and_replaced(self, nodes):
        with nodes.load() as load:
            for issuer in nodes.issuers:
                issuer.stop()
                load.wait_for_more()
                restart(issuer)

        self.assert_success(nodes, load)

    def test_o21_clients_receive_no_error_if_one_issuer_is_killed(self, nodes):
        with nodes.load() as load:
            nodes.issuers[0].kill()
            load.wait_for_more()
            restart(nodes.issuers[0])

        self.assert_success(nodes, load)


class TestAnIssuerThatStopsBeforeItAnswers:
    """Tests of an issuer that receives a POST request and closes the connection without a response (case O21)."""

    @pytest.fixture
    def received(self, nodes: Nodes) -> Iterator[list[bytes]]:
        [issuer, _] = nodes.issuers
        issuer.kill()
        with resetting_server(issuer.port) as received:
            yield received
        restart(issuer)

    def test_o21_nginx_sends_the_request_to_the_other_issuer_if_one_issuer_closes_the_connection(
        self, nodes, received
    ):
        assert [nodes.request_token().status for _ in range(4)] == [201] * 4
        assert received

    def test_o21_client_gets_a_503_if_nginx_does_not_repeat_requests_that_are_not_idempotent(self, nodes, received):
        def remove(text: str) -> str:
            return substitute(text, " non_idempotent;", ";")

        with nodes.another_nginx(remove) as port:
            answers = [nodes.request_token(port) for _ in range(4)]

        assert {answer.status for answer in answers} == {201, 503}
        [refused] = {(a.body, a.headers["Retry-After"]) for a in answers if a.status == 503}
        assert refused == (UNAVAILABLE, "10")


class TestAnUnreachableHost:
    def test_o21_clients_get_tokens_if_one_issuer_accepts_no_connections(self, nodes):
        [issuer, _] = nodes.issuers
        issuer.kill()
        try:
            with unreachable_server(issuer.port):
                statuses = [nodes.request_token().status for _ in range(4)]
        finally:
            restart(issuer)

        assert statuses == [201] * 4

    def test_g30_clients_receive_no_error_if_one_gateway_accepts_no_connections(self, nodes):
        token = nodes.issue()
        [gateway, _] = nodes.gateways
        gateway.kill()
        try:
            with unreachable_server(gateway.port):
                statuses = [nodes.use(token) for _ in range(4)]
        finally:
            restart(gateway)

        assert statuses == [200] * 4


class TestGatewaysUnderLoad:
    def test_g30_clients_receive_no_error_while_each_gateway_reloads_its_workers(self, nodes):
        with nodes.load() as load:
            for gateway in nodes.gateways:
                gateway.reload()
                load.wait_for_more()

        assert load.failures == []

    def test_g30_clients_receive_no_error_while_each_gateway_is_stopped_and_replaced(self, nodes):
        with nodes.load() as load:
            for gateway in nodes.gateways:
                gateway.stop()
                load.wait_for_more()
                restart(gateway)

        assert load.failures == []

    def test_g30_clients_receive_no_error_if_one_gateway_is_killed(self, nodes):
        with nodes.load() as load:
            nodes.gateways[0].kill()
            load.wait_for_more()
            restart(nodes.gateways[0])

        assert load.failures == []

    def test_g30_restarted_gateway_accepts_tokens_of_a_new_key_and_refuses_tokens_revoked_during_the_stop(
        self, nodes
    ):
        [gateway, other] = nodes.gateways
        old, lost = nodes.issue(), nodes.issue()
        with nodes.load() as load:
            gateway.stop()
            nodes.manage("instaccess_keys", "rotate", "--use", "sig", "--force")
            nodes.manage("instaccess_tokens", "revoke", "--jti", jti(other, lost), "--reason", "lost")
            load.wait_for_more()
            new = servers.wait_until(nodes.issue, lambda token: signing_kid(other, token) != signing_kid(other, old))
            restart(gateway)
            decisions = [decide(gateway, token) for token in (old, new, lost)]

        assert load.failures == []
        assert decisions == [204, 204, 401]


def decide(gateway: Node, token: str) -> int:
    """Ask a gateway to check a token. Repeat the request while the status is 503. Returns the status.

    A readiness probe reaches only one of the two workers of a node. On a busy machine, the other worker can exceed
    the time limit for loading the JWKS and the deny list.
    """
    return servers.wait_until(lambda: gateway.ask(VERIFY, token), lambda status: status != 503)


def signed(node: Node, token: str) -> str:
    """Let a gateway decrypt a token. Returns the value of the Authorization header with the signed token."""
    answer = call(node.port, "GET", VERIFY, token)
    assert answer.status == 204
    return str(answer.headers["Authorization"])


def jti(node: Node, token: str) -> str:
    return unverified_jti(signed(node, token))


def signing_kid(node: Node, token: str) -> Any:
    return header_of(signed(node, token).removeprefix("Bearer "))["kid"]


class TestAGatewayThatWasStartedWhileAllIssuersWereUnavailable:
    def test_g36_gateway_started_without_issuers_is_not_ready_and_nginx_asks_the_other_gateway(self, nodes):
        [gateway, other] = nodes.gateways
        token = nodes.issue()
        for issuer in nodes.issuers:
            issuer.kill()
        try:
            gateway.stop()
            gateway.start()
            decision = servers.wait_until(lambda: gateway.ask(VERIFY, token), bool)
            # On a busy machine, a probe of the other gateway can exceed its time limit.
            readiness = gateway.readiness(), servers.wait_until(other.readiness, lambda status: status == 200)
            through_nginx = [nodes.use(token) for _ in range(8)]
        finally:
            for issuer in nodes.issuers:
                issuer.start()
        for issuer in nodes.issuers:
            issuer.wait_until_ready()

        assert decision == 503
        assert readiness == (503, 200)
        assert through_nginx == [200] * 8
        gateway.wait_until_ready()
        assert decide(gateway, token) == 204


class TestTheWarmUpOfAGateway:
    def test_g30_gateway_loads_the_jwks_and_the_deny_list_before_the_first_request(self, nodes, tmp_path):
        with servers.scripted_server(lambda handler: servers.reply(handler, 503)) as issuer:
            settings = nodes.gateway_settings(issuer.base_url)
            gateway = Node("cold", "gateway", tmp_path, nodes.env(**settings))
            gateway.start()
            try:
                servers.wait_until(lambda: {each.path for each in issuer.requests}, lambda paths: len(paths) == 2)
            finally:
                gateway.kill()

        assert {each.path for each in issuer.requests} == {"/jwks", "/revocations"}
