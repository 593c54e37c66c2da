"""A small CTR-GCN of PyTorch with the names of the public code, and random weights."""

import re

from benchmarks.torch_ctrgcn import CTRGCN

STAGES = ((8, 1), (8, 1), (16, 2), (32, 2))
# From the benchmarks' network to the public code; a block n there is l{n + 1}.
NAMES = (
    (r"^norm\.", "data_bn."),
    (r"^classifier\.", "fc."),
    (r"^blocks\.(\d+)\.", lambda found: f"l{int(found[1]) + 1}."),
    (r"spatial\.graph", "gcn1.PA"),
    (r"spatial\.alpha", "gcn1.alpha"),
    (r"spatial\.subsets", "gcn1.convs"),
    (r"\.receiver\.", ".conv1."),
    (r"\.sender\.", ".conv2."),
    (r"\.value\.", ".conv3."),
    (r"\.expand\.", ".conv4."),
    (r"spatial\.norm", "gcn1.bn"),
    (r"spatial\.down", "gcn1.down"),
    (r"temporal\.branches", "tcn1.branches"),
    (r"(branches\.[01])\.3\.", r"\1.3.conv."),
    (r"(branches\.[01])\.4\.", r"\1.3.bn."),
    (r"shortcut\.0", "residual.conv"),
    (r"shortcut\.1", "residual.bn"),
)


def make(torch, graph, classes, persons, channels=3):
    """The network in evaluation mode, every weight and statistic of it random."""
    torch.manual_seed(0)
    network = CTRGCN(graph, classes, persons, channels, stages=STAGES).eval()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = 0.2 * torch.randn(value.shape)
            value.add_(noise.abs() if name.endswith("running_var") else noise)
    return network


def public_state(network):
    """Its state dict under the public names."""
    state = {}
    for name, value in network.state_dict().items():
        for pattern, text in NAMES:
            name = re.sub(pattern, text, name)
        state[name] = value
    return state
