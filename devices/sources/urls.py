"""Parses URLs and redacts their secrets: for sources, MQTT and every message.

Only the known harmless parts of a URL are shown: scheme, host, port, the path without generated-looking parts, and image
settings in its query. Everything else may be a password under an unknown name.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import SplitResult, quote, unquote, urlsplit

from edgefer.errors import InputError
from edgefer.text import printable

HIDDEN = "..."
MAX_SHOWN = 4096  # characters
# Of a query. Their values are shown if they are short and plain.
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
# What is hidden in a message or a pipeline, where most settings matter to the reader.
SECRET_NAME = re.compile(
    r"(?i)(?:^|[^a-z])(?:user-|login|proxy-)?(?:\w*(?:token|auth|authorization|bearer|key|secret|pas|pass\w*|psw|credentials?"
    r"|signature|session\w*|cookies?|ticket|nonce)|pwd?|pw|sig|sid|sas|jwt|otp|pin|user|user-?name|user-?id|login|streamid"
    r"|(?:extra-|http-)?headers|proxy|proxy-id)$"
)
KNOWN_SECRET = re.compile(r"(?i)(?:token|auth|key|secret|pas|psw|pw|signature|sig|sas|jwt|ticket|passphrase|hash)\w*$")
AT = r"(?:@|%(?:25)*40|\uff20|\ufe6b)"  # plain, percent-encoded, full-width and small
SCHEME = r"[a-zA-Z][a-zA-Z0-9+.-]+:[/\\]+"  # two letters: C:/ is a drive
# The colon and slashes may also be percent-encoded, as in a URL within a URL.
CODED_SCHEME = r"[a-zA-Z][a-zA-Z0-9+.-]+%(?:25)*3[aA](?:%(?:25)*2[fF]|/)*"
USER_INFO = re.compile(rf"(?P<scheme>{SCHEME}|{CODED_SCHEME}|(?<![:/\w])//)(?:[^/?#\s]*?:.*|[^/?#]*){AT}", re.S)
BARE_USER_INFO = re.compile(rf"[^/?#@:]*:(?![/\\]).*{AT}", re.S)  # me:own@host
# The same within a sentence, where a URL ends at a space unless a password continues after it.
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
    """A message or pipeline without its users, passwords and tokens, safe to print in a terminal."""
    text = USER_INFO_IN_TEXT.sub(r"\1", _short(text))
    text = BARE_IN_TEXT.sub("", text)
    text = _apart(text, ADDRESS_IN_TEXT, _address, _hide_parameters)
    return printable(BEARER.sub(rf"\1\2{HIDDEN}", text))


def shown_address(text: str) -> str:
    """A single URL redacted for display and logging. Its password may contain spaces, slashes and @."""
    text = _short(text)
    if re.search(r"\s!\s|\s[\w-]+=", text):  # a GStreamer pipeline, with URLs among its properties
        return redact(text)
    if match := USER_INFO.match(text):
        text = match["scheme"] + text[match.end() :]
    elif match := BARE_USER_INFO.match(text):
        text = text[match.end() :]
    if re.match(rf"{SCHEME}|//", text):
        return printable(_address(text))
    return redact(text)


def without_passwords(text: str) -> str:
    """A message with its URLs redacted; options and names in it stay."""
    text = re.sub(rf"({SCHEME})[^\s/@:'\"]*:\S*{AT}", r"\1", _short(text))
    return ADDRESS_IN_TEXT.sub(lambda match: _address(match[0]), text)


def _short(text: str) -> str:
    """The text truncated to MAX_SHOWN: searching for passwords takes quadratic time."""
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + HIDDEN


def holds_secret(text: str) -> bool:
    """Whether a URL holds a password or a parameter named like one; generated-looking parts do not count."""
    if re.search(rf"//\S*:\S*{AT}", text):
        return True
    names = re.findall(r"[?&;#\s]([^?&;#=\s]+)=", text)
    return any(KNOWN_SECRET.search(re.sub(r"\W+$", "", unquote(name))) for name in names)


def _apart(text: str, part: re.Pattern, inside: Callable[[str], str], outside: Callable[[str], str]) -> str:
    """The text with `inside` applied to matches of `part` and `outside` to the text between them."""
    made, at = [], 0
    for match in part.finditer(text):
        made += [outside(text[at : match.start()]), inside(match[0])]
        at = match.end()
    return "".join([*made, outside(text[at:])])


def _address(text: str) -> str:
    """A URL without user info: its scheme, host and port, and the harmless part of the rest."""
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
    """A path without parts that are encoded, look generated, or follow names such as /webhook/; /film.mp4 is shown."""
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
    """Whether a part of a path is itself a URL or contains a user."""
    return re.search(rf"(?i)%(?:25)*(?:40|2f|3a)|:.*{AT}", segment) is not None


def _generated(text: str) -> bool:
    """Whether a name looks random, like tokens and keys: long, and mixing letters, digits and case."""
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
    """The number of changes between letters and digits or between cases; a capitalized word counts as one case."""
    kinds = [
        "d" if char.isdigit() else "u" if char.isupper() else "l" for char in re.sub("[A-Z](?=[a-z]{2})", "l", run)
    ]
    return sum(a != b for a, b in pairwise(kinds))


def _hide_query(match: re.Match) -> str:
    """One part of a query or fragment, with the separator before it."""
    name, equals, value = match[2].partition("=")
    if not equals:
        shown = not name or (match[1] != "#" and name.lower() in HARMLESS_WORDS)
        return match[0] if shown else match[1] + HIDDEN
    plain = PLAIN.fullmatch(value) and not (_changes(value) >= 4 and len(value) >= 8)
    if unquote(name).lower() in HARMLESS and plain:
        return match[0]
    return f"{match[1]}{HIDDEN if _generated(unquote(name)) or _encloses(name) else name}={HIDDEN}"


def _hide_parameters(text: str) -> str:
    """Text between URLs, with the values of parameters named like secrets hidden, and queries redacted as in a URL."""
    return _apart(text, QUERY_IN_TEXT, _behind_host, lambda part: OPTION.sub(_hide, PARAMETER.sub(_hide, part)))


def _hide(match: re.Match) -> str:
    name = unquote(match[1]).rstrip("]").replace("[", "_").rstrip("_")  # auth[token], token[]
    return f"{match[1]}{match[2]}{HIDDEN}" if SECRET_NAME.search(name) else match[0]


def split_url(text: str, option: str = "--source") -> SplitResult:
    """The parts of a URL. InputError, without its secrets, for an invalid one."""
    try:
        parts = urlsplit(text)
        _ = parts.port
        (parts.hostname or "").encode("idna")  # as the sockets will
    except ValueError:  # UnicodeError is one
        raise InputError(
            f"{option} {shown_address(text)!r} is not a valid URL: write rtsp://host/path or "
            "http://host/path, an IPv6 host in brackets, and percent-encode / # ? @ : in a password (%2F and so on)."
        ) from None
    if unprintable_in(text):
        raise InputError(f"{option} {shown_address(text)!r} holds a control character: write the address without it.")
    return parts


def unprintable_in(text: str) -> bool:
    """Whether a URL holds characters that are not allowed, such as line breaks."""
    return any(ord(char) < 32 or ord(char) == 127 for char in text)


def with_password(url: str, password: str) -> str:
    """The URL with the password added if it names only a user: user@host becomes user:password@host."""
    user = re.match(r"[^:/?#]+://[^:/?#]*(?=@[^@/?#]*(?:[/?#]|$))", url)
    return f"{user[0]}:{quote(password, safe='')}{url[user.end() :]}" if user and password else url
