"""Tests in a separate process that a TFLite runtime works: `python -m edgefer.devices.board.selftest litert`.

A runtime that does not suit the board dies by a signal (an illegal instruction, a segmentation fault), which must not
end the calling process. The network is made by tests/make_tiny_network.py.
"""

import base64
import sys
import zlib
from importlib import import_module

import numpy as np

from edgefer.card import InputSpec
from edgefer.errors import EdgeferError, RuntimeFault
from edgefer.interpreter import Network, RuntimeOptions
from edgefer.runtimes import RUNTIMES, runtime_version

# uint8 [2, 16, 16, 1]: a ramp, and the reversed ramp.
PIXELS = np.stack([np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8)[::-1]]).reshape(2, 16, 16, 1)
ANSWERS = [[27, 16], [7, -32]]
QUANTUM = 1  # runtimes round differently: tflite-runtime and ai-edge-litert differ by one on the same network
# zlib, then base64.
_NETWORK = """
eNrFVl9oW1UY/24S1/Qu7UK8rp00UHBw+zDTpstqsXlY11SYrO3WlVEUjHfm1gVu05jcTPFhbXEPg8kYuIlI8MkHH3wYxfk0ujEI+DCI7EHM6E
DMHnTGPtgR1KY9ft+933JvZsd888LvnpNzvvP9/X0ntwcAZl47dlCBXuiBblAgCAFc84MP54BrAOcRa4hrHoBbBD+AF39LCB/idkOIAMvGEXsQ
eT13Np15N5nS57SCYTZlPxNC+HlO40LBzBbM5AC49N3bEoLGXYhs+gPdyAOgWYjx/hrq2M3z5xFjU5OnxqdPHp2aTE6Mz4wmRmdGUXfAioFsyC
7Z+XQmmStkzPS8njyr5/LphYwV7/do/DvENcRlyXbmJxy+RnyJKCKuIEzWdW7b9vFthJ2vzqa9IKKPAsIIaG0XnyG1v3lJ/nGefdbZi4fmfn/0
6UCDcuphWTozGBmMRjAzD9kW6Y1GorGIlS37Of+XEBcQHyNCwpbbjwi9HMKSLbevH9zXsbGxcaljses+/Hp3/NHiS8tDQ0Prb659MnREOHofPB
DizudCLGFiQyGAt3hvCVFChBVVjZagLMsrIxW5VldX1KqiQrR+o1ofqcxW61ApT15cLFVqtXoNyhCuy2q5VrqqVtXT1TJU1Qq+a3Kppsp1Vb2B
szAocv0qKGpYWUFhUMIr4XK4GpYr5VICakqpWp6UoS6H5YfsC+X25roQh/8W4snc0h6KicPEMdwvIoiHE8eOTveOLWSw1qaeilg1UKzMdTarQH
o6eZ04/CeiwYQk3fNaOkM/qT6XEbM76Njt0kHuBHlO9ezbFEJiH0lHG48eS1Ru+iAzl4LMFYllPcwHiW0qloxjs8e2KRHnDlg6FOQ66Wyz9NGe
j/NEc4n1eZlDz7n46W/aAWinWHGDiHkF0YdIoDNfSfZ9kOVzP29SPUAivwb4HA0JfN3ZtPv9cUwvsG6af3vzXHwfjidNzdTnCsZxLWemTexIPT
WmGcarAxy7xOPrjVY7fpedWKPVzpKwH5p35CojL1p30nsFHVtfM/rnDM009Uz/tJ4/o2V1xw7xZ+UJO21sh+6A4jPs5FvtvIPMG0yhGaMw8u/l
I2ktP5pK7bBDjB1MPP0IatRSp7RcWjtt6FPZaLN+Phc+3HLimOWaUxwGvlJbdhwHHF488yE5oxiL+zxS/ItfOuJG8ZuR7h3jtd0Hly9ecP4zQt
uOXzPMPyrxLeo79qvvP/pFMqsnDg1f+Ega3vt+5/Dqieuv5P6XGjj5/8MVX8yJw+Lp2rYdn+LqM3D1xN3raryr1f+Unsnr/ROaOVEwLJ56mKdv
iFaecj97yE5CtPLUbeOH/KXh7p1scGDg6rlVtkHy3c07Czy9Vlw+Kza6gzAN5pkIJihvahnTOQ+w1/qu6OJbzn7acNV2p5e/GdjH9uPW/WXfWn
7+f3xavy0vLTH/Wr41kvY3g3V9NPsi6NLh5fzt5/0fUV+7q04B6261TwesCOxAAqhhj8svr5Nz7z9GXt1n
"""


def network_content() -> bytes:
    """The tiny network: one int8 convolution and one int8 dense layer, as a .tflite file."""
    return zlib.decompress(base64.b64decode(_NETWORK))


def check_runtime(runtime: str) -> str:
    """Run the tiny network on `runtime` and compare its answers; returns the runtime's version.

    Raises MissingDependency or RuntimeFault with one sentence.
    """
    options = RuntimeOptions(runtime=runtime)
    answers = Network(network_content(), InputSpec(height=16, width=16), 2, options=options).raw(PIXELS)
    if np.abs(answers.astype(int) - ANSWERS).max() > QUANTUM:
        raise RuntimeFault(f"{runtime} computes wrongly: {answers.tolist()} instead of {ANSWERS}.")
    return runtime_version(runtime)


def check_delegate(library: str) -> str:
    """Load a delegate, such as libedgetpu.so.1, into ai-edge-litert. Raises RuntimeFault."""
    try:
        import_module(RUNTIMES["litert"][0]).load_delegate(library)
    except (ImportError, OSError, ValueError) as error:
        raise RuntimeFault(
            f"{library} cannot be loaded: {' '.join(str(error).split()) or type(error).__name__}."
        ) from None
    return library


if __name__ == "__main__":
    try:
        wanted = sys.argv[1]
        print(check_runtime(wanted) if wanted in RUNTIMES else check_delegate(wanted))
    except EdgeferError as error:
        print(error)
        sys.exit(1)
