#!/usr/bin/env python3
"""Benchmarks PyTorch on the same nets, batches and steps as `residual bench`, for comparison.

Needs:  pip install torch torchvision        (for a GPU, a PyTorch build with support for it)

usage:  python scripts/pytorch-bench.py NET ... [--batch N] [--steps N] [--threads N] [--device cpu|cuda]
                                        [--compile] [--tf32] [--inference]

A training step consists of the forward pass, the loss, the backward pass, and an SGD update with momentum 0.9 and
weight decay 1e-4, on one batch of random images. Inference is one forward pass in inference mode. Unlike
`residual bench`, the script does not fold batch norms into the convolutions. Images are 32-bit floats in channels_last
layout. Like `residual bench`, the script synchronises with the device after each step or pass. cuDNN benchmarks its
convolution algorithms. On NVIDIA GPUs, convolutions and matrix products use TensorFloat-32 only with --tf32; by
default, PyTorch would use it in convolutions.

With --compile, the net is compiled and SGD is fused.

Prints one line of JSON per net. Rates are in images per second: the median and the range over the steps after the
warm-up. The peak memory is that of the process at the end of the training.
"""

import argparse
import json
import re
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F
import torchvision

import parity

WARM_UP = 5


def network(name):
    """The net, the shape of its images and the number of classes, the same as for `residual bench NAME`."""
    shortcut = "_a" if re.fullmatch(r"resnet\d+", name) and not hasattr(torchvision.models, name) else ""
    try:
        net = parity.build(name + shortcut, 1000)
    except (SystemExit, AssertionError):
        sys.exit(f"unknown net `{name}`")
    if parity.is_imagenet(net):
        return net, (3, 224, 224), 1000
    return parity.build(name + shortcut, 10), (3, 32, 32), 10


def rates(action, batch, steps, sync):
    """Images per second: the median over the steps, and the rates of the slowest and the fastest step."""
    seconds = []
    for _ in range(WARM_UP + steps):
        sync()
        start = time.perf_counter()
        action()
        sync()
        seconds.append(time.perf_counter() - start)
    rates = [batch / s for s in seconds[WARM_UP:]]
    return statistics.median(rates), [min(rates), max(rates)]


def measure(name, args):
    device = torch.device(args.device)
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    torch.manual_seed(0)
    net, shape, classes = network(name)
    net = net.to(device, memory_format=torch.channels_last)
    model = torch.compile(net) if args.compile else net
    images = torch.randn(args.batch, *shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(args.batch, device=device) % classes
    settings = {"fused": True} if args.compile else {}
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, **settings)

    def train():
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def infer():
        model(images)

    trained = (None, None) if args.inference else rates(train, args.batch, args.steps, sync)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    net.eval()
    inferred = rates(infer, args.batch, args.steps, sync)
    return {
        "net": name,
        "image": shape,
        "batch": args.batch,
        "steps": args.steps,
        "mode": ("compiled" if args.compile else "eager") + (", TF32" if args.tf32 else ""),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "pytorch": torch.__version__,
        "train_images_per_s": trained[0],
        "train_range": trained[1],
        "infer_images_per_s": inferred[0],
        "infer_range": inferred[1],
        "peak_mib": peak,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="+", metavar="NET")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--inference", action="store_true")
    args = parser.parse_args()
    if min(args.batch, args.steps, args.threads or 1) < 1:
        parser.error("--batch, --steps and --threads must be at least 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch does not find a CUDA device")
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = args.tf32
    for name in args.nets:
        print(json.dumps(measure(name, args)), flush=True)


if __name__ == "__main__":
    main()
