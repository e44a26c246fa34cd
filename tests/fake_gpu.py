"""A GPU for machines that have none: its tensors say that they lie on the device "standin", are computed by the
processor, and mayn't be mixed with the processor's own.

It finds tensors that were left on the other device, ``numpy`` of what wasn't fetched, and what ``torch.autocast`` does
to types as CUDA has it. It can't find what CUDA's kernels lack, and says nothing of speed. ``begin`` comes before
anything of Sensorium is imported, in a process of its own: it changes torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

DEVICE = "standin"
FETCHED = {"_to_copy", "copy_", "_local_scalar_dense"}
"""Operations that go from one device to the other."""
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""Those whose indices may be the processor's."""
SMALL = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "convolution",
    "matmul",
    "mm",
    "mv",
    "bmm",
    "addmm",
    "addmv",
    "baddbmm",
    "addbmm",
    "linear",
    "scaled_dot_product_attention",
]
WIDE = [
    "layer_norm",
    "group_norm",
    "native_layer_norm",
    "exp",
    "log",
    "pow",
    "norm",
    "cosine_similarity",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "nll_loss",
    "softplus",
    "cdist",
    "rsqrt",
    "reciprocal",
    "log1p",
    "log10",
    "log2",
    "expm1",
    "erfinv",
    "logsumexp",
    "kl_div",
    "binary_cross_entropy_with_logits",
    "dist",
    "acos",
    "asin",
    "cosh",
    "sinh",
    "tan",
    "upsample_bicubic2d",
    "upsample_bilinear2d",
    "upsample_nearest2d",
    "upsample_linear1d",
    "_upsample_bicubic2d_aa",
]
SUMMED = ["softmax", "log_softmax", "cumprod", "cumsum", "sum", "prod", "linalg_vector_norm"]
WIDEST = [
    "addcdiv",
    "addcmul",
    "atan2",
    "bilinear",
    "cross",
    "dot",
    "grid_sampler",
    "index_put",
    "tensordot",
    "scatter_add",
]
"""What CUDA's autocast computes in bf16, in fp32, to results of fp32, and in the widest type that it is given (torch's
"CUDA Ops that can autocast").
"""


class There(torch.Tensor):
    """A tensor on the device; ``held`` is what it is made of."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> There:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=f"{DEVICE}:0",
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"There({self.held!r})"

    def tolist(self) -> Any:
        """As of every tensor, which subclasses aren't given."""
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


class Mode(TorchDispatchMode):
    """What is made on the device, or moved to it, is such a tensor."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


def run(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation, on what the tensors are made of.

    Raises:
        RuntimeError: they are on both devices, and it doesn't go from one to the other.
    """
    given = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there, name, wanted = (
        any(isinstance(x, There) for x in given),
        function.overloadpacket.__name__,
        kwargs.get("device"),
    )
    if wanted is not None:
        kwargs, there = (
            {**kwargs, "device": torch.device("cpu"), **({"pin_memory": False} if kwargs.get("pin_memory") else {})},
            torch.device(wanted).type == DEVICE,
        )
    elif name == "copy_":
        there = isinstance(args[0], There)
    elif there and name not in FETCHED:
        mixed = (args[0], *args[2:3]) if name in INDEXED else given
        if any(isinstance(x, torch.Tensor) and not isinstance(x, There) and x.dim() for x in mixed):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {function} got some on {DEVICE} and some on cpu"
            )
    inner = pytree.tree_map_only(There, lambda x: x.held, (args, kwargs))
    out = function(*inner[0], **inner[1])
    if not there:
        return out
    out = pytree.tree_map_only(torch.Tensor, lambda x: x if isinstance(x, There) else There(x), out)
    return return_and_correct_aliasing(function, args, kwargs, out) if any(isinstance(x, There) for x in given) else out


class Module(_DummyBackendModule):
    """What torch asks of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Types of ``torch.autocast``."""
        return [torch.bfloat16, torch.float16]

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        """The processor's, which draws for it."""
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        """Nothing: what draws for it is set already."""


def begin() -> None:
    """Let this process have the device, with CUDA's autocast, for its main thread."""
    _setup_privateuseone_for_python_backend(DEVICE, Module())
    torch.__future__.set_swap_module_params_on_conversion(True)
    make = torch.tensor

    def tensor(data: Any, *, device: Any = None, **how: Any) -> torch.Tensor:
        made = make(data, **how)
        return made if device is None else made.to(device)

    torch.tensor = tensor  # what it does inside, no subclass hears of
    torch.inference_mode = lambda mode=True: (
        torch.no_grad()(mode) if callable(mode) else torch.no_grad()
    )  # views of such tensors have no version there
    begin.kept = [*autocast()]  # they are gone with their library
    Mode().__enter__()


def autocast() -> Iterable[torch.library.Library]:
    """The casts of CUDA's autocast, for this device."""
    rest, library = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    rest.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for names, cast in ((SMALL, small), (WIDE, wide), (SUMMED, summed), (WIDEST, widest)):
        for name in names:
            packet = getattr(torch.ops.aten, name)
            for operation in (getattr(packet, each) for each in packet.overloads()):
                if (
                    not operation._schema.name.endswith("out")
                    and "out" not in operation._overloadname
                    and "imname" not in operation._overloadname
                ):
                    library.impl(operation, casting(operation, cast), "AutocastPrivateUse1")
    return rest, library


def casting(operation: Any, cast: Callable[[Any, Any, Any], tuple[Any, Any]]) -> Callable[..., Any]:
    """An operation, its arguments cast before it."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            args, kwargs = cast(operation, args, kwargs)
            return operation(*args, **kwargs)

    return kernel


def floats(x: Any) -> bool:
    """Whether autocast may cast it."""
    return (
        isinstance(x, torch.Tensor) and x.is_floating_point() and x.dtype != torch.float64 and x.device.type == DEVICE
    )


def small(operation: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """All in the type of autocast."""
    return pytree.tree_map(lambda x: x.to(torch.get_autocast_dtype(DEVICE)) if floats(x) else x, (args, kwargs))


def wide(operation: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """All in fp32."""
    return pytree.tree_map(lambda x: x.float() if floats(x) else x, (args, kwargs))


def summed(operation: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The result in fp32, where no other type is asked."""
    names = [argument.name for argument in operation._schema.arguments]
    if "dtype" not in names or not floats(args[0]):
        return args, kwargs
    at = names.index("dtype")
    if kwargs.get("dtype") is not None or (at < len(args) and args[at] is not None):
        return args, kwargs
    return args[:at], {**kwargs, "dtype": torch.float32}


def widest(operation: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """All in fp32, where one is."""
    found = any(floats(x) and x.dtype == torch.float32 for x in pytree.tree_leaves((args, kwargs)))
    return wide(operation, args, kwargs) if found else (args, kwargs)
