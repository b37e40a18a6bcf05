"""How many tensor operations a training step asks for, by torch's profiler."""

from torch.profiler import ProfilerActivity, profile

from .inside import resolve_place
from .results import say, table
from .training_steps import make_step, steps_of

_WARM_UPS = 3


def add_options(add):
    """Declare the options of the command."""
    add("--shape", type=int, nargs=2, default=[32, 32], help="texts and tokens")


def quicken(options):
    """Set the options to a smoke test."""
    options.shape = [4, 16]


def run(options):
    """Count the operations of a step of each."""
    place = resolve_place(options.device, "float32")
    rows = []
    for name in steps_of(options.model):
        step = make_step(name, *options.shape, place, options.model)
        for _ in range(_WARM_UPS):
            step()
        rows.append({"contestant": name, **count(step, place.device)})
        say(f"{name}: {rows[-1]['operations']} operations")
    return {"shape": options.shape}, rows


def count(step, device):
    """Count what a call does.

    Returns
    -------
    dict
        ``operations``, all that torch names ``aten::``; ``outermost``, those not
        called by another one; ``waits``, reads of a single number outside of the
        optimizer, at each of which a GPU has to be waited for; ``launches`` of
        kernels on CUDA.
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        step()
    events = [event for event in profiler.events() if event.device_type.name == "CPU"]
    tensor = [event for event in events if event.name.startswith("aten::")]
    return {
        "operations": len(tensor),
        "outermost": sum(not _within(event, "aten::") for event in tensor),
        # The optimizer's own step counts, which it reads, lie on the CPU with it.
        "waits": sum(
            event.name == "aten::_local_scalar_dense"
            and not _within(event, "Optimizer.step")
            for event in tensor
        ),
        "launches": sum("LaunchKernel" in event.name for event in events),
    }


def _within(event, prefix):
    """Tell whether something whose name begins so called an operation."""
    parent = event.cpu_parent
    while parent is not None and not parent.name.startswith(prefix):
        parent = parent.cpu_parent
    return parent is not None


def to_markdown(about, rows):
    """Return the table."""
    plain = next(row for row in rows if row["contestant"] == "peft-lora")
    lines = []
    for row in rows:
        line = [row["contestant"], f"{row['operations']:,}"]
        line.append(f"{row['operations'] / plain['operations']:.2f}")
        line += [f"{row['outermost']:,}", row["waits"]]
        lines.append(line + ([f"{row['launches']:,}"] if plain["launches"] else []))
    header = ["step", "operations", "/ peft-lora", "outermost", "numbers read"]
    return table(header + (["kernels"] if plain["launches"] else []), lines)
