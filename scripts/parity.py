#!/usr/bin/env python3
"""Records PyTorch's outputs for a set of residual networks as fixtures for the parity tests of the Rust networks.

Needs:  pip install torch torchvision timm safetensors        (Python 3.9 or newer, no GPU; timm is optional)

usage:
  python scripts/parity.py [fixtures] [--out DIR] [--net NAME ...] [--batch N] [--side N] [--norm-bias C] [--dry]
      runs every net in NETS in inference mode and in training mode and writes DIR/NAME.json
      (default DIR: crates/residual-weights/tests/parity), then prints the noise floor of each net: the difference
      between the computation in 32-bit floats (the worse of two convolution kernels) and in 64-bit floats
  python scripts/parity.py load FILE.safetensors --net NAME [--classes N] [--width N]
      loads a safetensors file into the net with strict=True and prints its logits for the formula's tensor "input"
  python scripts/parity.py save FILE --net NAME [--classes N] [--width N] [--format pth|legacy|safetensors]
                                [--prefix module.] [--nest state_dict] [--rename fc=linear ...]
      writes a checkpoint with the formula's values
  python scripts/parity.py files [--out DIR]
      writes the small checkpoints that the tests read (default DIR: crates/residual-weights/tests/files)
  python scripts/parity.py optimizers [--out FILE]
      trains tiny.safetensors for ten steps with each optimizer of PyTorch, or of timm if PyTorch lacks it, and writes
      the losses and the weights (default FILE: tests/it/optimizers.json), then prints the noise floor of each: the
      difference between the training in 32-bit floats and in 64-bit floats. Needs timm.

The fixtures contain no weights: both sides compute every tensor with the same formula. For element i of the tensor
named n, in row-major order of PyTorch's layout (NCHW images, OIHW convolutions, [out, in] linear layers):

  h = FNV-1a (32 bits) of n;  x = i * 2654435761 + h;  x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;
  x *= 0x846ca68b;  x ^= x >> 16   (all modulo 2^32);   u = (x >> 8) / 2^24

  weight of a convolution or linear   (2u - 1) * sqrt(6 / fan_in), where fan_in is the product of all dimensions but
                                      the first
  weight of a norm                    0.75 + 0.5u
  bias of a norm                      norm_bias + 0.2u - 0.1
  any other bias, running_mean        0.2u - 0.1
  running_var                         0.5 + u
  "input", "cotangent"                2u - 1

The values are computed in 64-bit floats and rounded to 32-bit floats. The hashed name is always the canonical name
defined below, even if a checkpoint adds a prefix or uses another name.

norm_bias is 0, except for the ImageNet nets in training mode; each fixture records it for each mode. In training mode
with biases near 0, a deep random net amplifies rounding errors so much that 32-bit floats do not determine the result
(relative error of a feature: 6e-4 for resnet101, 8e-3 for plain50), for any batch size. The few ReLU inputs that change
sign then change the gradient by several per cent. With norm_bias near 2.5, rounding errors stay small. The drawback is
that few ReLU inputs are then negative, and almost none after an addition. Therefore only inference mode tests that
every ReLU is in its place. In inference mode, a ReLU input that changes sign changes only the gradient of its own
image.

Canonical names are torchvision's: conv1, bn1, layer1.0.conv1, layer1.0.bn1, ..., layer2.0.downsample.0 (convolution)
and .1 (norm), fc. CIFAR nets have three stages. Pre-activation nets have no bn1 in the stem, no norm in the shortcut,
and a final norm named bn.

For each mode, a fixture contains the logits, the output of each stage, the pooled embedding, and the gradient of
sum(logits * cotangent) with respect to the input. Each tensor is stored as its shape, its L2 norm and its values: all
values of the logits, and at most 128 values of the other tensors, at the flat indices floor(k * n / 128). In training
mode, the fixture also contains the running statistics of the first and the last norm of the main path after that one
forward pass (momentum 0.1), and the number of values per channel, because PyTorch normalises with the biased variance
but averages the unbiased variance into running_var.

The fixtures are reproducible byte for byte with the same versions, machine and --threads. The checkpoint
tiny-legacy.pth differs from run to run, because that format identifies storages by their memory addresses.
"""

import argparse
import collections
import importlib.util
import json
import math
import os
import pathlib
import re
import sys
import time
import warnings

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from torchvision.models import resnet as tv

TESTS = pathlib.Path(__file__).resolve().parent.parent / "crates/residual-weights/tests"
SAMPLES = 128

# ---------------------------------------------------------------------------------------------------- the formula


def fnv1a(name):
    h = 2166136261
    for byte in name.encode("utf-8"):
        h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    return h


def uniform(name, shape):
    """u for every element of the tensor `name`, as 64-bit floats in [0, 1)."""
    i = np.arange(math.prod(shape), dtype=np.uint64)
    x = ((i * np.uint64(2654435761) + np.uint64(fnv1a(name))) & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return ((x >> np.uint32(8)).astype(np.float64) / 2.0**24).reshape(shape)


def as_tensor(values):
    return torch.from_numpy(values.astype(np.float32))


def signed(name, shape):
    return as_tensor(2.0 * uniform(name, shape) - 1.0)


def value_of(module, name, leaf, shape, norm_bias):
    u = uniform(name, shape)
    if leaf == "weight":
        if isinstance(module, nn.BatchNorm2d):
            return as_tensor(0.75 + 0.5 * u)
        return as_tensor((2.0 * u - 1.0) * math.sqrt(6.0 / math.prod(shape[1:])))
    if leaf == "running_var":
        return as_tensor(0.5 + u)
    assert leaf in ("bias", "running_mean"), name
    if leaf == "bias" and isinstance(module, nn.BatchNorm2d):
        return as_tensor(norm_bias + (0.2 * u - 0.1))
    return as_tensor(0.2 * u - 0.1)


@torch.no_grad()
def fill(model, norm_bias=0.0):
    """Fills every tensor of `model` with the formula's values, and sets num_batches_tracked to 0."""
    for path, module in model.named_modules():
        own = list(module.named_parameters(path, recurse=False)) + list(module.named_buffers(path, recurse=False))
        for name, tensor in own:
            leaf = name.rsplit(".", 1)[-1]
            if leaf == "num_batches_tracked":
                tensor.zero_()
                continue
            assert isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)), name
            tensor.copy_(value_of(module, name, leaf, tuple(tensor.shape), norm_bias))
    return model


# ------------------------------------------------------------------------------------------------------- the nets


def conv(c_in, c_out, size, stride=1, bias=False):
    return nn.Conv2d(c_in, c_out, size, stride, size // 2, bias=bias)


def pad_shortcut(x, stride, grow, after=False):
    """Option A of He et al.: subsamples the pixels, and adds `grow` zero channels, half of them before and half after the
    channels of x, or all of them after."""
    before = 0 if after else grow // 2
    return F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, grow - before))


class PlainBasic(tv.BasicBlock):
    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class PlainBottleneck(tv.Bottleneck):
    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)))


def plain_imagenet(block, layers, classes):
    model = tv.ResNet(block, layers, num_classes=classes)
    for module in model.modules():
        if isinstance(module, block):
            module.downsample = None
    return model


def resnet50_v1(classes):
    model = tv.resnet50(num_classes=classes)
    for stage in (model.layer2, model.layer3, model.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return model


def resnet18_small(classes):
    model = tv.resnet18(num_classes=classes)
    model.conv1, model.maxpool = conv(3, 64, 3), nn.Identity()
    return model


class CifarBlock(nn.Module):
    """`option` is a, a_after, b or c (types of shortcut), plain (no shortcut), or none (type a without norms)."""

    def __init__(self, c_in, c_out, stride, option):
        super().__init__()
        norms = option != "none"
        self.conv1 = conv(c_in, c_out, 3, stride, bias=not norms)
        self.bn1 = nn.BatchNorm2d(c_out) if norms else nn.Identity()
        self.conv2 = conv(c_out, c_out, 3, bias=not norms)
        self.bn2 = nn.BatchNorm2d(c_out) if norms else nn.Identity()
        self.option, self.stride, self.grow, self.downsample = option, stride, c_out - c_in, None
        if option == "c" or (option == "b" and (stride > 1 or self.grow)):
            self.downsample = nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.option == "plain":
            return F.relu(y)
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.stride > 1 or self.grow:
            x = pad_shortcut(x, self.stride, self.grow, self.option == "a_after")
        return F.relu(y + x)


class CifarNet(nn.Module):
    """The CIFAR nets of depth 6n+2 (He et al. 2015)."""

    def __init__(self, n, option, classes, width):
        super().__init__()
        norms = option != "none"
        self.conv1 = conv(3, width, 3, bias=not norms)
        self.bn1 = nn.BatchNorm2d(width) if norms else nn.Identity()
        c_in = width
        for stage in range(3):
            blocks = []
            for i in range(n):
                blocks.append(CifarBlock(c_in, width << stage, 2 if stage and i == 0 else 1, option))
                c_in = width << stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(c_in, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


class PreactBlock(nn.Module):
    """`shortcut` is project (a 1x1 convolution if the shapes differ), pad (option A if they differ), or plain (none).

    Shortcuts that change the shape take relu(bn1(x)) as input, like the main path. The identity takes x.
    """

    def __init__(self, c_in, c_out, stride, bottleneck, first_strides, shortcut):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        if bottleneck:
            inner = c_out // 4
            self.conv1 = conv(c_in, inner, 1, stride if first_strides else 1)
            self.bn2 = nn.BatchNorm2d(inner)
            self.conv2 = conv(inner, inner, 3, 1 if first_strides else stride)
            self.bn3 = nn.BatchNorm2d(inner)
            self.conv3 = conv(inner, c_out, 1)
        else:
            self.conv1 = conv(c_in, c_out, 3, stride)
            self.bn2 = nn.BatchNorm2d(c_out)
            self.conv2 = conv(c_out, c_out, 3)
        self.bottleneck, self.shortcut = bottleneck, shortcut
        self.stride, self.grow, self.downsample = stride, c_out - c_in, None
        self.reshapes = stride > 1 or c_in != c_out
        if shortcut == "project" and self.reshapes:
            self.downsample = nn.Sequential(conv(c_in, c_out, 1, stride))

    def forward(self, x):
        p = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(p))))
        if self.bottleneck:
            y = self.conv3(F.relu(self.bn3(y)))
        if self.shortcut == "plain":
            return y
        if self.downsample is not None:
            return y + self.downsample(p)
        return y + (pad_shortcut(p, self.stride, self.grow) if self.reshapes else x)


class PreactNet(nn.Module):
    """The pre-activation nets of He et al. 2016. The stem is a convolution without norm or ReLU. In ImageNet nets, a
    max-pooling layer follows it."""

    def __init__(self, layers, widths, stem, bottleneck, shortcut, classes, imagenet):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False) if imagenet else conv(3, stem, 3)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        c_in, self.stages = stem, len(layers)
        for stage, (count, width) in enumerate(zip(layers, widths)):
            blocks = []
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                blocks.append(PreactBlock(c_in, width, stride, bottleneck, not imagenet, shortcut))
                c_in = width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(c_in)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(c_in, classes)

    def forward(self, x):
        x = self.maxpool(self.conv1(x))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(self.avgpool(F.relu(self.bn(x))).flatten(1))


def preact_cifar(depth, bottleneck, shortcut, classes, width):
    n, rest = divmod(depth - 2, 9 if bottleneck else 6)
    assert rest == 0 and n > 0, depth
    widths = [(width * 4 if bottleneck else width) << stage for stage in range(3)]
    return PreactNet([n] * 3, widths, width, bottleneck, shortcut, classes, False)


PLAIN = {"plain18": (PlainBasic, [2, 2, 2, 2]), "plain34": (PlainBasic, [3, 4, 6, 3]),
         "plain50": (PlainBottleneck, [3, 4, 6, 3])}
PREACT = {"preact_resnet18": ([2, 2, 2, 2], [64, 128, 256, 512], False),
          "preact_resnet50": ([3, 4, 6, 3], [256, 512, 1024, 2048], True)}
TIMM = {"preact_resnet18": "resnetv2_18", "preact_resnet50": "resnetv2_50"}
DILATED = {"resnet50_os16": [False, False, True], "resnet50_os8": [False, True, True]}
NETS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "wide_resnet50_2", "resnet50_os16",
        "resnet50_os8", "resnet50_v1", "plain18", "plain34", "plain50", "resnet18_small",
        "resnet20_a", "resnet20_a_after", "resnet20_b", "resnet20_c", "plain20", "resnet20_none",
        "preact_resnet20", "preact_resnet29", "preact_plain20", "preact_resnet18", "preact_resnet50"]


def build(name, classes=10, width=16):
    """The net `name` with PyTorch's random weights. `width` is the width of the stem of CIFAR nets."""
    if name in DILATED:
        return tv.resnet50(num_classes=classes, replace_stride_with_dilation=DILATED[name])
    if name == "resnet50_v1":
        return resnet50_v1(classes)
    if name == "resnet18_small":
        return resnet18_small(classes)
    if name in PLAIN:
        return plain_imagenet(*PLAIN[name], classes)
    if name in PREACT:
        layers, widths, bottleneck = PREACT[name]
        return PreactNet(layers, widths, 64, bottleneck, "project", classes, True)
    match = re.fullmatch(r"preact_(resnet|plain)(\d+)", name)
    if match:
        depth = int(match[2])
        bottleneck = depth in (29, 164, 1001)
        shortcut = "plain" if match[1] == "plain" else "project" if bottleneck else "pad"
        return preact_cifar(depth, bottleneck, shortcut, classes, width)
    match = re.fullmatch(r"resnet(\d+)_(a|a_after|b|c|none)|plain(\d+)", name)
    if match:
        n, rest = divmod(int(match[1] or match[3]) - 2, 6)
        if rest == 0 and n > 0:
            return CifarNet(n, match[2] or "plain", classes, width)
    if re.fullmatch(r"(wide_)?resnet\d+(_2)?|resnext\w+", name) and hasattr(tv, name):
        return getattr(tv, name)(num_classes=classes)
    sys.exit(f"unknown net `{name}`")


def is_imagenet(model):
    return model.conv1.stride == (2, 2)


def batch_and_side(model):
    """The batch size and the side of the images in the fixtures of `model`."""
    return 4, 64 if is_imagenet(model) else 16


# ------------------------------------------------------------------------------------------------------- one run

Run = collections.namedtuple("Run", "logits stages embedding gradient running")


def main_norms(model):
    """The first and the last norm on the main path."""
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and "downsample" not in n]
    last = [pair for pair in norms if pair[0] == "bn"] or norms[-1:]
    return norms[:1] + last


def run(name, training, batch, side, norm_bias, dtype):
    """The results of one forward and backward pass of a newly filled net, converted to 64-bit floats."""
    model = fill(build(name), norm_bias).to(dtype)
    model.train(training)
    seen, counts, handles = {}, {}, []
    for key, module in model.named_children():
        if key.startswith("layer") or key == "avgpool":
            handles.append(module.register_forward_hook(
                lambda _m, _i, out, key=key: seen.__setitem__(key, out.detach().double().clone())))
    norms = main_norms(model)
    for key, module in norms:
        handles.append(module.register_forward_hook(
            lambda _m, i, _o, key=key: counts.__setitem__(key, i[0].numel() // i[0].shape[1])))
    images = signed("input", (batch, 3, side, side)).to(dtype).requires_grad_()
    logits = model(images)
    (logits * signed("cotangent", tuple(logits.shape)).to(dtype)).sum().backward()
    for handle in handles:
        handle.remove()
    running = {key: (counts[key], m.running_mean.double(), m.running_var.double()) for key, m in norms}
    stages = [seen[key] for key in sorted(seen) if key.startswith("layer")]
    return Run(logits.detach().double(), stages, seen["avgpool"].flatten(1), images.grad.double(),
               running if training else {})


def far(a, b):
    """The largest absolute difference divided by the largest absolute value of b."""
    return ((a - b).abs().max() / b.abs().max()).item()


def far_l2(a, b):
    return ((a - b).norm() / b.norm()).item()


def distances(single, double):
    features = zip(single.stages + [single.embedding], double.stages + [double.embedding])
    return {"logits": far(single.logits, double.logits),
            "features": max(far(a, b) for a, b in features),
            "gradient": far(single.gradient, double.gradient),
            "gradient-l2": far_l2(single.gradient, double.gradient),
            "running": max((far(a, b) for key in double.running
                            for a, b in zip(single.running[key][1:], double.running[key][1:])), default=0.0)}


def clean(a, b):
    """The number of images whose gradients differ by less than 2e-5. A changed sign of a ReLU input affects one image."""
    return sum(far(x, y) < 2e-5 for x, y in zip(a, b))


def floor(single, arguments):
    """The larger of two differences from a 64-bit run: that of `single`, and that of a 32-bit run without oneDNN."""
    double = run(*arguments, torch.float64)
    with warnings.catch_warnings(), torch.backends.mkldnn.flags(enabled=False):
        warnings.simplefilter("ignore")
        other = run(*arguments, torch.float32)
    found = [distances(single, double), distances(other, double)]
    worst = {key: max(f[key] for f in found) for key in found[0]}
    return {**worst, "clean": min(clean(r.gradient, double.gradient) for r in (single, other))}


# ------------------------------------------------------------------------------------------------------ fixtures


def sample(flat, limit):
    n = flat.numel()
    if limit is None or n <= limit:
        return flat
    return flat[torch.tensor([k * n // limit for k in range(limit)])]


def numbers(values):
    """The values with nine significant digits, which determine a 32-bit float exactly."""
    return [Digits(f"{v:.9g}") for v in values.tolist()]


class Digits(str):
    """A number, already formatted for the JSON file."""


def write_json(value, indent=""):
    """JSON with one line for each list of numbers, and one line for each key of an object."""
    if isinstance(value, Digits):
        return str(value)
    if isinstance(value, dict):
        inner = indent + " "
        rows = [f"{inner}{json.dumps(k)}: {write_json(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        inner = indent + " "
        return "[\n" + ",\n".join(inner + write_json(v, inner) for v in value) + f"\n{indent}]"
    if isinstance(value, list):
        return "[" + ",".join(write_json(v) for v in value) + "]"
    return json.dumps(value)


def describe(tensor, limit=SAMPLES):
    assert torch.isfinite(tensor).all()
    values = numbers(sample(tensor.flatten(), limit))
    return {"shape": list(tensor.shape), "norm": tensor.norm().item(), "values": values}


def describe_run(result):
    out = {"logits": describe(result.logits, None), "stages": [describe(s) for s in result.stages],
           "embedding": describe(result.embedding), "input_gradient": describe(result.gradient)}
    if result.running:
        out["running"] = {key: {"count": count, "mean": numbers(sample(mean, SAMPLES)),
                                "var": numbers(sample(var, SAMPLES))}
                          for key, (count, mean, var) in result.running.items()}
    return out


def timm_name(key):
    """The canonical name of a tensor of timm's ResNetV2."""
    key = re.sub(r"^stem\.conv\.", "conv1.", key)
    key = re.sub(r"^stages\.(\d+)\.blocks\.", lambda m: f"layer{int(m[1]) + 1}.", key)
    key = re.sub(r"\.norm(\d)\.", r".bn\1.", key)
    key = key.replace(".downsample.conv.", ".downsample.0.")
    return re.sub(r"^head\.fc\.", "fc.", re.sub(r"^norm\.", "bn.", key))


def check_against_timm(name, batch, side):
    """The largest difference between the logits of this script's net and of timm's net with the same weights, over both
    modes, in 64-bit floats."""
    import timm

    ours = fill(build(name)).double()
    theirs = timm.create_model(TIMM[name], pretrained=False, num_classes=10).double()
    source, target = ours.state_dict(), theirs.state_dict()
    assert {timm_name(k) for k in target} == set(source)
    theirs.load_state_dict({k: source[timm_name(k)].reshape(v.shape) for k, v in target.items()}, strict=True)
    images, worst = signed("input", (batch, 3, side, side)).double(), 0.0
    with torch.no_grad():
        for training in (False, True):
            worst = max(worst, far(ours.train(training)(images), theirs.train(training)(images)))
    return worst


def versions(with_timm):
    out = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    if with_timm:
        import timm

        out["timm"] = timm.__version__
    return out


def fixtures(args):
    if not args.dry:
        args.out.mkdir(parents=True, exist_ok=True)
    table, size = [], 0
    for name in args.net or NETS:
        model = build(name)
        batch, side = batch_and_side(model)
        batch, side = args.batch or batch, args.side or side
        against = name in TIMM and importlib.util.find_spec("timm") is not None
        out = {"net": name, "made_by": versions(against)}
        if against:
            difference = check_against_timm(name, batch, side)
            print(f"{name}: differs from timm's {TIMM[name]} by {difference:.1e}, relative to the largest logit")
            if difference > 1e-12:
                sys.exit(f"{name} does not agree with timm's {TIMM[name]}")
            out["checked_against"] = f"timm {TIMM[name]}"
        out.update(batch=batch, image=[3, side, side], classes=10,
                   parameters=sum(p.numel() for p in model.parameters()))
        row, seconds = [name, f"{batch}x{side}"], 0.0
        for mode, training in (("inference", False), ("training", True)):
            norm_bias = 0.0
            # In these nets, some ReLU inputs are so near to 0 that their sign depends on rounding.
            if training and (is_imagenet(model) or name in ("preact_plain20", "preact_resnet20")):
                default = 3.5 if name in ("resnet101", "plain50") else 2.5
                norm_bias = default if args.norm_bias is None else args.norm_bias
            arguments = (name, training, batch, side, norm_bias)
            start = time.perf_counter()
            single = run(*arguments, torch.float32)
            seconds = max(seconds, time.perf_counter() - start)
            row.append(floor(single, arguments))
            out[mode] = {"norm_bias": norm_bias, **describe_run(single)}
        text = write_json(out) + "\n"
        size += len(text)
        if not args.dry:
            (args.out / f"{name}.json").write_text(text)
        table.append(row + [seconds])
        print(f"{name}: {len(text)} bytes, {seconds:.1f} s", file=sys.stderr)
    print(f"\nmade by {versions('preact_resnet50' in [r[0] for r in table])}, {size} bytes in total")
    print("\nnoise floor: largest |32-bit - 64-bit| / largest |64-bit| (gradient-l2: the same with L2 norms;\n"
          "clean: the number of images whose gradients differ by less than 2e-5)\n")
    columns = ["logits", "features", "gradient", "gradient-l2"]
    head = "".join(f"{c:>12}" for c in columns)
    print(f"{'':28}|{'inference':^55}|{'training':^60}|")
    print(f"{'net':<18}{'images':>9} |{head}  clean|{head}{'running':>12}| seconds")
    for name, images, inference, training, seconds in table:
        print(f"{name:<18}{images:>9} |" + "".join(f"{inference[c]:>12.1e}" for c in columns)
              + f"{inference['clean']:>5}/{images.split('x')[0]}|"
              + "".join(f"{training[c]:>12.1e}" for c in columns + ["running"]) + f"| {seconds:.1f}")


# --------------------------------------------------------------------------------------------------- checkpoints


def load(args):
    from safetensors.torch import load_file

    tensors = load_file(args.file)
    model = build(args.net, args.classes, args.width)
    counters = {k: v for k, v in model.state_dict().items() if k.endswith(".num_batches_tracked")}
    model.load_state_dict({**counters, **tensors}, strict=True)
    print(f"loaded: {len(tensors)} tensors")
    side = 64 if is_imagenet(model) else 16
    with torch.no_grad():
        for row in model.eval()(signed("input", (2, 3, side, side))).tolist():
            print(" ".join(f"{v:.9g}" for v in row))


def write_checkpoint(path, net, classes=10, width=16, format="pth", prefix="", nest=None, rename=()):
    state = fill(build(net, classes, width)).state_dict()
    renames = dict(pair.split("=", 1) for pair in rename)
    named = collections.OrderedDict()
    for key, tensor in state.items():
        if format == "safetensors" and key.endswith(".num_batches_tracked"):
            continue
        module, leaf = key.rsplit(".", 1)
        named[f"{prefix}{renames.get(module, module)}.{leaf}"] = tensor
    if format == "safetensors":
        if nest:
            sys.exit("--nest needs --format pth or legacy; a safetensors file contains only tensors")
        from safetensors.torch import save_file

        save_file(named, path)
        return
    content = {"epoch": 200, nest: named, "best_prec1": 91.25} if nest else named
    torch.save(content, path, _use_new_zipfile_serialization=format == "pth")


def save(args):
    write_checkpoint(args.file, args.net, args.classes, args.width, args.format, args.prefix, args.nest, args.rename)


class Evil:
    """Pickles as a call to os.system. A reader that executes the pickle creates a file."""

    def __reduce__(self):
        return os.system, ("touch /tmp/residual-evil-ran",)


def files(args):
    args.out.mkdir(parents=True, exist_ok=True)
    tiny = dict(net="resnet8_a", width=4)
    write_checkpoint(args.out / "tiny.pth", **tiny)
    write_checkpoint(args.out / "tiny-legacy.pth", **tiny, format="legacy")
    write_checkpoint(args.out / "tiny.safetensors", **tiny, format="safetensors")
    write_checkpoint(args.out / "tiny-module-nested.th", **tiny, prefix="module.", nest="state_dict",
                     rename=["fc=linear"])
    weight = fill(build("resnet8_a", width=4)).conv1.weight.detach()
    torch.save(collections.OrderedDict([("conv1.weight", weight), ("fc.bias", Evil())]), args.out / "evil.pth")
    # The names and shapes that torchvision's load_state_dict(strict=True) requires, for the tests of saved files.
    nets = {name: getattr(torchvision.models, name)(weights=None).state_dict()
            for name in ("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2")}
    keys = {name: {key: list(value.shape) for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
            for name, tensors in nets.items()}
    (args.out / "torchvision.json").write_text(json.dumps(keys) + "\n")
    for path in sorted(args.out.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")


# ---------------------------------------------------------------------------------------------------- optimizers

STEPS = 10

# The settings of each training: our JSON, with `lr`. Where PyTorch names a setting differently, `torch_optimizer`
# translates it.
OPTIMIZERS = [
    {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-2},
    {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-2},
    {"name": "adam", "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False, "weight_decay": 1e-2},
    {"name": "adam", "lr": 1e-3, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "amsgrad": True, "weight_decay": 1e-2},
    {"name": "adamw", "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False, "weight_decay": 1.0},
    {"name": "adamw", "lr": 1e-3, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "amsgrad": True, "weight_decay": 1.0},
    {"name": "rmsprop", "lr": 1e-3, "rho": 0.99, "momentum": 0.0, "eps": 1e-8, "centered": False, "weight_decay": 1e-2},
    {"name": "rmsprop", "lr": 1e-3, "rho": 0.9, "momentum": 0.5, "eps": 1e-3, "centered": True, "weight_decay": 1e-2},
    {"name": "adagrad", "lr": 1e-2, "eps": 1e-10, "lr_decay": 0.1, "weight_decay": 1e-2},
    {"name": "adadelta", "lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 1e-2},
    {"name": "adan", "lr": 1e-3, "beta1": 0.98, "beta2": 0.92, "beta3": 0.99, "eps": 1e-8, "weight_decay": 1.0},
    {"name": "lion", "lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "weight_decay": 10.0},
    {"name": "lamb", "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.1},
    {"name": "muon", "lr": 1e-3, "momentum": 0.95, "nesterov": True, "ns_steps": 5, "adjust_lr": "original",
     "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "adamw_lr": 0.1, "weight_decay": 0.1},
    {"name": "muon", "lr": 1e-4, "momentum": 0.9, "nesterov": False, "ns_steps": 3, "adjust_lr": "match-rms-adamw",
     "beta1": 0.9, "beta2": 0.999, "eps": 1e-3, "adamw_lr": 1.0, "weight_decay": 0.1},
]


def torch_optimizer(settings, parameters):
    """The optimizer of PyTorch or of timm for parameters other than those of Muon."""
    import timm.optim

    s = dict(settings)
    name, lr, decay = s.pop("name"), s.pop("lr"), s.pop("weight_decay")
    common = {"lr": lr, "weight_decay": decay}
    betas = tuple(s.pop(beta) for beta in ("beta1", "beta2", "beta3") if beta in s)
    if betas:
        common["betas"] = betas
    if name == "rmsprop":
        s["alpha"] = s.pop("rho")
    if name == "lamb":
        # The update of the paper, without timm's own clipping.
        s["max_grad_norm"] = None
    makers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW,
              "rmsprop": torch.optim.RMSprop, "adagrad": torch.optim.Adagrad, "adadelta": torch.optim.Adadelta,
              "adan": timm.optim.Adan, "lion": timm.optim.Lion, "lamb": timm.optim.Lamb}
    return makers[name](parameters, **common, **s)


class Muon:
    """PyTorch's Muon on the weights between the stem and the head, as matrices with one row per output channel, and
    PyTorch's AdamW on the rest."""

    def __init__(self, settings, model):
        s = settings
        hidden = {n: p for n, p in model.named_parameters() if p.dim() == 4 and n != "conv1.weight"}
        rest = [p for n, p in model.named_parameters() if n not in hidden]
        # The matrices share their storage with the weights.
        self.pairs = [(p, nn.Parameter(p.data.view(len(p), -1))) for p in hidden.values()]
        self.muon = torch.optim.Muon(
            [matrix for _, matrix in self.pairs], lr=s["lr"], weight_decay=s["weight_decay"], momentum=s["momentum"],
            nesterov=s["nesterov"], ns_steps=s["ns_steps"], adjust_lr_fn=s["adjust_lr"].replace("-", "_"))
        self.adamw = torch.optim.AdamW(rest, lr=s["lr"] * s["adamw_lr"], betas=(s["beta1"], s["beta2"]), eps=s["eps"],
                                       weight_decay=s["weight_decay"])

    def step(self):
        for weight, matrix in self.pairs:
            matrix.grad = weight.grad.view_as(matrix)
        # PyTorch orthogonalises in 16-bit floats.
        bfloat16, torch.Tensor.bfloat16 = torch.Tensor.bfloat16, lambda tensor: tensor
        try:
            self.muon.step()
        finally:
            torch.Tensor.bfloat16 = bfloat16
        self.adamw.step()


def train_ten_steps(settings, dtype):
    model = fill(build("resnet8_a", width=4)).to(dtype).train()
    optimizer = Muon(settings, model) if settings["name"] == "muon" else torch_optimizer(settings, model.parameters())
    labels, losses = torch.arange(8) % 10, []
    for step in range(STEPS):
        model.zero_grad()
        loss = F.cross_entropy(model(signed(f"input{step}", (8, 3, 16, 16)).to(dtype)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses), {name: p.detach() for name, p in model.named_parameters()}


def optimizers(args):
    out = {"made_by": versions(True), "trainings": []}
    for settings in OPTIMIZERS:
        losses, weights = train_ten_steps(settings, torch.float32)
        exact = train_ten_steps(settings, torch.float64)
        noise = max(far(w, exact[1][name]) for name, w in weights.items())
        print(f"{settings['name']:<10} losses {far(losses, exact[0]):.1e}  weights {noise:.1e}")
        lr = settings["lr"]
        optimizer = {key: value for key, value in settings.items() if key != "lr"}
        optimizer.update(clip=None, decay_all=True, rates=[])
        out["trainings"].append({"optimizer": optimizer, "lr": lr, "losses": numbers(losses),
                                 "weights": {name: numbers(sample(w.flatten(), 16)) for name, w in weights.items()}})
    args.out.write_text(write_json(out) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="number of PyTorch threads (default 2)")
    commands = parser.add_subparsers(dest="command", required=True)

    p = commands.add_parser("fixtures", help="write the fixtures (the default)")
    p.add_argument("--out", type=pathlib.Path, default=TESTS / "parity")
    p.add_argument("--net", action="append", help="only this net (can be given several times)")
    p.add_argument("--batch", type=int, help="batch size (default: depends on the net)")
    p.add_argument("--side", type=int, help="side of the images in pixels (default: depends on the net)")
    p.add_argument("--norm-bias", type=float,
                   help="norm_bias in training mode of nets with ReLU inputs near 0 (default 2.5; 3.5 for resnet101 and "
                   "plain50)")
    p.add_argument("--dry", action="store_true", help="print the noise floor, but write no files")
    p.set_defaults(call=fixtures)

    p = commands.add_parser("load", help="load a safetensors file and print its logits")
    p.set_defaults(call=load)
    q = commands.add_parser("save", help="write a checkpoint")
    q.add_argument("--format", choices=["pth", "legacy", "safetensors"], default="pth")
    q.add_argument("--prefix", default="", help="prefix for every name, such as module.")
    q.add_argument("--nest", help="nest the tensors under this key, next to epoch and best_prec1")
    q.add_argument("--rename", action="append", default=[], metavar="OLD=NEW",
                   help="rename a module, such as fc=linear")
    q.set_defaults(call=save)
    for sub in (p, q):
        sub.add_argument("file")
        sub.add_argument("--net", required=True)
        sub.add_argument("--classes", type=int, default=10)
        sub.add_argument("--width", type=int, default=16, help="width of the stem of CIFAR nets (default 16)")

    p = commands.add_parser("files", help="write the small checkpoints for the tests")
    p.add_argument("--out", type=pathlib.Path, default=TESTS / "files")
    p.set_defaults(call=files)

    p = commands.add_parser("optimizers", help="write the losses and weights of short trainings")
    p.add_argument("--out", type=pathlib.Path, default=TESTS.parents[2] / "tests/it/optimizers.json")
    p.set_defaults(call=optimizers)

    argv = sys.argv[1:]
    if not any(a in ("-h", "--help", *commands.choices) for a in argv):
        argv = ["fixtures"] + argv
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    args.call(args)


if __name__ == "__main__":
    main()
