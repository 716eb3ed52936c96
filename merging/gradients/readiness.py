"""A model made ready for estimation, and given back as it was."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from merging.errors import FisherError


def original(model: nn.Module) -> nn.Module:
    """The module that `torch.compile` wrapped, whose parameters have the checkpoint's names; else the model itself."""
    return getattr(model, "_orig_mod", model)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, nothing compiled, no caches of past tokens, and no parameter that requires a gradient.

    Raises: FisherError if a batch normalisation uses the statistics of the batch all the same.
    """
    modules = list(model.modules())
    with ExitStack() as restoring:
        for module in modules:
            restoring.callback(setattr, module, "training", module.training)
            if module.__dict__.get("_compiled_call_impl") is not None:
                restoring.callback(setattr, module, "_compiled_call_impl", module._compiled_call_impl)
                module._compiled_call_impl = None
        for parameter in model.parameters():
            restoring.callback(parameter.requires_grad_, parameter.requires_grad)
        config = getattr(model, "config", None)
        if getattr(config, "use_cache", False):
            restoring.callback(setattr, config, "use_cache", config.use_cache)
            config.use_cache = False
        model.eval()
        _check_normalisation(modules, model)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield


def _check_normalisation(modules: list[nn.Module], model: nn.Module) -> None:
    names = {module: name for name, module in model.named_modules()}
    for module in modules:
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            why = "stays in training mode" if module.training else "keeps no running statistics"
            raise FisherError(
                f'The Fisher cannot be estimated: expected fixed statistics in every batch normalisation, got "{names[module]}", '
                f"which {why} and so mixes the examples of a batch. Let eval() reach it and track running statistics."
            )
