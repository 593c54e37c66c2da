"""A small CTR-GCN of PyTorch with the names of the public code, and random weights."""

STAGES = ((8, 1), (8, 1), (16, 2), (32, 2))


def make(torch, graph, classes, persons, channels=3):
    """The network in evaluation mode, with random weights and statistics."""
    from benchmarks.torch_ctrgcn import CTRGCN  # needs PyTorch

    torch.manual_seed(0)
    network = CTRGCN(graph, classes, persons, channels, stages=STAGES).eval()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = 0.2 * torch.randn(value.shape)
            value.add_(noise.abs() if name.endswith("running_var") else noise)
    return network


def public_state(network):
    """Its state dict under the public names."""
    from benchmarks import torch_ctrgcn

    return torch_ctrgcn.public_state(network.state_dict())
