"""The public model: a GGUF file opened for generation. It joins engine, tokenizer and template."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from ggq import machine_code, models
from ggq.arguments import check_settings, checked
from ggq.errors import ModelError, UsageError, option, printable
from ggq.gguf import GGUFFile, open_gguf, validate_model
from ggq.gguf.units import bytes_of
from ggq.models.hparams import HParams, check_generates
from ggq.models.unknown import unknown_warnings
from ggq.once import once
from ggq.paths import user_cache_dir
from ggq.runtime.answers import Answers
from ggq.runtime.cache.kinds import kinds_of
from ggq.runtime.cache.kvcache import KVCache
from ggq.runtime.engine.adapters import Adapter, open_adapters
from ggq.runtime.engine.devices import CPU, Device, resolve
from ggq.runtime.engine.engine import Engine
from ggq.runtime.engine.projectors import beside, open_gallery
from ggq.runtime.generation.drafting import drafters
from ggq.runtime.generation.drafting.base import Drafter
from ggq.runtime.generation.drafting.model import DraftModel
from ggq.runtime.generation.drafting.mtp import HeadDrafter
from ggq.runtime.generation.drafting.speculation import DRAFT_TOKENS, Speculation
from ggq.runtime.session import Session
from ggq.runtime.texts import Texts

if TYPE_CHECKING:  # imported where they are used: whoever embeds or evaluates needs none
    from typing_extensions import Unpack

    from ggq.runtime.cache.disk import DiskCache
    from ggq.runtime.pictures.gallery import Gallery
    from ggq.runtime.tokenizers.base import Tokenizer
else:
    Unpack = list  # Python 3.10 has none, and nothing looks at it when the program runs

__all__ = ["Model", "Session", "Settings", "load"]

_DEFAULT_CONTEXT = 4096
_DRAFT_LIMIT = 64  # guesses of a step: what windowed layers can go back


class Model(Answers, Texts):
    """A model in memory: mapped weights, tokenizer, cache. Any thread may use it."""

    def __init__(
        self,
        gguf: GGUFFile,
        *,
        n_ctx: int | None = None,
        threads: int | None = None,
        cache_type: str | tuple[str, str] = "f16",
        device: Device = CPU,
        vocab_only: bool = False,
        lora: Sequence[str | os.PathLike[str]] = (),
    ):
        self.gallery: Gallery | None = None  # what looks at pictures
        self.gguf, self.making = gguf, threading.RLock()
        self.speculation: Speculation | None = None  # what guesses how answers go on
        self.draft_model: Model | None = None
        self.projector: Path | None = None
        self.disk_bytes = 0  # what states of prompts may take on disk
        self.warnings = validate_model(gguf, vocab_only=vocab_only)
        self.vocab_only = vocab_only
        self.adapters: list[Adapter] = []
        self._cache_type, self._threads, self._device = cache_type, threads, device
        self._architecture = models.get(str(gguf.metadata["general.architecture"]))
        if not vocab_only:
            self.hparams: HParams = self._architecture.hparams(gguf)
            self._architecture.check(gguf, self.hparams)
            self.warnings += unknown_warnings(gguf, self._architecture, self.hparams, "not used")
            self.n_ctx = _context(n_ctx, self.hparams)
            self.hparams = self.hparams.for_context(self.n_ctx)
            if device.name == "cpu":  # the pages come from the system when they are written
                KVCache(self.hparams.memories, self.n_ctx, kinds_of(cache_type)).check_fits()
            self.adapters = open_adapters(lora, self._architecture, gguf, self.hparams)

    def __repr__(self) -> str:
        name, kind = printable(self.gguf.path), self.gguf.metadata["general.architecture"]
        if self.vocab_only:
            return f"<ggq.Model {name}: {printable(kind)}, vocabulary only>"
        hp = self.hparams
        size = f"{hp.n_layer} layers, context {self.n_ctx} of {hp.n_ctx_train}"
        return f"<ggq.Model {name}: {printable(kind)}, {size}, {self.device}>"

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads and close the files; the mapping goes with the last reference."""
        if self.speculation is not None:
            self.speculation.close()
        disk = self.__dict__.get("disk")
        if disk is not None:
            disk.close()
        if "engine" in self.__dict__:
            self.engine.close()
        if self.gallery is not None:
            self.gallery.close()
        for adapter in self.adapters:
            adapter.file.close()
        self.gguf.close()

    @property
    def device(self) -> str:
        """Return the name of the device: cpu, mps, cuda or cuda:N."""
        return self._device.name

    @once
    def engine(self) -> Engine:
        """The engine of the model's device; compiled and allocated on first use."""
        from ggq.progress import show_compiling

        self._needs_weights()
        machine_code.set_default_listener(show_compiling)
        backend = self._device.backend(
            self._architecture,
            self.hparams,
            self.gguf,
            n_ctx=self.n_ctx,
            cache_type=self._cache_type,
            threads=self._threads,
            adapters=self.adapters,
        )
        mix = tuple(one.scale for one in self.adapters)
        engine = Engine(self.hparams, backend, mix, self.gallery)
        if self.speculation is not None and isinstance(self.speculation.drafter, HeadDrafter):
            from ggq.runtime.engine.heads import Heads

            self.speculation.drafter.head = Heads(engine, self._architecture, self.gguf)
        return engine

    @once
    def disk(self) -> DiskCache | None:
        """What prompts left on disk, None where nothing is kept there."""
        if not self.disk_bytes:
            return None
        from ggq.runtime.cache.disk import DiskCache
        from ggq.runtime.cache.folder import StateFolder
        from ggq.runtime.cache.identity import identity_of

        cache = self.engine.cache
        folder = StateFolder(user_cache_dir() / "states", self.disk_bytes)
        changes = [adapter.file for adapter in self.adapters]
        return DiskCache(folder, identity_of(self.gguf, self.hparams, cache, changes), cache)

    def see_with(self, path: str | os.PathLike[str]) -> None:
        """Take pictures, which a projector file looks at; GGQError where it is not this model's."""
        check_generates(self.hparams)
        self.gallery = open_gallery(path, self.hparams, self._threads)
        self.gallery.n_ctx = self.n_ctx
        self.hparams = replace(self.hparams, pictures=True)
        self.projector = Path(path)

    def draft_with(self, drafter: Drafter, most: int = DRAFT_TOKENS) -> None:
        """Let a drafter guess how answers go on, at most so many tokens at a time."""
        recurrent = any(sum(memory.states) for memory in self.hparams.memories)
        self.speculation = Speculation(drafter, most, recurrent)

    def draft_by_name(self, name: str, most: int = DRAFT_TOKENS) -> None:
        """Let the drafter ``name`` guess: auto is mtp where the file has heads, else ngram."""
        if name == "auto":
            name = "mtp" if self.hparams.heads else "ngram"
        if name == "mtp" and not self.hparams.heads:
            where = f"{option('--draft')} mtp: {printable(self.gguf.path)}"
            raise UsageError(f"{where} has no heads that predict further tokens: take ngram")
        self.draft_with(HeadDrafter() if name == "mtp" else drafters()[name](), most)

    def draft_with_model(self, gguf: GGUFFile, most: int = DRAFT_TOKENS) -> None:
        """Let the model of another open file guess; UsageError where it cannot."""
        small = Model(gguf, n_ctx=self.n_ctx, threads=self._threads)
        check_generates(small.hparams)
        where = f"{printable(gguf.path)} cannot draft for {printable(self.gguf.path)}"
        mine, its = (f.metadata.get("tokenizer.ggml.tokens", ()) for f in (self.gguf, gguf))
        if list(mine[: len(its)]) != list(its[: len(mine)]):
            raise UsageError(f"{where}: it has other tokens")
        if any(sum(memory.states) for memory in small.hparams.memories):
            raise UsageError(f"{where}: its recurrent layers cannot take guesses back")
        n_vocab = min(small.hparams.n_vocab, self.hparams.n_vocab)
        self.draft_model = small
        self.draft_with(DraftModel(small.session, small.close, n_vocab, small.n_ctx), most)

    def _needs_weights(self) -> None:
        if self.vocab_only:
            raise UsageError("the model was opened with vocab_only")

    @once
    def tokenizer(self) -> Tokenizer:
        """The tokenizer built from the file's metadata."""
        from ggq.runtime.tokenizers import tokenizer_from_gguf

        return tokenizer_from_gguf(self.gguf)

    @checked
    def tokenize(
        self, text: str, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Return the token ids of a text."""
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    @checked
    def detokenize(self, ids: Iterable[int]) -> str:
        """Return the text of token ids."""
        return self.tokenizer.decode(list(ids))

    def session(self) -> Session:
        """Return a new, empty sequence; UsageError for an encoder, which writes no text."""
        self._needs_weights()
        check_generates(self.hparams)
        return Session(self)

    @checked
    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Return the logits after each token of a fresh sequence, float32 (len(ids), n_vocab)."""
        with self.engine.places.of(len(ids)):
            sequence = self.engine.sequence()
            try:
                return self.engine.evaluate(sequence, ids, every=True)
            finally:
                sequence.free()


def _context(asked: int | None, hp: HParams) -> int:
    """Return the context length: what was asked for, else the trained one up to 4096."""
    if asked is None or asked == 0:
        return min(hp.n_ctx_train, _DEFAULT_CONTEXT) if asked is None else hp.n_ctx_train
    if asked < 1:
        raise UsageError(f"a context of {asked} tokens is not possible")
    bounded = hp.first_position is not None or not hp.causal  # these know no more positions
    return min(asked, hp.n_ctx_train) if bounded else asked


def _file(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return a file for a model's name, fetched where it is not here; a path as it is."""
    if os.path.isdir(path):
        from ggq.made import made_from

        return made_from(Path(path))
    if not isinstance(path, str) or os.path.exists(path):
        return path
    from ggq import hub

    if not hub.is_name(path):
        return path  # whoever opens it says what is wrong
    from ggq.progress import progress_when_told

    with progress_when_told(quiet=False) as progress:
        return hub.obtain(path, progress=progress)


class Settings(TypedDict, total=False):
    """How `load` is to go about answers, beyond what concerns the model itself."""

    draft: str | os.PathLike[str] | None  # ngram, mtp, off, or the GGUF file of a smaller model
    draft_max: int  # most guesses of a step
    mmproj: str | os.PathLike[str] | None  # the projector of a model that sees, or off
    lora: Sequence[str | os.PathLike[str]]  # GGUF adapters: FILE or FILE=SCALE
    cache_disk: int | str | None  # bytes, or text such as "4G": room on disk for prompts' states


@checked
def load(
    path: str | os.PathLike[str] | GGUFFile,
    *,
    n_ctx: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    device_weights: str = "auto",
    cache_type: str | tuple[str, str] = "f16",
    vocab_only: bool = False,
    **settings: Unpack[Settings],
) -> Model:
    """Open a GGUF file for generation; the weights are mapped, nothing is copied.

    ``path`` may be a model's name, such as ``org/repo:Q4_K_M`` or a short one of ``ggq list
    --available``: what is not on this machine is fetched, unless HF_HUB_OFFLINE=1 forbids it. An
    open file may be given, such as ``open_gguf(path, use_mmap=False)``, which is in memory.

    ``n_ctx``: positions of the cache (default: the trained length up to 4096; 0: all of it).
    ``cache_type``: f16, f32, q8_0 or q4_0, or a pair: of keys and of values. ``device``: cpu, mps,
    cuda, or auto: a Mac's GPU where torch is installed, else cpu. ``device_weights``: packed, f16,
    or auto: f16 where there is memory for it. ``draft``: what guesses how an answer goes on, so
    that one step checks several tokens: ngram (from the text itself; the default on a CPU), mtp
    (heads of the file's own; the default where it has some), off, or the file or name of a smaller
    model with the same tokens; ``draft_max``: most guesses of a step.
    ``lora``: GGUF adapters to apply, each FILE or FILE=SCALE (on a CPU).
    ``mmproj``: the projector file of a model that takes pictures; unless told, the one beside the
    model that fits it; "off" for none (on a CPU).
    ``cache_disk``: room for the states after prompts in the user's cache folder, so that none is
    evaluated twice, restarts or not (default: none; "4G").
    Raises GGQError where the file or an option is at fault.
    """
    place, chosen = resolve(device, device_weights), check_settings(settings, Settings)
    kinds_of(cache_type)
    most = chosen.get("draft_max", DRAFT_TOKENS)
    draft = _drafting(chosen.get("draft"), most, place)
    disk_bytes = _disk_bytes(chosen.get("cache_disk"), place)
    lora = chosen.get("lora", ())
    if lora and (place.name != "cpu" or vocab_only):
        where = "without the weights" if vocab_only else f"on {place.name}"
        how = "merged into a model they run anywhere (ggq convert --merge-lora)"
        raise UsageError(f"{option('--lora')}: not {where}; {how}")
    if threads is not None and not 1 <= threads <= 1024:
        raise UsageError(f"threads must be in 1..1024, not {threads}")
    with ExitStack() as opened:
        gguf = path if isinstance(path, GGUFFile) else opened.enter_context(open_gguf(_file(path)))
        try:
            model = Model(
                gguf,
                n_ctx=n_ctx,
                threads=threads,
                cache_type=cache_type,
                device=place,
                vocab_only=vocab_only,
                lora=lora,
            )
            if isinstance(draft, Path) and not vocab_only:
                model.draft_with_model(opened.enter_context(open_gguf(draft)), most)
            elif draft != "off" and not vocab_only:
                model.draft_by_name(str(draft), most)
            projector = _projector(chosen.get("mmproj"), model)
            if projector is not None:
                model.see_with(projector)
        except KeyError as error:  # an architecture asks for what validation let pass
            raise ModelError(f"the file has no {error.args[0]}") from None
        model.disk_bytes = disk_bytes
        opened.pop_all()  # they are the model's now
    return model


def _projector(given: str | os.PathLike[str] | None, model: Model) -> Path | None:
    """Return the projector file to see with: the one given, or the one beside the model."""
    if given is not None and os.fspath(given) == "off":
        return None
    flag = option("--mmproj")
    if given is None:
        path = getattr(model.gguf, "path", None)
        if model.vocab_only or model.device != "cpu" or not model.hparams.causal or not path:
            return None
        return beside(path, model.hparams.n_embd, model.hparams.arch)
    if model.vocab_only or model.device != "cpu":
        where = "without the weights" if model.vocab_only else f"on {model.device}"
        raise UsageError(f"{flag}: not {where}; pictures are looked at on a CPU")
    return Path(_file(given))


def _disk_bytes(size: int | str | None, place: Device) -> int:
    """Return the room on disk in bytes, 0 for none; UsageError where it cannot be."""
    if size is None:
        return 0
    flag = option("--cache-disk")
    if place.name != "cpu":
        raise UsageError(f"{flag}: on cpu only, not on {place.name}")
    try:
        return bytes_of(size)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}") from None


def _drafting(draft: str | os.PathLike[str] | None, most: int, place: Device) -> str | Path:
    """Return what drafts: a name, or the file of a model; UsageError where it cannot be."""
    if not 1 <= most <= _DRAFT_LIMIT:
        raise UsageError(f"{option('--draft-max')}: 1 to {_DRAFT_LIMIT}, not {most}")
    if draft is None:
        return "auto" if place.name == "cpu" else "off"
    name, flag = os.fspath(draft), option("--draft")
    if name == "off":
        return name
    if place.name != "cpu":
        raise UsageError(f"{flag}: on cpu only; on {place.name} a larger step changes the sums")
    if name in (*drafters(), "mtp"):
        return name
    name = os.fspath(_file(name))
    if not Path(name).is_file():
        known = ", ".join(["off", *drafters(), "mtp"])
        raise UsageError(f"{flag} {printable(name)}: neither {known} nor a model")
    return Path(name)
