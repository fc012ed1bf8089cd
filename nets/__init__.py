"""Networks: options, builder and module in a file (or a folder) of their own, and a line here."""

from nets.options import ModelOptions
from utils.register import Register

NETWORKS: Register[type[ModelOptions]] = Register(
    "model.network",
    {
        "tspm": "nets.tspm.options.TSPMOptions",
        "means": "nets.means.MeansOptions",
        "qa_tiger": "nets.qa_tiger.QATigerOptions",
        "pstp_net": "nets.pstp_net.PSTPNetOptions",
        "st_avqa": "nets.st_avqa.STAVQAOptions",
    },
)
"""By the name that `model.network` takes: the options of each network, which build it."""
