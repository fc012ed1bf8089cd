"""Let torchvision be imported where its binary extension cannot load; import this before anything that imports it.

PyPI's torchvision wheel for Linux is built for CUDA. Beside a CPU-only build of torch its extension finds no CUDA
libraries, and `import torchvision` then fails with "operator torchvision::nms does not exist", because it registers
shape functions for two operators that the extension would have defined. CLIP needs none of its operators, only its
image transforms. Declaring the two, without an implementation, is enough: calling them still fails, and says so.
Where the extension loads, nothing is done here.
"""

import importlib.machinery
import importlib.util

import torch

_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")  # declarations last as long as this object


def _extension_loads() -> bool:
    package = importlib.util.find_spec("torchvision")
    if package is None:
        return True  # not installed: the import that follows says so best
    extension = importlib.machinery.PathFinder.find_spec("_C", package.submodule_search_locations)
    if extension is None:
        return False
    try:
        torch.ops.load_library(extension.origin)
    except OSError:
        return False
    return True


if not _extension_loads():
    for operator in ("nms", "qnms"):
        _LIBRARY.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
