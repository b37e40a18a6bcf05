"""Which attention kernel is the fastest, by device and precision?

Times a training step (forward and backward through the frozen model and its updates)
and a prediction with each kernel, taking turns, and prints the ratio of medians. The
answer is written down in `sk_adalora/runtime/devices.py`.

    python -m benchmarks attention
"""

from functools import partial
from types import SimpleNamespace

import torch

from sk_adalora.adalora import AdaLoraConfig
from sk_adalora.network.network import TextNetwork
from sk_adalora.pretrained.find import DEFAULT_MODEL, Request, find_folder
from sk_adalora.pretrained.read import silent_transformers
from sk_adalora.runtime.devices import resolve_compute
from sk_adalora.tokens.batches import Batch

from .machine import describe_machine
from .results import table
from .timing import ratio

ROUNDS = 15
SHAPES = ((32, 16), (32, 64), (32, 128))


def build_networks(compute):
    """Return the adapted default model with each kernel."""
    from transformers import AutoModel

    folder = find_folder(Request(DEFAULT_MODEL))
    networks = {}
    for kernel in ("eager", "sdpa"):
        with silent_transformers():
            module = AutoModel.from_pretrained(
                folder, dtype=compute.dtype, attn_implementation=kernel
            )
        width = module.config.hidden_size
        backbone = SimpleNamespace(copy=lambda m=module: m, width=width)
        config = AdaLoraConfig(init_r=12, target_r=8, total_step=100)
        networks[kernel] = TextNetwork(backbone, config, 5, "mean").to(compute.device)
    return networks


def make_batch(rows, length, padded, device):
    """Return random token ids; `padded` rows end after half of the length."""
    ids = torch.randint(1000, 20000, (rows, length))
    mask = torch.ones_like(ids)
    mask[: rows // 2, length // 2 :] = 0
    return Batch(ids, mask if padded else None, None).to(device)


def measure(networks, task, batch, device):
    """Return the ratio of the kernels' medians."""
    calls = {}
    for kernel, network in networks.items():
        network.train(task is train_step)
        calls[kernel] = partial(task, network, batch)
    return ratio(calls["sdpa"], calls["eager"], device, ROUNDS)


def train_step(network, batch):
    """Run forward and backward."""
    network(batch).sum().backward()


@torch.inference_mode()
def predict(network, batch):
    """Run forward."""
    network(batch)


def main():
    """Print a table of ratios: above 1, eager is faster."""
    lines = []
    for precision in ("bfloat16", "float32"):
        compute = resolve_compute("auto", precision)
        networks = build_networks(compute)
        for rows, length in SHAPES:
            for padded in (False, True):
                batch = make_batch(rows, length, padded, compute.device)
                ratios = [
                    f"{measure(networks, task, batch, compute.device):.2f}"
                    for task in (train_step, predict)
                ]
                lines.append([precision, f"{rows} x {length}", padded, *ratios])
    print(f"{describe_machine()}\n")
    header = ["precision", "tokens", "padded", "training sdpa/eager", "prediction"]
    print(table(header, lines))


if __name__ == "__main__":
    main()
