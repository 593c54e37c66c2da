"""CTR-GCN in plain PyTorch, organised like its public code: the baseline of the benchmarks.

In: clips [N, C, T, V, M]. Out: logits [N, classes]. Written from the published layer table: every
subset and branch is a separate module, 1x1 convolutions precede the mean over time, and the
topology is applied by `einsum`. No operation is fused by hand, and none is slowed down.
"""

import re

import torch
from torch import nn

from hocslm_jax.graph import Graph, adjacency

# Output channels and stride of the ten blocks.
STAGES = (*[(64, 1)] * 4, (128, 2), *[(128, 1)] * 2, (256, 2), *[(256, 1)] * 2)


def conv(inputs: int, outputs: int, taps: int = 1, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(
        inputs,
        outputs,
        (taps, 1),
        stride=(stride, 1),
        padding=(dilation * (taps - 1) // 2, 0),
        dilation=(dilation, 1),
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    nn.init.zeros_(layer.bias)
    return layer


class Refined(nn.Module):
    """One subset of CTR-GC: x [N, C, T, V] and its graph [V, V] to [N, O, T, V]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        relation = max(8, inputs // 8)
        self.receiver, self.sender = conv(inputs, relation), conv(inputs, relation)
        self.value, self.expand = conv(inputs, outputs), conv(relation, outputs)

    def forward(self, x, graph, alpha):
        receiver, sender = self.receiver(x).mean(-2), self.sender(x).mean(-2)  # [N, R, V]
        pairs = torch.tanh(receiver.unsqueeze(-1) - sender.unsqueeze(-2))  # [N, R, V, V]
        topology = self.expand(pairs) * alpha + graph
        return torch.einsum("ncuv,nctv->nctu", topology, self.value(x))


class Spatial(nn.Module):
    def __init__(self, inputs: int, outputs: int, graph: Graph):
        super().__init__()
        prior = torch.from_numpy(adjacency(graph))
        self.graph = nn.Parameter(prior.clone())
        self.alpha = nn.Parameter(torch.zeros(1))
        self.subsets = nn.ModuleList(Refined(inputs, outputs) for _ in prior)
        self.norm = nn.BatchNorm2d(outputs)
        nn.init.constant_(self.norm.weight, 1e-6)
        same = inputs == outputs
        down = nn.Sequential(conv(inputs, outputs), nn.BatchNorm2d(outputs))
        self.down = nn.Identity() if same else down

    def forward(self, x):
        z = sum(unit(x, a, self.alpha) for unit, a in zip(self.subsets, self.graph, strict=True))
        return torch.relu(self.norm(z) + self.down(x))


class Temporal(nn.Module):
    """Four branches of a quarter of the channels: two dilated convolutions, a pool, a 1x1."""

    def __init__(self, channels: int, stride: int):
        super().__init__()
        width = channels // 4

        def branch(*last: nn.Module) -> nn.Sequential:
            first = (conv(channels, width), nn.BatchNorm2d(width), nn.ReLU())
            return nn.Sequential(*first, *last, nn.BatchNorm2d(width))

        pool = nn.MaxPool2d((3, 1), stride=(stride, 1), padding=(1, 0))
        skip = nn.Sequential(conv(channels, width, 1, stride), nn.BatchNorm2d(width))
        near, wide = (branch(conv(width, width, 5, stride, d)) for d in (1, 2))
        self.branches = nn.ModuleList([near, wide, branch(pool), skip])

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, graph: Graph, first: bool):
        super().__init__()
        self.spatial, self.temporal = Spatial(inputs, outputs, graph), Temporal(outputs, stride)
        self.first, same = first, inputs == outputs and stride == 1
        shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if first or same else shortcut

    def forward(self, x):
        y = self.temporal(self.spatial(x))
        return torch.relu(y if self.first else y + self.shortcut(x))


class CTRGCN(nn.Module):
    def __init__(self, graph: Graph, classes: int, persons: int, channels: int = 3, stages=STAGES):
        super().__init__()
        self.norm = nn.BatchNorm1d(persons * graph.num_joints * channels)
        inputs = (channels, *(outputs for outputs, _ in stages))
        self.blocks = nn.Sequential(
            *(
                Block(inputs[i], outputs, stride, graph, first=i == 0)
                for i, (outputs, stride) in enumerate(stages)
            )
        )
        self.classifier = nn.Linear(stages[-1][0], classes)

    def forward(self, x):
        n, c, t, v, m = x.shape
        x = self.norm(x.permute(0, 4, 3, 1, 2).reshape(n, m * v * c, t))
        x = x.reshape(n, m, v, c, t).permute(0, 1, 3, 4, 2).reshape(n * m, c, t, v)
        feature = self.blocks(x).mean((2, 3)).reshape(n, m, -1).mean(1)
        return self.classifier(feature)


# Names here and in the public code of CTR-GCN, whose block n is l{n + 1}.
PUBLIC = (
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


def public_state(state: dict) -> dict:
    """A state dict of `CTRGCN` with the names of the public code."""
    renamed = {}
    for name, value in state.items():
        for pattern, text in PUBLIC:
            name = re.sub(pattern, text, name)
        renamed[name] = value
    return renamed
