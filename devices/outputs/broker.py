"""An MQTT broker's address, and the reason why it cannot be reached, worded to follow the broker's name."""

import errno
import re
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from edgefer.devices.sources.urls import split_url
from edgefer.errors import InputError
from edgefer.files import read_regular
from edgefer.text import printable

PORTS = {"mqtt": 1883, "mqtts": 8883}
PROBE_S = 3.0
MAX_CA = 1 << 20  # bytes of a certificate file
# MQTT 3.1.1: CONNECT, clean session, keepalive of a minute, client id "edgefer-probe"; the reply is CONNACK.
CONNECT = b"\x10\x19\x00\x04MQTT\x04\x02\x00\x3c\x00\x0dedgefer-probe"
CONNACK = 0x20


@dataclass(frozen=True, kw_only=True)
class Broker:
    """mqtt://user:password@host:port/topic/prefix, or mqtts:// for TLS. ca: a PEM file of the CA of its certificate."""

    host: str
    port: int
    prefix: str
    tls: bool = False
    user: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None


def parse_broker(url: str, password: str = "", ca: Path | None = None) -> Broker:
    """The parts of an mqtt:// URL; `password` is used if the URL has none. InputError for an invalid one."""
    shape = "write mqtt://host/topic-prefix or mqtt://user@host:1883/topic-prefix"
    try:
        parts = split_url(url, "--mqtt")
        port = parts.port
    except InputError:
        raise InputError(
            f"The MQTT address cannot be read: {shape}, and percent-encode / # ? @ : in a password (%2F and so on)."
        ) from None
    prefix = unquote(parts.path).strip("/")
    if parts.scheme not in PORTS or not parts.hostname or "?" in url or "#" in url or port == 0:
        raise InputError(f"This is not an MQTT address: {shape}.")  # not shown: it may hold a password
    if not prefix or re.search(r"[+#\0\s]|//", prefix) or printable(prefix) != prefix:
        raise InputError(f"The MQTT address needs a topic prefix without spaces, + and #: {shape}.")
    broker = Broker(
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        prefix=prefix,
        tls=parts.scheme == "mqtts",
        user=unquote(parts.username or ""),
        password=unquote(parts.password or "") or password,
        ca=ca,
    )
    if ca and not broker.tls:
        raise InputError("--mqtt-ca is for a broker with TLS: write mqtts:// instead of mqtt://.")
    tls_context(broker)
    return broker


def tls_context(broker: Broker) -> ssl.SSLContext:
    """A TLS context that verifies the certificate and its name. InputError if the --mqtt-ca file holds no certificate."""
    name_it = "name the file of the authority that signed the broker's certificate."
    content = None
    if broker.ca:
        try:
            content = read_regular(broker.ca, MAX_CA).decode("ascii", errors="ignore")
        except InputError as error:
            raise InputError(f"--mqtt-ca {str(error).rstrip('.')}: {name_it}") from None
    try:
        return ssl.create_default_context(cadata=content)
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        raise InputError(f"--mqtt-ca {broker.ca} cannot be read (no certificate in PEM): {name_it}") from None


def connection_problem(error: BaseException | None, broker: Broker) -> str:
    """Why a connection could not be made, such as "refuses connections: nothing listens on port 1883"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_problem(error, broker)
    if isinstance(error, ssl.SSLError) and error.reason in (
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
        "HTTP_REQUEST",
    ):
        return "does not use TLS on this port: write mqtt:// instead of mqtts://, or name the TLS port, usually 8883"
    if isinstance(error, ssl.SSLError | ConnectionResetError | BrokenPipeError) and broker.tls:
        return f"aborts the TLS handshake ({_text(error)}): is it a TLS port?"
    if isinstance(error, socket.gaierror):
        return f"cannot be resolved ({_text(error)}): check the host's name"
    if isinstance(error, ConnectionRefusedError):
        return f"refuses connections: nothing listens on port {broker.port}"
    if isinstance(error, TimeoutError):
        in_tls = "no reply to the TLS handshake" if broker.tls else "no answer within 5 s"
        return f"does not answer ({in_tls})"
    if isinstance(error, OSError) and error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return f"cannot be reached ({_text(error)})"
    return f"cannot be connected to ({_text(error)})"


def _certificate_problem(error: ssl.SSLCertVerificationError, broker: Broker) -> str:
    message = " ".join(printable(error.verify_message or str(error)).split()).rstrip(".")
    if error.verify_code in (62, 64):  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
        return f"has a certificate for another name ({message}): use the name in the certificate"
    if error.verify_code in (9, 10):  # not yet valid, expired
        return f"has a certificate that is not valid now ({message}): renew it, or set this machine's clock"
    if broker.ca:
        return f"has a certificate that is not signed by {broker.ca} ({message})"
    return f"has a certificate that is not trusted here ({message}): name its CA's file with --mqtt-ca"


def answer_problem(broker: Broker) -> str:
    """Why the server did not reply as an MQTT broker, found by probing it; takes a few seconds at most."""
    try:
        with socket.create_connection((broker.host, broker.port), PROBE_S) as plain:
            plain.settimeout(PROBE_S)
            if broker.tls:
                with tls_context(broker).wrap_socket(plain, server_hostname=broker.host) as secured:
                    answer = _ask(secured)
            else:
                answer = _ask(plain)
    except TimeoutError:
        answer = None
    except ssl.SSLError as error:
        return connection_problem(error, broker)
    except (ConnectionResetError, BrokenPipeError):  # reset before it had read everything
        answer = b""
    except (OSError, InputError) as error:  # the --mqtt-ca file may be gone by now
        return connection_problem(error, broker)
    if answer is None:
        return "accepts the connection but does not reply in MQTT (no CONNACK): is another service on this port?"
    if answer.startswith((b"HTTP/", b"<")):
        return "is a web server on this port, not an MQTT broker: name the broker's port, usually 1883, or 8883 for TLS"
    if not broker.tls and (answer[:2] == b"\x15\x03" or _speaks_tls(broker)):
        return "uses TLS on this port: write mqtts:// instead of mqtt://"
    if not answer:
        return "closes the connection without a reply in MQTT (no CONNACK): is another service on this port?"
    if answer[0] == CONNACK:
        return "closed the connection before accepting it"
    return f"replies, but not in MQTT (it begins with {answer[:8].hex(' ')}): name the broker's port"


def _ask(connection: socket.socket) -> bytes:
    connection.sendall(CONNECT)
    return connection.recv(64)


def _speaks_tls(broker: Broker) -> bool:
    """Whether the server replies to a TLS handshake. The certificate does not matter, since no data is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((broker.host, broker.port), PROBE_S) as plain:
            context.wrap_socket(plain, server_hostname=broker.host).close()
    except OSError:
        return False
    return True


def _text(error: BaseException | None) -> str:
    in_tls = isinstance(error, ssl.SSLError)
    text = str(getattr(error, "reason" if in_tls else "strerror", None) or error or "no reason given")
    if in_tls:
        text = text.replace("_", " ")  # such as TLSV1_ALERT_UNKNOWN_CA
    return printable(" ".join(text.split()))[:200].rstrip(".")
