"""An exported page in a browser: its DOM once it has settled, or what a script in it reports while it runs."""

import json
import queue
import shutil
import subprocess
import threading
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from urllib.parse import unquote

from conftest import CHROMIUM

from edgefer.convert.web.serve import _Handler
from edgefer.convert.web.site import integrity
from tests.convert.browsers import opened

REPORT = "const report = result => { new Image().src = 'result?' + encodeURIComponent(JSON.stringify(result)) };"


def browse(page, *flags, budget=20_000) -> str:
    """The page's DOM once it has settled: Chromium's virtual time does not wait for WebAssembly that is still compiling."""
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--virtual-time-budget={budget}", *flags,
        f"file://{page}",
    ]  # fmt: skip
    for _ in range(3):
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
        if 'data-state="starting"' not in dom:
            break
    return dom


def with_script(site, folder, script: str):
    """A copy of the page that also runs `script`, and its path."""
    shutil.copytree(site, folder / "page")
    (folder / "page" / "test.js").write_text(script)
    index = folder / "page" / "index.html"
    index.write_text(index.read_text().replace("</head>", '<script src="test.js" defer></script></head>'))
    _hash_again(folder / "page")
    return index


def _hash_again(page) -> None:
    """The service worker expects the files as a test has changed them."""
    worker = page / "sw.js"
    head, _, rest = worker.read_text().partition("FILES = ")
    listed, _, rest = rest.partition("\n")
    hashes = {name: integrity((page / name).read_bytes()) for name in json.loads(listed)}
    worker.write_text(f"{head}FILES = {json.dumps(hashes)}\n{rest}")


@contextmanager
def reported(site, folder, script: str, *flags, engine: str = "chromium"):
    """What `script` reports in a running browser, in real time, as JSON: the page comes from a server on this machine,
    which reads it from the address of an image, the only request that the page's policy allows."""
    with_script(site, folder, REPORT + script)
    result: queue.Queue = queue.Queue()

    class Handler(_Handler):
        def do_GET(self):
            if self.path.startswith("/result?"):
                result.put(json.loads(unquote(self.path.partition("?")[2])))
                self.send_error(404)
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder / "page")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://localhost:{server.server_address[1]}/"
    try:
        with opened(engine, address, folder / "profile", *flags):
            yield result
    finally:
        server.shutdown()
        server.server_close()
