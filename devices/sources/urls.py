"""THE parser of addresses and the one place that hides what is secret in them, for sources, MQTT and every message."""

import re
from urllib.parse import SplitResult, quote, unquote, urlsplit

from edgefer.errors import InputError
from edgefer.text import printable

HIDDEN = "..."
SECRET_NAME = re.compile(
    r"(?i)(?:^|[^a-z])(?:user-|login)?(?:\w*(?:token|auth|authorization|bearer|key|secret|pas|pass\w*|psw|credentials?"
    r"|signature|session\w*|cookies?|ticket)|pwd?|sig|sid|sas|jwt|otp|pin)$"
)
# A user, or a user and a password, before a host. The password may hold blanks, slashes and other @s.
USER_INFO = re.compile(r"(?<=://)(?:[^\s@]*:\S*|[^/?#@\s]*|[^/?#\s]*:[^/?#]*?)@(?=[\w\[.])")
BARE_USER_INFO = re.compile(r"(?<![\w/])[^\s/:@'\"=]+:[^\s@/]+@(?=[\w\[.])")  # user:password@host without a scheme
WHOLE_USER_INFO = re.compile(
    r"^(?P<scheme>(?:[a-zA-Z][\w+.-]*:)?//)(?:[^/?#@]*:.*|[^/?#]*)@(?=[\w\[./%-])"  # rtsp://me:o/wn@host, rtsp://me@host
    r"|^[^/?#@:]*:(?!//).*@(?=[\w\[.])"  # me:own@host
)
CODED_USER_INFO = re.compile(r"(?i)(?<=%3a%2f%2f)(?:(?!%2f|%40)[^\s&#])*%40")  # of an address within an address
PARAMETER = re.compile(r"([^\s?&;#=!,'\"]+)(\s?=\s?)(\"[^\"]*\"|'[^']*'|[^\s&#;]+)")
WHOLE_PARAMETER = re.compile(r"([^?&;#=]+)(=)([^&#;]*)")  # of an address alone, whose values may hold blanks
BEARER = re.compile(r"(?i)\b(bearer|basic|digest)(\s+)[\w.~+/=-]{6,}")


def redact(text: str) -> str:
    """A message, pipeline or address without its users, passwords and tokens, and safe to show in a terminal."""
    text = USER_INFO.sub("", text)
    text = BARE_USER_INFO.sub("", text)
    text = CODED_USER_INFO.sub("", text)
    text = PARAMETER.sub(_hide, text)
    return printable(BEARER.sub(rf"\1\2{HIDDEN}", text))


def shown_address(text: str) -> str:
    """An address alone, as it may be shown and logged: as `redact`, also where blanks and slashes are in a password."""
    text = WHOLE_USER_INFO.sub(lambda match: match["scheme"] or "", text)
    head, mark, rest = text.partition("?")
    return redact(head + mark + WHOLE_PARAMETER.sub(_hide, rest))


def _hide(match: re.Match) -> str:
    name = unquote(match[1]).rstrip("]").replace("[", "_").rstrip("_")  # auth[token], token[]
    return f"{match[1]}{match[2]}{HIDDEN}" if SECRET_NAME.search(name) else match[0]


def split_url(text: str, option: str = "--source") -> SplitResult:
    """The parts of an address with a scheme. InputError, without its secrets, for one that cannot be an address."""
    try:
        parts = urlsplit(text)
        _ = parts.port
        (parts.hostname or "").encode("idna")  # as the sockets will
    except ValueError:  # UnicodeError is one
        raise InputError(
            f"{option} {shown_address(text)!r} is not an address that can be read: write rtsp://host/path or "
            "http://host/path, an IPv6 host in brackets, and / # ? @ : of a password as %2F and so on."
        ) from None
    if unprintable_in(text):
        raise InputError(f"{option} {shown_address(text)!r} holds a control character: write the address without it.")
    return parts


def unprintable_in(text: str) -> bool:
    """Whether an address holds characters that no address may hold, such as line breaks."""
    return any(ord(char) < 32 or ord(char) == 127 for char in text)


def with_password(url: str, password: str) -> str:
    """The URL with the password where it names a user and none: user@host as user:password@host."""
    user = re.match(r"[^:/?#]+://[^:/?#]*(?=@[^@/?#]*(?:[/?#]|$))", url)
    return f"{user[0]}:{quote(password, safe='')}{url[user.end() :]}" if user and password else url
