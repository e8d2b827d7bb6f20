"""The broker's address, and the reason given when a connection fails, against fake brokers on loopback."""

import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest
from brokers import wait_for

from edgefer.devices.outputs.broker import answer_problem, connection_problem, parse_broker
from edgefer.devices.outputs.feeds import Feed
from edgefer.errors import InputError

mqtt = pytest.importorskip("edgefer.devices.outputs.mqtt", reason="paho-mqtt is not installed")
LABELS = ("happy", "sad", "neutral")


def test_broker_address_and_password_are_parsed():
    broker = parse_broker("mqtt://pi@broker.local/home/desk/", "from the environment")
    assert (broker.host, broker.port, broker.prefix, broker.user) == ("broker.local", 1883, "home/desk", "pi")
    assert broker.password == "from the environment" and "environment" not in repr(broker)
    broker = parse_broker("mqtts://pi:p%40ss@[::1]:9999/desk", "other")
    assert (broker.host, broker.port, broker.tls, broker.password) == ("::1", 9999, True, "p@ss")


@pytest.mark.parametrize(
    "url", ["mqtt://broker", "mqtt://broker/a/#", "mqtt://broker/a b", "http://broker/a", "broker/a", "mqtt://b:x/a", "mqtt:///a", "mqtt://home..lan/a", "mqtt://me:secret/1@b/a"]
)  # fmt: skip
def test_invalid_mqtt_address_is_refused_without_its_password(url):
    with pytest.raises(InputError, match="mqtt://host/topic-prefix") as refused:
        parse_broker(url)
    assert "secret" not in str(refused.value)


class Server:
    """A TCP server on loopback: `answer(connection)` for each client, behind TLS if it has a certificate."""

    def __init__(self, answer, certificate=None):
        self._answer, self._context = answer, None
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*certificate)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            with self._context.wrap_socket(connection, server_side=True) if self._context else connection as speaking:
                self._answer(speaking)
        except OSError:
            pass

    def close(self):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def accepts(connection):
    connection.recv(1024)
    connection.sendall(b"\x20\x02\x00\x00")
    while connection.recv(1024):
        pass


def refuses(connection):
    connection.recv(1024)
    connection.sendall(b"\x20\x02\x00\x05")


def keeps_silent(connection):
    while connection.recv(1024):
        pass


def closes(connection):
    pass


def is_a_web_server(connection):
    connection.recv(1024)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def speaks_ssh(connection):
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    connection.recv(1024)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Self-signed certificates for 127.0.0.1 and for another name: (certificate, key) by name."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make certificates with")
    folder, made = tmp_path_factory.mktemp("tls"), {}
    for name, subject in (("right", "IP:127.0.0.1"), ("other", "DNS:broker.elsewhere")):
        made[name] = folder / f"{name}.pem", folder / f"{name}.key"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
        command += ["-addext", f"subjectAltName={subject}", "-out", made[name][0], "-keyout", made[name][1]]
        subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.mark.parametrize(
    ("scheme", "answer", "certificate", "ca", "reason"),
    [
        ("mqtt", keeps_silent, None, None, "does not reply in MQTT (no CONNACK)"),
        ("mqtt", closes, None, None, "closes the connection without a reply in MQTT (no CONNACK)"),
        ("mqtt", is_a_web_server, None, None, "is a web server on this port"),
        ("mqtt", speaks_ssh, None, None, "replies, but not in MQTT (it begins with 53 53 48"),
        ("mqtt", refuses, None, None, "refuses the connection (Not authorized)"),
        ("mqtt", accepts, "right", None, "uses TLS on this port: write mqtts://"),
        ("mqtts", accepts, None, None, "TLS"),
        ("mqtts", is_a_web_server, None, None, "does not use TLS on this port: write mqtt://"),
        ("mqtts", accepts, "right", None, "certificate that is not trusted here (self-signed certificate): name its CA's file with --mqtt-ca"),
        ("mqtts", accepts, "right", "other", "not signed by"),
        ("mqtts", accepts, "other", "other", "certificate for another name"),
        ("mqtts", keeps_silent, "right", "right", "does not reply in MQTT (no CONNACK)"),
    ],
)  # fmt: skip
def test_real_connection_error_is_logged_and_counted_without_blocking_frames(
    certificates, make_frame, monkeypatch, scheme, answer, certificate, ca, reason
):
    monkeypatch.setattr(mqtt, "RETRY_S", (1, 1))
    monkeypatch.setattr(mqtt, "CONNACK_S", 0.3)
    monkeypatch.setattr("edgefer.devices.outputs.broker.PROBE_S", 0.5)
    server = Server(answer, certificates[certificate] if certificate else None)
    log = []
    broker = parse_broker(f"{scheme}://pi:raspberry@127.0.0.1:{server.port}/desk", ca=ca and certificates[ca][0])
    feed = Feed(mqtt.Mqtt(broker, LABELS, log=log.append))
    wait_for(lambda: feed.trouble, 20)
    began = time.monotonic()
    for number in range(50):
        feed.write(make_frame(number, "happy"))
    assert time.monotonic() - began < 1
    assert (
        reason in feed.trouble
        and feed.errors == 1
        and log == [f"{feed.name} {feed.trouble}{'.' * (feed.trouble[-1] != '?')} Retrying until it is available."]
    )
    assert "raspberry" not in log[0]
    feed.close()
    server.close()


def test_broker_with_a_private_ca_is_trusted_with_its_ca_file(certificates, monkeypatch):
    server = Server(accepts, certificates["right"])
    sink = mqtt.Mqtt(parse_broker(f"mqtts://127.0.0.1:{server.port}/desk", ca=certificates["right"][0]), LABELS)
    wait_for(lambda: sink._connected)
    assert not sink.trouble and not sink.errors
    sink.close()
    server.close()


def test_a_ca_file_that_is_removed_during_the_run_does_not_end_the_attempts_to_connect(
    certificates, monkeypatch, tmp_path
):
    monkeypatch.setattr(mqtt, "RETRY_S", (1, 1))
    server, ca = Server(closes, certificates["right"]), tmp_path / "ca.pem"
    shutil.copy(certificates["right"][0], ca)
    sink = mqtt.Mqtt(parse_broker(f"mqtts://127.0.0.1:{server.port}/desk", ca=ca), LABELS)
    ca.unlink()
    wait_for(lambda: sink.trouble, 20)
    assert "cannot be read: No such file" in sink.trouble
    attempt = sink._attempt
    wait_for(lambda: sink._attempt > attempt + 1, 20)
    sink.close()
    server.close()


def test_invalid_ca_file_is_refused_at_once(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")
    for file, reason in (("ca.pem", "no certificate in PEM"), ("none.pem", "No such file")):
        with pytest.raises(InputError, match=reason):
            parse_broker("mqtts://broker/desk", ca=tmp_path / file)
    with pytest.raises(InputError, match="write mqtts://"):
        parse_broker("mqtt://broker/desk", ca=tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(-2, "Name or service not known"), "cannot be resolved"),
        (TimeoutError("timed out"), "does not answer"),
        (OSError(113, "No route to host"), "cannot be reached (No route to host)"),
        (None, "no reason given"),
    ],
)
def test_every_connection_error_has_a_clear_message(error, reason):
    assert reason in connection_problem(error, parse_broker("mqtt://broker/desk"))
    assert "refuses connections" in answer_problem(parse_broker("mqtt://127.0.0.1:1/desk"))
