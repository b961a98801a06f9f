"""One training step of the networks of src/models/resnet.ts in PyTorch (channels last). As tensorflow_step.py.

usage: torch_step.py 20|56|50 BATCH SIZE STEPS WARMUP
"""
import json
import sys
import time

import torch
from torch import nn

depth, batch, size, steps, warmup = (int(argument) for argument in sys.argv[1:6])
torch.manual_seed(1)


def conv(c_in, c_out, k=3, stride=1):
    return nn.Conv2d(c_in, c_out, k, stride, k // 2, bias=False)


class BasicV2(nn.Module):
    def __init__(self, c_in, c_out, stride, first):
        super().__init__()
        self.n1, self.c1 = nn.BatchNorm2d(c_in), conv(c_in, c_out, 3, stride)
        self.n2, self.c2 = nn.BatchNorm2d(c_out), conv(c_out, c_out)
        self.shortcut = conv(c_in, c_out, 1, stride) if first else None

    def forward(self, x):
        h = torch.relu(self.n1(x))
        return self.c2(torch.relu(self.n2(self.c1(h)))) + (x if self.shortcut is None else self.shortcut(h))


class Bottleneck(nn.Module):
    def __init__(self, c_in, width, stride, first):
        super().__init__()
        self.body = nn.Sequential(
            conv(c_in, width, 1), nn.BatchNorm2d(width), nn.ReLU(),
            conv(width, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU(),
            conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width))
        self.shortcut = nn.Sequential(conv(c_in, 4 * width, 1, stride), nn.BatchNorm2d(4 * width)) if first else None

    def forward(self, x):
        return torch.relu(self.body(x) + (x if self.shortcut is None else self.shortcut(x)))


def network():
    if depth == 50:
        layers, c_in = [conv(3, 64), nn.BatchNorm2d(64), nn.ReLU()], 64
        for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
            for block in range(blocks):
                layers.append(Bottleneck(c_in, width, 2 if stage and not block else 1, block == 0))
                c_in = 4 * width
    else:
        layers, c_in = [conv(3, 16)], 16
        for stage, width in enumerate([16, 32, 64]):
            for block in range((depth - 2) // 6):
                layers.append(BasicV2(c_in, width, 2 if stage and not block else 1, block == 0))
                c_in = width
        layers += [nn.BatchNorm2d(64), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_in, 10))


net = network().to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4)
images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
labels = torch.arange(batch) % 10


def step():
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


for _ in range(warmup):
    step()
cpu, wall = [], []
for _ in range(steps):
    c, t = time.process_time(), time.perf_counter()
    step()
    cpu.append(time.process_time() - c)
    wall.append(time.perf_counter() - t)
print(json.dumps({"peer": f"PyTorch {torch.__version__}, channels last", "cpuSeconds": cpu, "wallSeconds": wall,
                  "parameters": sum(p.numel() for p in net.parameters())}))
