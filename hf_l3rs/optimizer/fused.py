"""
The step of float32 layers on the CPU in two passes over memory, compiled from C when it is first needed.

The plain step reads and writes a model some twenty times, once for every operation of its directions, and is as fast
as memory is. Here the first pass computes the directions only to measure them; the second computes them again, writes
the averages and moves the parameters. That is the traffic of torch's fused Adam, and one more reading.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from hf_l3rs.errors import UnsupportedSetupError, reason
from hf_l3rs.optimizer.arithmetic import IN_PLACE, Tensors
from hf_l3rs.optimizer.config import L3RSConfig
from hf_l3rs.optimizer.directions import DIRECTIONS
from hf_l3rs.optimizer.step import Decide, Decision, LayerStack, LayerState


# Elements that one thread takes at a time; with fewer, steps are slower. Sums are of chunks, so that they do not
# depend on the number of threads.
CHUNK = 65536

# Not -ffast-math, with which a library changes how its whole process rounds, and numbers that are none are forgotten.
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC")

_SOURCE = """
#include <math.h>
#include <stdint.h>

/* chunks: layer, first element and end; streams: (NUM_STREAMS, num_layers); numbers: (num_layers, NUM_NUMBERS) */
#define ARGUMENTS const int64_t (*chunks)[3], int64_t num_chunks, float *const *streams, int64_t num_layers, \\
    const float (*numbers)[%(num_numbers)d]
#define LAYER \\
    const int64_t layer = chunks[chunk][0], start = chunks[chunk][1], end = chunks[chunk][2]; \\
    const float *const number = numbers[layer]; \\
    const int is_usable = number[0] != 0; \\
%(streams)s
#define ELEMENT \\
    const float g = is_usable ? grad[i] : 0.0f; \\
%(element)s

void measure(ARGUMENTS, float (*sums)[%(num_sums)d], int num_threads)
{
    #pragma omp parallel for num_threads(num_threads) schedule(dynamic)
    for (int64_t chunk = 0; chunk < num_chunks; chunk++) {
        LAYER
        float %(zero_sums)s;
        #pragma omp simd reduction(+ : %(sum_names)s)
        for (int64_t i = start; i < end; i++) {
            ELEMENT
            %(add)s
        }
        %(store_sums)s
    }
}

/* from the end, where the first pass has left the caches */
void apply(ARGUMENTS, int num_threads)
{
    #pragma omp parallel for num_threads(num_threads) schedule(dynamic)
    for (int64_t left = num_chunks; left > 0; left--) {
        const int64_t chunk = left - 1;
        LAYER
        #pragma omp simd
        for (int64_t i = start; i < end; i++) {
            ELEMENT
            %(store)s
        }
    }
}
"""


class FusedStep:
    """
    What [`LayerStack.step`] does in place, for the layers of one binding.

    Args:
        stack ([`LayerStack`]): Of these layers.
        params (`list[torch.Tensor]`): Their parameters, which are moved where they are.
        state ([`LayerState`]): Theirs, which is brought up to date where it is.

    Raises:
        UnsupportedSetupError: If there is no such step for these layers, or no compiler.
    """

    def __init__(self, stack: LayerStack, params: Tensors, state: LayerState) -> None:
        self.stack, self.params, self.state = stack, params, state
        self._buffers = [buffers for buffers in state.buffers.values()]
        self._strides = [param.stride() for param in params]
        _refuse_what_is_plain(stack.config, [params, *self._buffers])
        self._library = _compiled(source_of(stack.config))
        chunks = [
            (layer, start, min(start + CHUNK, param.numel()))
            for layer, param in enumerate(params)
            for start in range(0, param.numel(), CHUNK)
        ]
        self._chunks = torch.tensor(chunks, dtype=torch.int64).view(-1, 3)
        self._sums = torch.empty(len(chunks), 2 + len(stack.config.directions))

    def holds(self) -> bool:
        """Whether the parameters lie in memory as they did."""
        return [param.stride() for param in self.params] == self._strides

    def step(
        self, decide: Decide, *, loss: torch.Tensor | None, k: int, num_training_steps: int, lr: float
    ) -> Decision:
        """Takes one step from the parameters' gradients; see [`LayerStack.step`] for the arguments."""
        stack, state = self.stack, self.state
        state.steps.add_(1.0)
        grads = [_laid_out_as(param, param.grad) for param in self.params]
        streams = [self.params, grads, *self._buffers]
        addresses = torch.tensor([[tensor.data_ptr() for tensor in stream] for stream in streams])
        count = len(stack.config.directions)
        numbers = torch.ones(len(self.params), 1 + 3 * count)
        for index, name in enumerate(stack.config.directions):
            numbers[:, 1 + index], numbers[:, 1 + count + index] = _corrections(name, stack.config, state.steps)

        measured = self._measure(addresses, numbers)
        is_usable = stack.usable(measured[:, 0], IN_PLACE)
        if is_usable is not None:  # rare enough to measure again
            numbers[:, 0] = is_usable
            measured = self._measure(addresses, numbers)
        outcome = stack.decide(
            decide, measured, is_usable, state.ema, loss=loss, k=k, num_training_steps=num_training_steps,
            arithmetic=IN_PLACE, lr=lr,
        )  # fmt: skip
        numbers[:, 1 + 2 * count :] = -outcome.decision.update_norms[:, None] * outcome.shares
        self._call(self._library.apply, addresses, numbers)
        # nothing else tells autograd that what it may have saved was written
        torch.autograd.graph.increment_version([*self.params, *(each for own in self._buffers for each in own)])
        return outcome.decision

    def _measure(self, addresses: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Returns norms of gradients, parameters and directions, of shape `(num_layers, 2 + num_directions)`."""
        self._call(self._library.measure, addresses, numbers, self._sums)
        sums = torch.zeros(len(self.params), self._sums.shape[1], dtype=torch.float64)
        return sums.index_add_(0, self._chunks[:, 0], self._sums.double()).sqrt().to(self.stack.dtype)

    def _call(
        self, function: Callable[..., Any], addresses: torch.Tensor, numbers: torch.Tensor, *more: torch.Tensor
    ) -> None:
        chunks, streams, numbers_, *others = (
            ctypes.c_void_p(tensor.data_ptr()) for tensor in (self._chunks, addresses, numbers, *more)
        )
        sizes = ctypes.c_int64(len(self._chunks)), ctypes.c_int64(len(self.params))
        function(chunks, sizes[0], streams, sizes[1], numbers_, *others, ctypes.c_int(torch.get_num_threads()))


def source_of(config: L3RSConfig) -> str:
    """Returns the C source of both passes for the directions of a configuration."""
    names, count = config.directions, len(config.directions)
    buffers = [buffer for name in names for buffer in DIRECTIONS[name].buffers]
    streams = [f"float *restrict const {name} = streams[{i} * num_layers + layer];"
               for i, name in enumerate(["param", "grad", *buffers])]  # fmt: skip
    element = [f"const float new_{name} = {_average(name, config)};" for name in buffers]
    for index, name in enumerate(names):
        value = _VALUES[name].format(factor=f"number[{1 + index}]", eps=f"number[{1 + count + index}]")
        element.append(f"const float d{index} = {value};")
    moved = " + ".join(["param[i]", *(f"number[{1 + 2 * count + index}] * d{index}" for index in range(count))])
    squared = ["g", "param[i]", *(f"d{index}" for index in range(count))]
    sums = [f"s{index}" for index in range(len(squared))]
    return _SOURCE % {
        "num_numbers": 1 + 3 * count,
        "num_sums": len(sums),
        "streams": " \\\n".join(streams),
        "element": " \\\n".join(element),
        "zero_sums": ", ".join(f"{own} = 0" for own in sums),
        "sum_names": ", ".join(sums),
        "add": " ".join(f"{own} += {each} * {each};" for own, each in zip(sums, squared)),
        "store_sums": " ".join(f"sums[chunk][{index}] = {own};" for index, own in enumerate(sums)),
        "store": " ".join([*(f"{name}[i] = new_{name};" for name in buffers), f"param[i] = {moved};"]),
    }


# What directions are of a gradient g and of their buffers, brought up to date: directions.py says why.
_VALUES = {
    "adam": "new_adam_exp_avg / (sqrtf(new_adam_exp_avg_sq) * {factor} + {eps})",
    "sgd": "g",
    "momentum": "new_momentum_exp_avg",
    "rmsprop": "g / (sqrtf(new_rmsprop_exp_avg_sq) * {factor} + {eps})",
}


def _average(buffer: str, config: L3RSConfig) -> str:
    """β a + (1 − β) g, or g² in the place of g."""
    beta1, beta2 = config.adam_betas
    beta, summand = {
        "adam_exp_avg": (beta1, "g"),
        "adam_exp_avg_sq": (beta2, "g * g"),
        "momentum_exp_avg": (config.momentum, "g"),
        "rmsprop_exp_avg_sq": (beta2, "g * g"),
    }[buffer]
    return f"{float(beta)!r}f * {buffer}[i] + {float(1 - beta)!r}f * {summand}"


def _corrections(name: str, config: L3RSConfig, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a direction's root is multiplied by, and what is added to it, one a layer."""
    beta1, beta2 = config.adam_betas
    steps = steps.double()
    first = 1 - beta1**steps if name == "adam" else torch.ones_like(steps)
    return first * (1 - beta2**steps).rsqrt(), config.adam_eps * first


def _laid_out_as(param: torch.Tensor, grad: Any) -> torch.Tensor:
    if grad.stride() == param.stride() and grad.dtype == param.dtype:
        return grad
    return torch.empty_like(param).copy_(grad)


def _refuse_what_is_plain(config: L3RSConfig, streams: Sequence[Tensors]) -> None:
    """Raises if there is no fused step of such layers."""
    others = [name for name in config.directions if name not in _VALUES]
    others += ["averaging"] * config.averaging + ["normalize_mixture"] * config.normalize_mixture
    if others:
        raise UnsupportedSetupError(
            f"The fused step has {', '.join(_VALUES)}, but this L3RS has {', '.join(others)}; the plain step is taken."
        )
    params = streams[0]
    kinds = {f"{param.dtype} on {param.device.type}".removeprefix("torch.") for param in params}
    if kinds != {"float32 on cpu"}:
        raise UnsupportedSetupError(
            f"The fused step is of float32 parameters on the CPU, got {', '.join(sorted(kinds))}; the plain step is "
            "taken."
        )
    # memory of its own, without holes, and the same order of elements in all that belongs to a layer
    layouts = [torch.empty_like(param, device="meta").stride() for param in params]
    if any(tensor.stride() != layout for stream in streams for tensor, layout in zip(stream, layouts)):
        raise UnsupportedSetupError(
            "The fused step needs parameters without holes in memory, and a state that lies as they do; the plain "
            "step is taken."
        )


@functools.cache
def _compiled(source: str) -> ctypes.CDLL:
    """Compiles for the processor at hand, once a process: it takes less than looking for an earlier result would."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        raise UnsupportedSetupError(
            "The fused step needs a C compiler with OpenMP, such as gcc, but found none; the plain step is taken."
        )
    with tempfile.TemporaryDirectory(prefix="hf_l3rs-") as folder:
        path = Path(folder) / "fused.c"
        path.write_text(source, encoding="utf-8")
        library = path.with_suffix(".so")
        command = [*compiler.split(), *FLAGS, str(path), "-o", str(library), "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
            return ctypes.CDLL(str(library))
        except (OSError, subprocess.SubprocessError) as error:
            told = (getattr(error, "stderr", None) or reason(error)).strip().splitlines() or ["no word"]
            raise UnsupportedSetupError(
                f"The fused step needs a C compiler with OpenMP, but {compiler} failed ({told[0]}); the plain step is "
                "taken, install gcc or set CC."
            ) from error
