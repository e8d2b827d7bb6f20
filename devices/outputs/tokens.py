"""Access tokens for the page and the metrics, and a rate limit against guessing."""

import hashlib
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from edgefer.errors import InputError

MIN_TOKEN = 8  # characters
MAX_GUESSES = 10  # different wrong tokens from one host within GUESS_WINDOW_S; then it is blocked
GUESS_WINDOW_S = 60.0
MAX_HOSTS = 1024  # remembered; those with the oldest guesses are forgotten first


def new_token() -> str:
    return secrets.token_urlsafe(16)


def check_token(token: str) -> None:
    """InputError for a token that is too short; "" means no token."""
    if token and len(token) < MIN_TOKEN:
        raise InputError(f"A token needs at least {MIN_TOKEN} characters, so that it cannot be guessed.")


class GuessLimit:
    """Wrong tokens by host: after MAX_GUESSES different ones in GUESS_WINDOW_S the host is refused until they expire.

    A repeated wrong token counts once, so that a browser or scraper with an old one does not lock out its host.
    log: receives a message at a host's first guess, and when it is refused; each at most once per GUESS_WINDOW_S.
    """

    def __init__(self, log: Callable[[str], None] = lambda text: None):
        self._log = log
        self._wrong: OrderedDict[str, dict[bytes, float]] = OrderedDict()  # host -> digest of a guess -> its time
        self.guesses = 0

    def refused_for_s(self, host: str) -> float:
        """Seconds until this host may try again, 0 if it may now."""
        times = self._recent(host).values()
        return max(0.0, min(times) + GUESS_WINDOW_S - time.monotonic()) if len(times) >= MAX_GUESSES else 0.0

    def wrong(self, host: str, guess: str) -> None:
        """Count a wrong token."""
        recent = self._recent(host)
        digest = hashlib.sha256(guess.encode(errors="replace")).digest()
        if digest in recent:
            return
        recent[digest] = time.monotonic()
        self._wrong[host] = recent
        self._wrong.move_to_end(host)
        if len(self._wrong) > MAX_HOSTS:
            self._wrong.popitem(last=False)
        self.guesses += 1
        if len(recent) == 1:
            self._log(f"A wrong token came from {host}.")
        if len(recent) == MAX_GUESSES:
            self._log(f"{MAX_GUESSES} wrong tokens came from {host}: it is refused for up to {GUESS_WINDOW_S:.0f} s.")

    def _recent(self, host: str) -> dict[bytes, float]:
        since = time.monotonic() - GUESS_WINDOW_S
        return {digest: at for digest, at in self._wrong.get(host, {}).items() if at > since}


def is_loopback(host: str) -> bool:
    """Whether the address is reachable only from this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(address: str) -> str:
    """What counts as one host: an IPv4 address, or the /64 of an IPv6 one, since every host has a whole /64."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "somewhere"
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)
