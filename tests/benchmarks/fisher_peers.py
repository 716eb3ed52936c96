"""The ways to squared gradients that tests/benchmarks/fisher.py compares, each by its own documented way.

A peer, for `contextlib.contextmanager`, yields a function of inputs and targets that returns sums of squared gradients over
the examples by parameter name: running sums, or this batch's. `labels` is `empirical` (the targets) or `exact` (all labels by
the model's own p), for this engine also `rademacher`. With it stands the number of classes where it is not the one asked for.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Add = Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]
Peer = Callable[[nn.Module, str], Iterator[Add]]


def engine(model: nn.Module, labels: str) -> Iterator[Add]:
    """This project's own."""
    from merging.gradients import SquaredGradients

    with SquaredGradients(model, labels=labels, seed=0) as squares:

        def add(inputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
            squares.add(inputs | {"labels": targets} if labels == "empirical" else inputs)
            fallbacks = [f"{len(squares.fallbacks)} tensors by fallback"] if squares.fallbacks else []
            add.remark = ", ".join(fallbacks + ["estimate"] * (labels == "rademacher"))
            return squares.sums

        yield add


def loop(model: nn.Module, labels: str) -> Iterator[Add]:
    """One example at a time by autograd: one forward, one backward per label."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    sums = [torch.zeros_like(parameter) for parameter in parameters]

    def add(inputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        for index in range(len(targets)):
            logits = model(**{name: value[index : index + 1] for name, value in inputs.items()}).logits
            for label in _kinds(model, labels):
                loss = _loss(logits, targets[index : index + 1], label)
                for total, gradient in zip(sums, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True):
                    total.addcmul_(gradient, gradient)
        return dict(zip(names, sums, strict=True))

    yield add


def vmap(model: nn.Module, labels: str) -> Iterator[Add]:
    """`torch.func`: vmap(grad) over the whole batch, once per label."""
    values = {name: parameter.detach() for name, parameter in model.named_parameters()}
    sums = {name: torch.zeros_like(value) for name, value in values.items()}

    def loss(values: dict[str, Tensor], inputs: dict[str, Tensor], target: Tensor, label: int | None) -> Tensor:
        example = {name: value[None] for name, value in inputs.items()}
        return _loss(torch.func.functional_call(model, values, (), example).logits, target[None], label)

    def add(inputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        for label in _kinds(model, labels):
            per_example = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, None))
            for name, gradient in per_example(values, _with_square_mask(model, inputs), targets, label).items():
                # Not in place: gradients of two parameters that are added may be one tensor.
                sums[name] += gradient.square().sum(0)
        return sums

    yield add


def opacus(model: nn.Module, labels: str) -> Iterator[Add]:
    """`GradSampleModule`, one forward and backward per label: its backward uses up what its forward kept."""
    from opacus import GradSampleModule

    module = GradSampleModule(model.train(), loss_reduction="sum")
    sums = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}

    def add(inputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        for label in _kinds(model, labels):
            _loss(module(**inputs).logits, targets, label).backward()
            for name, parameter in model.named_parameters():
                sums[name] += parameter.grad_sample.square_().sum(0)
            module.zero_grad()
        return sums

    yield add


def backpack(model: nn.Module, labels: str) -> Iterator[Add]:
    """`SumGradSquared` on the extended model, one forward and backward per label."""
    import backpack as library
    from backpack.extensions import SumGradSquared

    library.extend(model)
    sums: dict[str, Tensor] = {}

    def add(inputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        for label in _kinds(model, labels):
            with library.backpack(SumGradSquared()):
                _loss(model(**inputs).logits, targets, label).backward()
            for name, parameter in model.named_parameters():
                if hasattr(parameter, "sum_grad_squared"):
                    sums[name] = sums.get(name, 0) + parameter.sum_grad_squared
        return sums

    yield add


def nngeometry(model: nn.Module, labels: str) -> Iterator[Add]:
    """`FIM` as `PMatDiag`, which is a mean over examples."""
    from nngeometry.layercollection import LayerCollection
    from nngeometry.metrics import FIM
    from nngeometry.object import PMatDiag

    layers, wrapped, parameters = LayerCollection.from_model(model), _Logits(model), dict(model.named_parameters())
    names = [name for layer in layers.layers for name in (f"{layer}.weight", f"{layer}.bias") if name in parameters]

    def add(inputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        loader = DataLoader(TensorDataset(*inputs.values()), batch_size=len(targets))
        settings = dict(device=model.device.type, layer_collection=layers)
        settings["function"] = lambda *values: wrapped(dict(zip(inputs, values, strict=True)))
        mean = FIM(model, loader, PMatDiag, **settings)
        return _unflatten(mean.get_diag() * len(targets), {name: parameters[name] for name in names})

    yield add


def curvlinops(model: nn.Module, labels: str) -> Iterator[Add]:
    """An estimate: 3.0.1 has no diagonal of the GGN, but Hutchinson's with one Rademacher vector over all parameters."""
    from curvlinops import GGNLinearOperator, hutchinson_diag

    parameters, loss = dict(model.named_parameters()), nn.CrossEntropyLoss(reduction="sum")

    def add(inputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        data = [(_with_square_mask(model, inputs), targets)]
        settings = dict(check_deterministic=False, batch_size_fn=lambda batch: len(batch[next(iter(inputs))]))
        operator = GGNLinearOperator(_Logits(model), loss, list(parameters.values()), data, **settings)
        # Fused attention has no forward-mode derivative.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return _unflatten(hutchinson_diag(operator, num_matvecs=1), parameters)

    add.remark = "estimate"
    yield add


def laplace(model: nn.Module, labels: str) -> Iterator[Add]:
    """The diagonal of laplace-torch's curvlinops backend."""
    from laplace.curvature import CurvlinopsEF, CurvlinopsGGN

    backend = (CurvlinopsGGN if labels == "exact" else CurvlinopsEF)(_Logits(model), "classification")

    def add(inputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        _, diagonal = backend.diag(inputs.get("pixel_values", _with_square_mask(model, inputs)), targets)
        return _unflatten(diagonal, dict(model.named_parameters()))

    yield add


def asdl(model: nn.Module, labels: str) -> Iterator[Add]:
    """ASDL, on PyPI as asdfghjkl: Fishers kept in the modules."""
    from asdl import FISHER_EMP, FISHER_EXACT, LOSS_CROSS_ENTROPY, SHAPE_DIAG, FisherConfig, get_fisher_maker

    wrapped, kind = _Logits(model), FISHER_EXACT if labels == "exact" else FISHER_EMP
    maker = get_fisher_maker(wrapped, FisherConfig(kind, [SHAPE_DIAG], LOSS_CROSS_ENTROPY, data_size=1))

    def add(inputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        logits = maker.setup_model_call(wrapped, inputs)
        if labels == "empirical":
            maker.setup_loss_call(F.cross_entropy, logits, targets, reduction="sum")
        maker.forward_and_backward()
        found = [(name, module.fisher.diag) for name, module in model.named_modules() if hasattr(module, "fisher")]
        parts = [(f"{name}.{part}", getattr(diag, part)) for name, diag in found for part in ("weight", "bias")]
        return {name: value for name, value in parts if value is not None}

    yield add


def fusion_bench(model: nn.Module, labels: str) -> Iterator[Add]:
    """FusionBench's class for GPT-2, asked for any model's logits through the method that it leaves to override."""
    import lightning
    from fusion_bench.method.fisher_merging.gpt2_fisher_merging import FisherMergingAlgorithmForGPT2

    class Algorithm(FisherMergingAlgorithmForGPT2):
        def compute_logits(self, module: nn.Module, batch: dict[str, Tensor], task: str) -> Tensor:
            return module(**{name: value for name, value in batch.items() if value.dim() > 1}).logits

    def add(inputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        settings = dict(exclude_param_names_regex=[], normalize_fisher_weight=True, minimal_fisher_weight=0.0)
        count = len(targets)
        algorithm = Algorithm(cache_dir="", batch_size=count, num_workers=0, num_fisher_examples=count, **settings)
        algorithm._fabric_instance = lightning.Fabric(accelerator=model.device.type, devices=1)
        # It counts the rows of input_ids, which a vision model does not have.
        columns = {"input_ids": torch.zeros(count)} | {name: value.cpu() for name, value in inputs.items()}
        rows = [{name: value[index] for name, value in columns.items()} for index in range(count)]
        means = algorithm.get_fisher_weights("", model, rows, list(model.state_dict()))
        return {name: value * count for name, value in means.items()}

    yield add


class _Logits(nn.Module):
    """A model from a mapping, or pixels, to logits, as laplace-torch's own example for Hugging Face has it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor] | Tensor) -> Tensor:
        return (self.model(inputs) if isinstance(inputs, Tensor) else self.model(**inputs)).logits


def _loss(logits: Tensor, targets: Tensor, label: int | None) -> Tensor:
    """−log p(targets), or √p(label)·log p(label), summed over examples: its squares add up to the expectation."""
    if label is None:
        return F.cross_entropy(logits, targets, reduction="sum")
    logs = logits.log_softmax(1)[:, label]
    return (logs.detach().exp().sqrt() * logs).sum()


def _kinds(model: nn.Module, labels: str) -> list[int | None]:
    return list(range(model.config.num_labels)) if labels == "exact" else [None]


def _with_square_mask(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Functional transforms cannot follow transformers where it builds the (N, 1, T, T) mask: it is given ready-made."""
    if "attention_mask" not in inputs:
        return inputs
    rows, tokens = inputs["attention_mask"].shape
    mask = inputs["attention_mask"].bool()[:, None, None].expand(rows, 1, tokens, tokens)
    return inputs | {"attention_mask": mask.tril() if model.config.model_type == "gpt2" else mask}


def _unflatten(flat: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    pieces = flat.split([value.numel() for value in like.values()])
    return {name: piece.view_as(value) for piece, (name, value) in zip(pieces, like.items(), strict=True)}


PEERS = {
    "this engine": (engine, ("empirical", None), ("exact", 2), ("exact", None), ("rademacher", None)),
    "per-example loop": (loop, ("empirical", None), ("exact", None)),
    "vmap(grad)": (vmap, ("empirical", None), ("exact", None)),
    "Opacus": (opacus, ("empirical", None), ("exact", None)),
    "BackPACK": (backpack, ("empirical", None), ("exact", None)),
    "nngeometry": (nngeometry, ("exact", None)),
    "curvlinops, Hutchinson": (curvlinops, ("exact", None)),
    "laplace-torch, curvlinops": (laplace, ("empirical", None), ("exact", None)),
    "ASDL": (asdl, ("empirical", None), ("exact", None)),
    "FusionBench": (fusion_bench, ("exact", None)),
}
