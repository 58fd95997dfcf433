"""A Hugging Face folder opened lazily: config, shards, tensors by name.

It checks every name and size before use and never runs code from the folder; what the tensors mean
is the architecture's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ggq.converters import formats
from ggq.converters.checkpoint import mistral, modules, refusals
from ggq.converters.checkpoint.prefixes import unwrapped
from ggq.converters.checkpoint.weights import Weights
from ggq.converters.formats.base import TensorLike
from ggq.errors import GIT_LFS, FormatError, ModelError, pointer_error, printable, reason
from ggq.models.pooled import DENSE

__all__ = ["Checkpoint", "read_config", "read_json"]

# Numbers of xIELU, which files hold as keys.
STORED_SETTING = re.compile(
    r"(?:model\.|language_model\.)*layers\.(\d{1,4})\.mlp\.act_fn\.(alpha_p|alpha_n|beta|eps)"
)
MAX_JSON = 100_000_000


def _stored_settings(tensors: dict[str, TensorLike]) -> dict[str, list[float]]:
    """Take settings of layers that are tensors of one number each out of ``tensors``."""
    found: dict[str, dict[int, float]] = {}
    for name, match in [(n, STORED_SETTING.fullmatch(n)) for n in tensors]:
        if match is None:
            continue
        layer, setting = match.groups()
        values = tensors.pop(name).read(slice(0, 1)).ravel()
        if values.size != 1:
            raise FormatError(f"tensor {printable(name)} holds more than a number")
        found.setdefault(f"xielu_{setting}", {})[int(layer)] = float(values[0])
    return {name: [each[i] for i in sorted(each)] for name, each in found.items()}


def read_json(path: Path, required: bool = False) -> dict[str, Any]:
    """Return a JSON object, {} where the file is absent and not required; FormatError."""
    if not path.is_file():
        if required:
            raise FormatError(f"{printable(path)}: no such file")
        return {}
    try:
        if path.stat().st_size > MAX_JSON:
            raise FormatError(f"{printable(path)}: larger than {MAX_JSON} bytes")
        data = path.read_bytes()
        if data.startswith(GIT_LFS):
            raise pointer_error(path)
        value = json.loads(data.decode("utf-8"))
    except OSError as error:
        raise FormatError(f"{printable(path)}: cannot read: {reason(error)}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{printable(path)}: is not JSON: {reason(error)}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{printable(path)}: is not a JSON object")
    return value


def read_config(path: Path) -> dict[str, Any]:
    """Return config.json's settings, or what params.json of Mistral's own form says of them."""
    found = read_json(path, required=True)
    return mistral.config(found) if path.name == mistral.PARAMS else found


class Checkpoint:
    """``folder`` with config.json and weights; ``tensors`` maps HF names to views.

    Quantized weights are one tensor each, decoded as it is read; ``quantization`` names the method.
    Where there is an index, its weight_map says which tensor of which shard is the model's.
    ``absent``: what it lists and no shard holds, and why; ``beside``: what it does not list, of
    files next to the shards, for what would be missing; ``warnings``: what is not used.
    ``accept`` may refuse the config before any weights are opened.
    """

    def __init__(
        self, folder: str | Path, accept: Callable[[dict[str, Any]], object] = lambda config: None
    ) -> None:
        self.folder = Path(folder)
        self._refuse_others()
        has_config = (self.folder / "config.json").is_file()
        self.config = read_config(self.folder / ("config.json" if has_config else mistral.PARAMS))
        accept(self.config)
        self.config |= modules.settings(self.folder, self.config, read_json)
        self._weights = Weights(self.folder, read_json)
        self.tensors, self.absent = self._weights.tensors, self._weights.absent
        self.warnings = modules.lengths(self.folder, self.config, read_json)
        self.warnings += self._weights.warnings + modules.warnings(self.config)
        own = mistral.is_own(self.tensors)
        self.tensors, told = (mistral.renamed if own else unwrapped)(self.tensors)
        self.beside, self.warnings = self._weights.beside, self.warnings + told
        self._open_dense()
        self.config |= _stored_settings(self.tensors)
        found = formats.quantization(self.config, lambda name: read_json(self.folder / name))
        self.quantization = None if found is None else found[0]
        try:
            self.tensors = formats.decoded(self.tensors, found, self._weights.metadata)
        except FormatError:
            self.refuse_absent(lambda name: False)  # a likely reason, and it says more
            raise
        if own:
            self.tensors = mistral.in_halves(self.tensors, self.config)

    def _refuse_others(self) -> None:
        """Refuse folders that are something else: adapters, GGUF files, pipelines."""
        if refusals.is_adapter(self.folder):
            config = read_json(self.folder / refusals.ADAPTER)
            raise ModelError(refusals.adapter(self.folder, config))
        told = (self.folder / name for name in ("config.json", mistral.PARAMS))
        if not any(path.is_file() for path in told):
            raise FormatError(refusals.no_config(self.folder))

    def refuse_absent(self, is_needless: Callable[[str], bool]) -> None:
        """Refuse what the index lists and no shard holds, but for what nobody needs; FormatError.

        What is needless is told in the warnings.
        """
        for name, why in self.absent.items():
            if not is_needless(name):
                raise FormatError(f"tensor {printable(name)}: {why}")
        if self.absent:
            name, why = next(iter(self.absent.items()))
            what = f"{len(self.absent)} tensors that are left out anyway, such as {printable(name)}"
            self.warnings.append(f"{what}: {why}")

    def _open_dense(self) -> None:
        """Take the dense layers of sentence-transformers, numbered from 2 as their folders are."""
        for number, folder in enumerate(modules.dense_folders(self.folder), 2):
            if not (folder / modules.DENSE_FILE).is_file():
                raise FormatError(refusals.no_weights(folder))
            held = self._weights.open(folder / modules.DENSE_FILE).tensors
            for name, tensor in held.items():
                called = f"{DENSE}.{number}.{name}"
                self.tensors[called] = replace(tensor, name=called)

    @property
    def prompts(self) -> dict[str, str]:
        """Return the texts that go before others, by name; sentence-transformers' prompts."""
        return modules.prompts(self.folder, self.config, read_json)

    def close(self) -> None:
        """Unmap the shards."""
        for file in self._weights.files:
            file.close()
        self.tensors = {}
