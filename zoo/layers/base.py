"""The equation every dynamic convolution here obeys: ``kernels = mixing x basis``."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.layers import lowerings
from zoo.layers.geometry import Geometry, as_pair, padding_of


class DynamicConv2d(nn.Module):
    """A convolution whose kernels are made anew for every sample of the batch.

    From the input's context ``g`` (its global average) a family computes two factors whose product is the
    kernels of that sample; one of them often does not depend on the sample, which is what makes the
    lowerings cheap (see :mod:`zoo.layers.lowerings`). A family subclasses this, names its
    ``sample_factor`` and ``sizes``, and implements :meth:`make_parameters`, :meth:`reset_parameters` and
    :meth:`factors`.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode:
            as for ``nn.Conv2d``; ``padding_mode`` must be ``"zeros"``.
        device, dtype: of the parameters.
        **sizes: the family's own, such as ``bank_size``; see ``sizes`` of the family for the defaults.

    Shapes:
        input ``(N, in_channels, H, W)``, output ``(N, out_channels, Ho, Wo)`` as for ``nn.Conv2d``.

    Raises:
        ZooError: sizes that are unknown or not positive, groups that do not divide the channels, a padding
            mode other than zeros, or ``padding="same"`` with a stride.
        AssertionError: when called, with an input of another shape or smaller than the kernel.
    """

    #: Which factor depends on the sample: ``"mixing"``, ``"basis"``, ``"both"`` or ``"none"``.
    sample_factor: Literal["mixing", "basis", "both", "none"] = "both"
    #: Whether the basis is the identity, so that there is nothing to apply before the mixing.
    identity_basis: ClassVar[bool] = False
    #: Lowerings the layer has besides those that every layer has.
    extra_lowerings: tuple[str, ...] = ()
    #: Numbers of one sample's mixing in a slice, at least: about a core's cache at batch 1. With fewer, the
    #: operations that every slice has of its own cost more than the cache saves.
    slice_numbers: ClassVar[int] = 1 << 19
    #: The family's own arguments with their defaults, a number or the name of the argument to follow; each
    #: becomes an attribute and must be at least 1.
    sizes: ClassVar[dict[str, int | str]] = {}
    #: Parameters that weight decay should leave alone.
    no_weight_decay_names: tuple[str, ...] = ()
    #: How a layer of the default sizes can hold the kernels of any static convolution (:meth:`warm_start_`).
    holds_static: ClassVar[Literal["exactly", "nearly"] | None] = None
    #: What :meth:`settle_` decides: two layers that differ in it can cost different times.
    settled_names: ClassVar[tuple[str, ...]] = ("slices",)
    __constants__: tuple[str, ...] = ("sample_factor",)

    #: M, the length of the axis that the two factors share.
    terms: int
    bias: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **sizes: int,
    ):
        super().__init__()
        if unknown := [name for name in sizes if name not in self.sizes]:
            known = ", ".join(self.sizes) or "none"
            raise ZooError(f"{type(self).__name__} has no argument {unknown[0]!r}; its own are {known}.")
        sizes = self._complete(sizes)
        for name, value in {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "groups": groups,
            **sizes,
        }.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise ZooError(f"{name} must be a whole number, not {value!r}.")
            if value < 1:
                raise ZooError(f"{name} must be at least 1, not {value}.")
        if in_channels % groups or out_channels % groups:
            raise ZooError(
                f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}."
            )
        if padding_mode != "zeros":
            raise ZooError(
                f"padding_mode={padding_mode!r} is not supported; use 'zeros' or pad before the layer."
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = as_pair("kernel_size", kernel_size, minimum=1)
        self.stride = as_pair("stride", stride, minimum=1)
        self.dilation = as_pair("dilation", dilation, minimum=1)
        self.padding = padding if isinstance(padding, str) else as_pair("padding", padding, minimum=0)
        self.groups = groups
        #: Whether each channel is convolved alone, with one kernel: a factor may as well scale the channel.
        self.one_to_one = groups == in_channels == out_channels
        self.padding_mode = padding_mode
        # left, right, top, bottom: the order of F.pad
        self._pad = padding_of(padding, self.kernel_size, self.stride, self.dilation)
        if bias:
            self.bias = nn.Parameter(torch.zeros(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        for name, value in sizes.items():
            setattr(self, name, value)
        self.make_parameters(in_channels // groups, {"device": device, "dtype": dtype})
        self.slices = 1
        self.lowering = self.auto_lowering()
        self.shared_images = 1
        self.reset_parameters()

    @torch.jit.unused
    def make_parameters(self, per_group: int, like: dict[str, Any]) -> None:
        """Register the family's parameters and set ``terms``.

        Args:
            per_group: I/G, the input channels a kernel sees.
            like: device and dtype, to pass on.
        """
        raise NotImplementedError

    @torch.jit.unused
    def lr_scales(self) -> dict[str, float]:
        """Return how many times a recipe's learning rate parameters learn at, by name, where it is not 1."""
        return {}

    @torch.jit.unused
    def reset_parameters(self) -> None:
        """Initialise the bias and the linear layers as torch does; a family adds the rest."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        for child in self.children():
            if isinstance(child, nn.Linear):
                child.reset_parameters()

    def context(self, x: Tensor) -> Tensor:
        """Summarise x (N, I, H, W) as its global average (N, I)."""
        return x.mean(dim=(2, 3))

    def factors(
        self, context: Tensor, first: int = 0, last: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Compute ``mixing`` (N or 1, O, M, I/G) and ``basis`` (N or 1, M, kh*kw).

        A leading 1 means that the factor does not depend on the sample; a basis of ``None`` means the
        identity (M = kh*kw). Their product is the kernels, but for what :meth:`kernel_apart` sets apart.

        Args:
            context: (N, I).
            first, last: a slice of the output channels, to make the mixing for these alone.
        """
        raise NotImplementedError

    def kernel_apart(self) -> Tensor | None:
        """Return a static kernel (kh*kw) that all pairs of channels have besides the product of the factors.

        A family may set one apart when it settles, to have one term less; otherwise there is none.
        """
        return None

    def add_apart(self, y: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
        """Add what the kernel set apart, if any, makes of x (N, I, H, W) to y (N, O, height, width)."""
        kernel = self.kernel_apart()
        return y if kernel is None else y + lowerings.one_kernel(x, kernel, self.out_channels, geometry)

    def kernels(self, context: Tensor) -> Tensor:
        """Compute the kernels (N, O, I/G, kh, kw) for context (N, I), laid out as ``nn.Conv2d.weight``."""
        mixing, basis = self.factors(context)
        composed, apart = lowerings.compose(mixing, basis), self.kernel_apart()
        if apart is not None:
            composed = composed + apart.unsqueeze(1)
        kernels = lowerings.to_conv_weight(composed, self.kernel_size)
        return kernels.expand(context.shape[0], -1, -1, -1, -1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve every sample of x (N, I, H, W) with its own kernels."""
        torch._assert(
            x.dim() == 4, "a dynamic convolution takes (N, C, H, W); add a batch axis to a single image"
        )
        torch._assert(x.shape[1] == self.in_channels, "the input's channels are not the layer's in_channels")
        context = self.context(x)
        shared = self.training and self.shared_images > 1
        if self.lowering == "single" and not shared:
            torch._assert(
                x.shape[0] == 1, "lowering 'single' takes batch 1; use 'contract' or 'unfold' for more"
            )
        left, right, top, bottom = self._pad
        torch._assert(
            x.shape[2] + top + bottom > self.dilation[0] * (self.kernel_size[0] - 1),
            "the kernel is taller than the input",
        )
        torch._assert(
            x.shape[3] + left + right > self.dilation[1] * (self.kernel_size[1] - 1),
            "the kernel is wider than the input",
        )
        geometry = Geometry(
            self.kernel_size,
            self.stride,
            self.dilation,
            self.groups,
            self._pad,
            self.in_channels // self.groups,
        )
        if shared:
            y = self.convolve_shared(x, context, geometry)
        else:
            y = self.convolve(x, context, geometry, self.lowering)
        bias = self.bias
        if bias is not None:
            y = y + bias.view(1, -1, 1, 1)
        return y

    def convolve(self, x: Tensor, context: Tensor, geometry: Geometry, lowering: str) -> Tensor:
        """Convolve x (N, I, H, W) with the kernels of its context (N or 1, I), without the bias."""
        return self.convolve_factors(x, context, geometry, lowering)

    def convolve_shared(self, x: Tensor, context: Tensor, geometry: Geometry) -> Tensor:
        """Convolve every ``shared_images`` samples in a row with the kernels of their mean context."""
        contexts = context.split(self.shared_images)
        outputs: list[Tensor] = []
        for part, samples in enumerate(x.split(self.shared_images)):
            mean = contexts[part].mean(dim=0, keepdim=True)
            outputs.append(self.convolve(samples, mean, geometry, "single"))
        return torch.cat(outputs)

    def convolve_factors(self, x: Tensor, context: Tensor, geometry: Geometry, lowering: str) -> Tensor:
        """Convolve by one of the lowerings that every layer has."""
        slices = self.slices
        torch._assert(slices == 1 or self.groups == 1, "slices would tear the outputs of a group apart")
        mixings: list[Tensor] = []
        basis: Tensor | None = None
        for part in range(slices):
            first, last = part * self.out_channels // slices, (part + 1) * self.out_channels // slices
            mixing, basis = self.factors(context, first, last)
            mixings.append(mixing)
        y = lowerings.convolve(x, mixings, basis, self.terms, self.sample_factor, geometry, lowering)
        return self.add_apart(y, x, geometry)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DynamicConv2d":
        """Move or cast as ``nn.Module`` does, but leave parameters in one piece.

        ``to(memory_format=torch.channels_last)`` takes all parameters of four axes for convolutions' weights.
        """
        super()._apply(fn, recurse)
        for parameter in self._parameters.values():
            if parameter is not None and not parameter.is_contiguous():
                parameter.data = parameter.data.contiguous()
        return self

    @classmethod
    def _complete(cls, given: dict[str, int]) -> dict[str, int]:
        complete: dict[str, int] = {}
        for name, default in cls.sizes.items():
            followed = complete[default] if isinstance(default, str) else default
            complete[name] = given.get(name, followed)
        return complete

    @torch.jit.unused
    def settle_(self, own_softmax: bool = False) -> None:
        """Fix what can be decided once training is over; called on the copy of a model that is exported.

        A large mixing that depends on the sample is then made and used in ``slices`` along O. The outputs of
        a group stay together: there are few of them where there are many groups.

        Args:
            own_softmax: see :func:`zoo.layers.settle`.
        """
        if self.groups == 1 and self.sample_factor in ("mixing", "both"):
            slices = self.out_channels * self.terms * self.in_channels // self.slice_numbers
            self.slices = max(1, min(slices, self.out_channels))

    @torch.jit.unused
    def anneal(self, progress: float) -> None:
        """Follow the training: ``progress`` goes from 0 to 1 over its first part. Most families ignore it."""

    @torch.jit.unused
    def constrain_(self) -> None:
        """Bring the parameters back to where the family wants them. Most families want nothing."""

    @torch.jit.unused
    def auto_lowering(self) -> str:
        """Return the lowering likely to be the cheapest of those that work at every batch size."""
        rows, columns = self.kernel_size
        if self.terms < rows * columns and self.in_channels > self.groups:
            return "contract"
        # Where channels are many the maps are small, and the rows of the padding a large part of them.
        return "rows" if rows > 1 and self.stride == (1, 1) and self.in_channels < 512 else "unfold"

    @torch.jit.unused
    def training_lowering(self) -> str:
        """Return the lowering likely to be the cheapest in training, where a batch is of one size.

        For a depthwise convolution that is ``grouped``: its kernels are few numbers, and one convolution with
        them keeps less for the backward pass than one for each term. On CPUs it is also faster, clearly so
        with images as NCHW in memory, where the batch joins the channels without a copy.
        """
        depthwise = self.groups == self.in_channels and self.sample_factor != "none"
        return "grouped" if depthwise else self.auto_lowering()

    @torch.jit.unused
    @torch.no_grad()
    def warm_start_(self, weight: Tensor, bias: Tensor | None = None) -> float | None:
        """Make the layer compute the static convolution ``weight`` (O, I/G, kh, kw), ``bias`` (O).

        Returns:
            The relative error (Frobenius) of the kernels it starts with; 0 where the family can hold any
            static kernel. None where it has no parameters that could hold one, and takes the bias alone.
        """
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)
        return None

    @torch.jit.unused
    def scale_to_he_(self, parameter: Tensor) -> None:
        """Scale a parameter the kernels are linear in so that they have He et al.'s variance, 2 / fan_in.

        Every family initialises through this, so activations keep their scale whatever makes the kernels
        (Delving Deep into Rectifiers, https://arxiv.org/abs/1502.01852).
        """
        with torch.no_grad():
            neutral = torch.zeros(1, self.in_channels, device=parameter.device, dtype=parameter.dtype)
            kernels = self.kernels(neutral)
            wanted = 2.0 / kernels[0, 0].numel()
            parameter.mul_((wanted / kernels.square().mean()).sqrt())

    @torch.jit.unused
    def balance_mean_(self, parameter: Tensor, dim: int) -> None:
        """Scale the mean over the kernel's positions to its fair share, 1 / (kh*kw) of the kernels' energy.

        A static convolution gets that share by the law of large numbers. A family that makes all its kernels
        of a few basis kernels does not, and after a ReLU the mean is where most of the signal is.
        ``parameter`` is one the kernels are linear in, with the kernel's positions along ``dim``.
        """
        with torch.no_grad():
            neutral = torch.zeros(1, self.in_channels, device=parameter.device, dtype=parameter.dtype)
            kernels = self.kernels(neutral).flatten(3)
            positions = kernels.shape[3]
            if positions == 1:
                return
            mean = kernels.mean(dim=3, keepdim=True)
            share = (kernels - mean).square().sum() / (positions - 1)
            average = parameter.mean(dim=dim, keepdim=True)
            parameter.add_(average * ((share / (positions * mean.square().sum())).sqrt() - 1))

    @torch.jit.unused
    def extra_repr(self) -> str:
        """Show the convolution as ``nn.Conv2d`` does, then the lowering."""
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        for name, default in {"padding": (0, 0), "dilation": (1, 1), "groups": 1}.items():
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)!r}"
        if self.bias is None:
            text += ", bias=False"
        return f"{text}, terms={self.terms}, lowering={self.lowering!r}"
