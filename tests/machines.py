"""Machines that tests generate: what /sys, /dev and the device tree of a board hold."""

from pathlib import Path


def machine(root: Path, nodes: dict[str, tuple[str, str]], devices=True) -> Path:
    """A generated /sys and /dev: node -> (name, index)."""
    for node, (name, index) in nodes.items():
        folder = root / "sys/class/video4linux" / node
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
        (folder / "index").write_text(index + "\n")
        if devices and node.startswith("video"):
            (root / "dev").mkdir(exist_ok=True)
            (root / "dev" / node).touch()
    return root


PI = {
    "video0": ("unicam", "0"),
    "video2": ("HD Pro Webcam C920", "0"),
    "video3": ("HD Pro Webcam C920", "1"),
    "video10": ("bcm2835-codec-decode", "0"),
    "video13": ("bcm2835-isp-output0", "0"),
    "video19": ("rpi-hevc-dec", "0"),
    "v4l-subdev0": ("imx219 10-0010", "0"),
    "v4l-subdev1": ("dw9807 10-000c", "0"),
}


def board_tree(root: Path, model: str) -> Path:
    """A device tree that names the model."""
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/device-tree/model").write_bytes(model.encode() + b"\0")  # the kernel ends it with a zero byte
    return root
