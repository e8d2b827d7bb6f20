"""Parses every address, and hides what is secret in it: for sources, MQTT and every message.

Of an address only what is known to be harmless is shown: scheme, host, port, the path without what looks generated, and
settings of the picture in its query. Everything else may be somebody's password under a name that nobody here knows.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import SplitResult, quote, unquote, urlsplit

from edgefer.errors import InputError
from edgefer.text import printable

HIDDEN = "..."
MAX_SHOWN = 4096  # characters
# Of a query. Their values are shown where they are short and plain.
HARMLESS = {
    "action", "bitrate", "brightness", "cam", "camera", "channel", "codec", "compression", "contrast", "dummy",
    "duration", "enablesrtp", "encoding", "expires", "expiry", "format", "fps", "framerate", "h", "height",
    "interval", "latency", "limit", "mode", "n", "number", "offset", "profile", "profileid", "proto", "protocol",
    "quality", "rate", "res", "resolution", "rotate", "rotation", "size", "start", "stream", "streamprofile",
    "streamtype", "subtype", "sv", "timeout", "transport", "transportmode", "type", "unicast", "v", "version",
    "videocodec", "view", "w", "width",
}  # fmt: skip
HARMLESS_WORDS = {"h264", "h265", "mjpeg", "mp4", "tcp", "udp", "video"}  # of a query without a name
PLAIN = re.compile(r"[\w.,:*-]{0,12}")
# In a message or a pipeline, where most settings matter to whoever reads it: what is hidden.
SECRET_NAME = re.compile(
    r"(?i)(?:^|[^a-z])(?:user-|login|proxy-)?(?:\w*(?:token|auth|authorization|bearer|key|secret|pas|pass\w*|psw|credentials?"
    r"|signature|session\w*|cookies?|ticket|nonce)|pwd?|pw|sig|sid|sas|jwt|otp|pin|user|user-?name|user-?id|login|streamid"
    r"|(?:extra-|http-)?headers|proxy|proxy-id)$"
)
KNOWN_SECRET = re.compile(r"(?i)(?:token|auth|key|secret|pas|psw|pw|signature|sig|sas|jwt|ticket|passphrase|hash)\w*$")
AT = r"(?:@|%(?:25)*40|\uff20|\ufe6b)"  # as it is, percent-coded, and as full-width and small forms of it
SCHEME = r"[a-zA-Z][a-zA-Z0-9+.-]+:[/\\]+"  # two letters: C:/ is a drive
# An address may also have its colon and slashes coded, as one within another has.
CODED_SCHEME = r"[a-zA-Z][a-zA-Z0-9+.-]+%(?:25)*3[aA](?:%(?:25)*2[fF]|/)*"
USER_INFO = re.compile(rf"(?P<scheme>{SCHEME}|{CODED_SCHEME}|(?<![:/\w])//)(?:[^/?#\s]*?:.*|[^/?#]*){AT}", re.S)
BARE_USER_INFO = re.compile(rf"[^/?#@:]*:(?![/\\]).*{AT}", re.S)  # me:own@host
# The same within a sentence, where an address ends at a blank unless a password goes on behind it.
USER_INFO_IN_TEXT = re.compile(
    rf"({SCHEME}|{CODED_SCHEME}|(?<![:/\w])//)"
    rf"(?:[^\s@:'\"]*:\S*{AT}|[^/?#@\s'\"]*{AT}|[^/?#\s'\"]*(?::|%(?:25)*3[aA])[^/?#'\"]*?{AT})"
)
BARE_IN_TEXT = re.compile(rf"(?<![\w/.])[^\s/:@'\"=]+(?::|%(?:25)*3[aA])[^\s@]*{AT}(?=\S)")
ADDRESS_IN_TEXT = re.compile(rf"(?:{SCHEME}|(?<![:/\w])//)[^\s'\"<>]*[^\s'\"<>.,;:!)\]]")
QUERY_IN_TEXT = re.compile(r"(?<![\w:/])(/?[\w./%-]*\?)([^\s'\"<>?]*=[^\s'\"<>]*[^\s'\"<>.,;:!)\]])")
QUOTED = r"\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?"
PARAMETER = re.compile(
    rf"(?<![^\s?&;#=!,:'\"(){{}}\[\]])([^\s?&;#=!,:'\"(){{}}\[\]]+(?:\[\w*\])?)(\s(?=[\"'])|[\"']?\s?[=:]\s?(?:\(\w+\))?(?:(?i:bearer|basic|digest)\s+)?)({QUOTED}|(?:\\.|[^\s&#;])+)"
)
OPTION = re.compile(rf"(?<![^\s'\"])(--?[\w-]+)(\s+)({QUOTED}|[^\s-]\S*)")
BEARER = re.compile(r"(?i)\b(bearer|basic|digest)(\s+)[\w.~+/=-]{6,}")
AUTHORITY = re.compile(r"(\[[^\]/]*\]?|[^:/]*)(:\d{1,5})?", re.S)
SECRET_PLACE = re.compile(r"(?i)(token|key|secret|webhooks?|hooks?|auth|session|password|pass|signature|sig|s)\d*")
LETTERS_OF_A_WORD = 20
RUN = re.compile(r"[A-Za-z0-9]+")


def redact(text: str) -> str:
    """A message or pipeline without its users, passwords and tokens, and safe to show in a terminal."""
    text = USER_INFO_IN_TEXT.sub(r"\1", _short(text))
    text = BARE_IN_TEXT.sub("", text)
    text = _apart(text, ADDRESS_IN_TEXT, _address, _hide_parameters)
    return printable(BEARER.sub(rf"\1\2{HIDDEN}", text))


def shown_address(text: str) -> str:
    """An address alone, as it may be shown and logged. Blanks, slashes and further @s in its password are understood."""
    text = _short(text)
    if re.search(r"\s!\s|\s[\w-]+=", text):  # GStreamer's, which holds addresses among properties
        return redact(text)
    if match := USER_INFO.match(text):
        text = match["scheme"] + text[match.end() :]
    elif match := BARE_USER_INFO.match(text):
        text = text[match.end() :]
    if re.match(rf"{SCHEME}|//", text):
        return printable(_address(text))
    return redact(text)


def without_passwords(text: str) -> str:
    """A sentence for a person, with the addresses in it as they may be shown; what it says of options and names stays."""
    text = re.sub(rf"({SCHEME})[^\s/@:'\"]*:\S*{AT}", r"\1", _short(text))
    return ADDRESS_IN_TEXT.sub(lambda match: _address(match[0]), text)


def _short(text: str) -> str:
    """What is too long to be an address is cut: looking for passwords takes the square of its length."""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + HIDDEN


def holds_secret(text: str) -> bool:
    """Whether an address holds a password or what is named like one. What only looks generated is not meant."""
    if re.search(rf"//\S*:\S*{AT}", text):
        return True
    names = re.findall(r"[?&;#\s]([^?&;#=\s]+)=", text)
    return any(KNOWN_SECRET.search(re.sub(r"\W+$", "", unquote(name))) for name in names)


def _apart(text: str, part: re.Pattern, inside: Callable[[str], str], outside: Callable[[str], str]) -> str:
    """The text with `inside` applied to what `part` matches and `outside` to what stands between."""
    made, at = [], 0
    for match in part.finditer(text):
        made += [outside(text[at : match.start()]), inside(match[0])]
        at = match.end()
    return "".join([*made, outside(text[at:])])


def _address(text: str) -> str:
    """An address that has no user: its scheme, host and port, and what is harmless of the rest."""
    start = re.match(rf"{SCHEME}|//", text)
    assert start is not None
    rest = text[start.end() :]
    end = re.search(r"[/?#\\;]", rest)
    host, rest = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    return start[0] + _host(host) + _behind_host(rest)


def _host(text: str) -> str:
    match = AUTHORITY.match(text)
    assert match is not None
    host = match[1] if not _generated(match[1].partition(".")[0]) else re.sub(r"^[^.]*", HIDDEN, match[1])
    return host + (match[2] or "") + (f":{HIDDEN}" if text[match.end() :].strip(":") else "")


def _behind_host(text: str) -> str:
    path = re.split(r"[?#]", text, maxsplit=1)[0]
    return _path(path) + re.sub(r"([?#&;])([^?#&;]*)", _hide_query, text[len(path) :])


def _path(text: str) -> str:
    """A path without what is coded in it, looks generated, or stands where tokens do: /webhook/...; /film.mp4 is shown."""
    shown: list[str] = []
    hide = False
    for segment in re.split(r"([/\\])", text):
        if segment in ("", "/", "\\"):
            shown.append(segment)
            continue
        name, *parameters = re.split("([;=])", segment, maxsplit=1)
        plain = not hide and not parameters and not _generated(unquote(segment)) and not _encloses(segment)
        shown.append(segment if plain else f"{name}{parameters[0]}{HIDDEN}" if parameters and not hide else HIDDEN)
        hide = SECRET_PLACE.fullmatch(segment) is not None
    return "".join(shown)


def _encloses(segment: str) -> bool:
    """Whether a part of a path is an address itself, or has a user in it."""
    return re.search(rf"(?i)%(?:25)*(?:40|2f|3a)|:.*{AT}", segment) is not None


def _generated(text: str) -> bool:
    """Whether a name looks like chance made it, as tokens and keys are: long, and letters, digits and case mixed."""
    stem = re.sub(r"\.\w{1,5}$", "", text)
    runs = RUN.findall(stem)
    if any(len(run) >= LETTERS_OF_A_WORD for run in runs) or sum(map(len, runs)) >= 48:
        return True
    if re.fullmatch(r"(?i)[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", stem):
        return True
    return any(len(run) >= 8 and _changes(run) >= 4 for run in runs) or any(
        len(run) >= 16 and _changes(run) >= 2 for run in runs
    )


def _changes(run: str) -> int:
    """How often letters turn to digits and lower to upper case, and back; a capital before small letters is of one word."""
    kinds = [
        "d" if char.isdigit() else "u" if char.isupper() else "l" for char in re.sub("[A-Z](?=[a-z]{2})", "l", run)
    ]
    return sum(a != b for a, b in pairwise(kinds))


def _hide_query(match: re.Match) -> str:
    """One part of a query or fragment, with the mark before it."""
    name, equals, value = match[2].partition("=")
    if not equals:
        shown = not name or (match[1] != "#" and name.lower() in HARMLESS_WORDS)
        return match[0] if shown else match[1] + HIDDEN
    plain = PLAIN.fullmatch(value) and not (_changes(value) >= 4 and len(value) >= 8)
    if unquote(name).lower() in HARMLESS and plain:
        return match[0]
    return f"{match[1]}{HIDDEN if _generated(unquote(name)) or _encloses(name) else name}={HIDDEN}"


def _hide_parameters(text: str) -> str:
    """Text between addresses, with the values of what is named like a secret hidden, and whole queries as in an address."""
    return _apart(text, QUERY_IN_TEXT, _behind_host, lambda part: OPTION.sub(_hide, PARAMETER.sub(_hide, part)))


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
