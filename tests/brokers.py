"""A real Mosquitto, and a listener that receives everything published there."""

import queue
import socket
import subprocess
import time

from conftest import MOSQUITTO


class Mosquitto:
    """A broker on a free port of loopback, for the user `pi` with the password `raspberry`."""

    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "passwords").write_text("pi:raspberry\n")
        (folder / "passwords").chmod(0o644)
        subprocess.run(["mosquitto_passwd", "-U", folder / "passwords"], check=True, capture_output=True)
        (folder / "passwords").chmod(0o644)
        folder.chmod(0o755)
        self.conf = folder / "mosquitto.conf"
        self.conf.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/passwords\nuser root\n"
        )
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", self.conf], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        wait_for(self.answers)

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Listener:
    """Receives everything: `next(topic)` waits for the next message of a topic."""

    def __init__(self, port):
        from paho.mqtt.client import CallbackAPIVersion, Client

        self.received = {}
        self.client = Client(CallbackAPIVersion.VERSION2)
        self.client.username_pw_set("pi", "raspberry")
        self.client.on_message = lambda client, userdata, m: self.box(m.topic).put(m.payload.decode())
        subscribed = queue.Queue()
        self.client.on_subscribe = lambda *arguments: subscribed.put(True)
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("#")
        self.client.loop_start()
        subscribed.get(timeout=10)

    def box(self, topic):
        return self.received.setdefault(topic, queue.Queue())

    def next(self, topic):
        return self.box(topic).get(timeout=10)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def wait_for(condition, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
