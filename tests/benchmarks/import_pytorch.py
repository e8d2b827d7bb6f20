"""Measures the way of a PyTorch network to int8: fer-small is rebuilt in PyTorch with its own weights, exported by litert-torch,
imported, and quantized on images of FER2013. Not a test: it needs FER2013 and an environment with litert-torch.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install litert-torch==0.10.0
    python tests/benchmarks/import_pytorch.py /tmp/torch/bin/python --data fer2013.csv

For comparison, the same .tflite is quantized by ai-edge-quantizer, which litert-torch installs, with its own calibration on the
same images. Accuracy is on PublicTest.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from edgefer.bundle import Bundle, Form, shipped_bundles
from edgefer.c.prove import check_in_c
from edgefer.convert.contract import Stated, parse_scale
from edgefer.convert.import_options import Request
from edgefer.convert.importing import import_network
from edgefer.convert.pipeline import convert
from edgefer.convert.quantize import calibration_images, with_extremes
from edgefer.convert.work import Plan
from edgefer.interpreter import Network
from edgefer.preprocess import to_float
from edgefer.progress import SILENT
from edgefer.train.data.load import load_dataset
from edgefer.train.networks import load_keras
from edgefer.train.recipes import recipe_of

# Run by the other Python, which has no edgefer. TensorFlow's padding of strided convolutions is that of ZeroPad2d.
EXPORT = """
import json, sys
import numpy as np, torch, litert_torch
from torch import nn

weights, layers = np.load("weights.npz"), json.load(open("layers.json"))
numbers = iter(range(len(layers) * 2))

def block(stride=1, relu=True):
    at = next(numbers)
    kernel = weights[f"conv{at}"]
    conv = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, stride, 1 if stride == 1 else 0, bias=False)
    conv.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1).copy())
    norm = nn.BatchNorm2d(kernel.shape[3], eps=1e-3)
    values = [torch.tensor(one) for one in weights[f"norm{at}"]]
    norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var = values
    return nn.Sequential(*[nn.ZeroPad2d((0, 1, 0, 1))] * (stride == 2), conv, norm, *[nn.ReLU()] * relu)

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = block(), block(relu=False)
    def forward(self, x):
        return torch.relu(x + self.second(self.first(x)))

class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))

features = [Residual() if word[0] == "R" else block(2 if word.endswith("/2") else 1) for word in layers]
dense = nn.Linear(*weights["kernel"].shape)
dense.weight.data, dense.bias.data = torch.tensor(weights["kernel"].T.copy()), torch.tensor(weights["bias"])
pooled, end = ([Mean()], [nn.Softmax(1)]) if sys.argv[1] == "softmax" else ([nn.AdaptiveAvgPool2d(1), nn.Flatten()], [])
net = nn.Sequential(*features, *pooled, dense, *end).eval()
channels_last = litert_torch.to_channel_last_io(net, args=[0])
litert_torch.convert(channels_last, (torch.zeros(1, 1, 48, 48).permute(0, 2, 3, 1),)).export("net.tflite")

from ai_edge_quantizer import quantizer, recipe
from ai_edge_litert.interpreter import Interpreter
tool = quantizer.Quantizer("net.tflite")
tool.load_quantization_recipe(recipe.static_wi8_ai8())
((key, ends),) = Interpreter("net.tflite").get_signature_list().items()
images = np.load("images.npy")
tool.quantize(tool.calibrate({key: [{ends["inputs"][0]: one[None]} for one in images]})).export_model("theirs.tflite")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("python", help="of an environment with litert-torch")
    parser.add_argument("--data", required=True)
    args = parser.parse_args()
    for end in ("logits", "softmax"):
        measure(args.python, args.data, end)


def measure(python: str, data: str, end: str) -> None:
    """end: "logits" after AdaptiveAvgPool2d, or "softmax" after x.mean((2, 3))."""
    source = Bundle.open(shipped_bundles()["fer-small"])
    dataset = load_dataset(data, source.card.input).with_labels(source.card.labels)
    valid, calibration = dataset.split("valid"), calibration_images(dataset.split("train"), Plan().seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_parts(source, folder)
        np.save(folder / "images.npy", to_float(with_extremes(calibration)))
        subprocess.run([python, "-c", EXPORT, end], cwd=folder, check=True)
        stated = Stated(scale=parse_scale("0..1"), labels=source.card.labels)
        imported = import_network(Request(path=folder / "net.tflite", stated=stated), folder / "imported").bundle
        converted = convert(imported, dataset, Plan(), folder / "int8", SILENT)
        print(
            f"{end}, edgefer: {converted.cost.summary}; {', '.join(check.detail for check in check_in_c(converted.bundle))}"
        )
        spec, classes = imported.card.input, len(source.card.labels)
        ours = Network.open(imported, Form.FLOAT32).logits(valid.images).argmax(axis=1)
        output = imported.card.output
        theirs = (
            Network((folder / "theirs.tflite").read_bytes(), spec, classes, output=output)
            .logits(valid.images)
            .argmax(axis=1)
        )
    drop = 100 * ((ours == valid.labels).mean() - (theirs == valid.labels).mean())
    print(f"{end}, ai-edge-quantizer: drop {drop:+.2f} points, agreement {(ours == theirs).mean():.2%}")


def write_parts(source: Bundle, folder: Path) -> None:
    """The network's layers as words and its weights, for the other Python."""
    layers = [layer for layer in load_keras(source, Form.KERAS).layers if layer.get_weights()]
    convolutions, norms = ([one for one in layers if kind in type(one).__name__] for kind in ("Conv2D", "BatchNorm"))
    kernel, bias = layers[-1].get_weights()
    weights = {f"conv{at}": one.get_weights()[0] for at, one in enumerate(convolutions)}
    weights |= {f"norm{at}": np.stack(one.get_weights()) for at, one in enumerate(norms)}
    np.savez(folder / "weights.npz", kernel=kernel, bias=bias, **weights)
    (folder / "layers.json").write_text(json.dumps(recipe_of(source.card).model.layers.split()))


if __name__ == "__main__":
    main()
