"""`--provider`: where models run over data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from onnxq.model.cuda import require_cuda
from onnxq.model.provider import refusal_of_cuda_sessions
from onnxq.model.session import Runtime, libraries_in_use
from onnxq.options.shared import Provided, Provider

Chosen = TypeVar("Chosen", bound=Provided)


def with_provider(options: Chosen) -> tuple[Chosen, str]:
    """The options with a provider that is here, and what `auto` became and why; "" for nothing.

    What is recorded is its name, so that a recipe gives the same bytes or is refused.

    Raises:
        ProviderError: CUDA is asked for and is not here. Workers of a cluster look for themselves.
    """
    asked = options.provider
    if asked is Provider.CPU or getattr(options, "dask", None) is not None:
        return options, ""
    if asked is Provider.CUDA:
        require_cuda()
        return options, ""
    refusal = refusal_of_cuda_sessions()
    found = Provider.CUDA if refusal is None else Provider.CPU
    said = "runs on CUDA" if refusal is None else f"runs on the CPU: {refusal}"
    changed: Any = replace(options, provider=found)  # type: ignore[type-var]
    return changed, said


def runtime_of(options: Provided) -> Runtime:
    """Where the sessions of a command run that are opened for its data; raises `ProviderError`."""
    settled, _ = with_provider(options)
    found = settled.provider
    # Nobody knows what the workers of a cluster have.
    found = Provider.CPU if found is Provider.AUTO else found
    return Runtime(found.value, libraries=libraries_in_use())
