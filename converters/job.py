"""One conversion from request to result: recipe, types for a target, passes, file, report.

`ggq.convert` and ``ggq convert`` differ in how they make the `Request` and show the `Events`. How
a source is read, a pass works and a file is written is known below.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import copy
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path

from ggq.converters import grids
from ggq.converters.conversion import CARD_KEYS, Conversion, Options, Progress
from ggq.converters.imatrix import Imatrix, read_imatrix
from ggq.converters.parts import Shard, Work
from ggq.converters.prepare import MMPROJ, prepare
from ggq.converters.prepasses.base import Pass, Prepass, parse
from ggq.converters.prepasses.recipe import Recipe, read_recipe, run_passes
from ggq.converters.projector import MMPROJ_TYPES
from ggq.converters.report.card import Card, check_card, measured, read_card, write_card
from ggq.converters.report.predictions import HeldBack
from ggq.converters.request import TARGETS, Events, Request, Result, flag_of
from ggq.converters.serving import FolderConversion, prepare_folder, refuse_options
from ggq.converters.targets import Weighed, guessed, smallest, weighed
from ggq.errors import UsageError, option, printable
from ggq.extras import how_to_install
from ggq.gguf import open_gguf
from ggq.quants.mixtures import file_type

__all__ = ["Events", "Request", "Result", "planned", "run", "vision_beside"]


def run(request: Request, events: Events | None = None, work: Work | None = None) -> Result:
    """Convert; GGQError naming the file, tensor, key or option at fault, before any work if known.

    A report is written last, when the file is complete. ``work``: who encodes, None: who is asked.
    """
    events = events or Events()
    if request.target_kld is None:
        return _run(request, events, work)
    if work is not None:
        raise UsageError(f"{option('--target-kld')}: makes file after file, not with --cluster")
    return _run_smallest(request, events)


def _run(request: Request, events: Events, work: Work | None = None) -> Result:
    work = work or (Work() if request.shard is None else Shard.parse(request.shard))
    with ExitStack() as stack:
        conversion, passes = stack.enter_context(planned(request, events))
        passes = list(work.passes(conversion, passes))
        eyes = vision_beside(request, conversion, stack)
        events.planned(conversion, passes)
        with events.progress() as progress:
            run_passes(conversion, [_reporting(one, progress) for one in passes])
            summary = conversion.summary()  # before the file is there
            written = work.write(conversion, progress)
        paths = tuple(written.paths)
        held = _carded(conversion, paths[0], passes) if request.card else None
        if request.report is not None:
            _report(conversion, paths[0], passes, request.report, held)
        if eyes is not None:
            with events.progress() as progress:
                eyes.run(progress)
        told = {f.name: getattr(summary, f.name) for f in fields(summary)}
        said, beside = tuple(conversion.warnings), None if eyes is None else eyes.out
        return Result(**told, paths=paths, warnings=said, mmproj=beside, missing=written.missing)


def _run_smallest(request: Request, events: Events) -> Result:
    """Make files of more or fewer bytes beside ``out`` until the smallest is found; keep that."""
    kld = request.target_kld
    assert kld is not None
    _check_needs(request, _recipe(request).passes(request.calibration))
    kind = request.type or _recipe(request).type or request.default_type
    if chosen := grids.find(kind):
        _refuse_of_files(request, chosen.name)
    single = replace(request, type=kind, target_kld=None, card=True, plan=None)
    with planned(single, events) as (conversion, passes):
        conversion.check()
        events.planned(conversion, passes)
        out = conversion.out
    found, _ = _weighed(single, events)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.trying-", dir=out.parent) as folder:
        made: dict[str, Result] = {}

        def attempt(types: dict[str, str]) -> float:
            path = Path(folder) / f"{len(made)}.gguf"
            given = replace(single, out=path, options=_with_types(single.options, types))
            made[str(types)] = result = _run(given, _Quiet(events))
            with open_gguf(path) as file:
                card = read_card(file)
            assert card is not None
            events.tried(result.nbytes, card.kld)
            return card.kld

        best = smallest(found, kld, attempt)
        result = made[str(best.types)]
        os.replace(result[0], out)
    if request.plan is not None:
        from ggq.converters.prepasses.allocation import write_plan

        write_plan(request.plan, best.types)
    return replace(result, paths=(out,))


class _Quiet(Events):
    """Of one file of several: what was planned was told before."""

    def __init__(self, events: Events):
        self._events = events

    def progress(self) -> AbstractContextManager[Progress | None]:
        return self._events.progress()


def vision_beside(request: Request, model: Conversion, stack: ExitStack) -> Conversion | None:
    """Return the planned conversion of the vision part into a file beside the model's, if any."""
    if not request.mmproj:
        return None
    out = model.out.with_name(MMPROJ + model.out.name)
    if not isinstance(request.mmproj, bool):
        out = Path(request.mmproj)
    if out.is_dir():
        out = out / (MMPROJ + model.out.name)
    if out.resolve() == model.out.resolve():
        raise UsageError(f"{option('--mmproj')} {printable(out)}: that is the model's file")
    options = Options(mmproj=True, threads=request.options.threads, force=request.options.force)
    kind = request.mmproj_type or MMPROJ_TYPES[0]
    found = stack.enter_context(prepare(request.source, out, kind, None, options))
    found.writer().plan()  # what is in the way is known before the model is written
    return found


@contextmanager
def planned(
    request: Request, events: Events | None = None, dry_run: bool = False
) -> Iterator[tuple[Conversion, list[Pass]]]:
    """Yield the planned conversion and its passes; nothing is written.

    ``dry_run``: of a repository the headers do, and an output that exists is no matter.
    """
    events = events or Events()
    if request.report is not None:
        from ggq.converters.report.write import report_path

        report_path(request.report)
    if request.calibration is not None and not Path(request.calibration).exists():
        flag = option("--calibration")
        raise UsageError(f"{flag} {printable(request.calibration)}: no such file")
    recipe = _recipe(request)
    passes = recipe.passes(request.calibration)  # what is wrong ends it here
    _check_needs(request, passes)
    if passes:  # the file tells its recipe: then it tells of what, too
        request = replace(request, options=replace(request.options, provenance=True))
    if dry_run:
        planning = replace(request.options, force=True, check_tokenizer=False, outline=True)
        request = replace(request, options=planning)
    if request.imatrix is not None and not isinstance(request.imatrix, Imatrix):
        request = replace(request, imatrix=read_imatrix(request.imatrix))  # once for all plans
    kind = request.type or recipe.type or request.default_type
    request = replace(request, type=kind)
    if chosen := grids.find(kind):
        _refuse_of_files(request, chosen.name)
    else:
        file_type(kind, grids.types())
    types = _tensor_types(request, events)
    with _prepared(request, _with_types(request.options, types)) as conversion:
        passes = _that_matter(_with_activations(passes, conversion, request), conversion)
        if request.card:
            check_card(conversion)
        if request.calibration and not (passes or request.has_target):
            unused = (
                f"{option('--calibration')} is not used: neither a pass nor a target asks for it"
            )
            conversion.warnings.insert(0, unused)
        if request.plan is not None:
            conversion.warnings += _plan_not_followed(conversion, types, request.plan)
        yield conversion, passes


def _check_needs(request: Request, passes: Sequence[Pass]) -> None:
    """Refuse before any work what this installation has no libraries for; UsageError."""
    for one in passes:
        if isinstance(one, Prepass):
            one.check_needs()
    if request.has_target and find_spec("torch") is None:
        flag = next(flag_of(name) for name in TARGETS if getattr(request, name) is not None)
        raise UsageError(f"{flag}: to weigh types on a text, {how_to_install('torch')}")


def _that_matter(passes: list[Pass], conversion: Conversion) -> list[Pass]:
    """Return the passes that can change anything in the types that are planned; tell the others."""
    idle = [one for one in passes if isinstance(one, Prepass) and not one.matters(conversion)]
    if idle:
        names, kind = ", ".join(one.name for one in idle), conversion.plan.file_type.name
        conversion.warnings.append(f"{names}: left out, {kind} leaves it nothing to choose")
    return [one for one in passes if not any(one is other for other in idle)]


def _refuse_of_files(request: Request, name: str) -> None:
    """Refuse what is measured of and written into GGUF files; UsageError."""
    for field_name in (*TARGETS, "plan", "card", "report", "mmproj"):
        if getattr(request, field_name):
            raise UsageError(f"{flag_of(field_name)}: not for a folder of {name}")


def _with_activations(passes: list[Pass], conversion: Conversion, request: Request) -> list[Pass]:
    """Return the passes for the type: static scales need one more; UsageError: one that cannot."""
    if not isinstance(conversion, FolderConversion):
        return passes
    for one in passes:
        if isinstance(one, Prepass) and not one.GRIDS:
            kind = conversion.plan.file_type.name
            raise UsageError(f"pre-pass {one.name}: not for a folder of {kind}")
    there = any(isinstance(one, Prepass) and one.name == "activations" for one in passes)
    if conversion.inputs.scope != "tensor" or there:
        return passes
    last = parse("activations", calibration=request.calibration)
    last.check_needs()
    return [*passes, last]


def _prepared(request: Request, options: Options) -> Conversion:
    assert request.type is not None
    if chosen := grids.find(request.type):
        _refuse_of_files(request, chosen.name)
        return prepare_folder(request.source, request.out, chosen, request.imatrix, options)
    refuse_options(options)
    made = prepare(request.source, request.out, request.type, request.imatrix, options)
    if request.card:  # in place from the start: sizes are planned with it
        made.items += Card().items()
    return made


def _recipe(request: Request) -> Recipe:
    """Return what the recipe's file holds, or the quality and the passes asked for as one."""
    if request.recipe is not None:
        return read_recipe(request.recipe)
    return Recipe(quality=request.quality, steps=tuple(request.prepasses))


def _reporting(one: Pass, progress: Progress | None) -> Pass:
    """Return the pass such that it tells ``progress``, if it has none of its own."""
    if isinstance(one, Prepass) and one.progress is None and progress is not None:
        one = copy(one)  # the caller's own stays as it is
        one.progress = progress
    return one


def _tensor_types(request: Request, events: Events) -> dict[str, str]:
    """Return the types by tensor that a size or a plan asks for, {} where none does."""
    if not request.has_target and request.plan is None:
        return {}
    from ggq.converters.prepasses import allocation

    if not request.has_target:
        assert request.plan is not None
        return allocation.read_plan(request.plan)
    found, size = _weighed(request, events)
    types = found.types(size) if request.target_kld is None else guessed(found, request.target_kld)
    if request.plan is not None:
        allocation.write_plan(request.plan, types)
    return types


def _weighed(request: Request, events: Events) -> tuple[Weighed, int]:
    """Weigh every type for every tensor on a text; return that and the bytes that are allowed."""
    # The choice asks for the weights, and nothing is written yet.
    weighing = replace(request.options, outline=False, provenance=False)
    passes = _recipe(request).passes(request.calibration)
    light = request.imatrix is not None or any(getattr(p, "MEASURES", False) for p in passes)
    with _prepared(request, weighing) as conversion, events.progress() as progress:
        size = request.target_size
        if request.target_bpw is not None:
            size = int(request.target_bpw * conversion.n_elements / 8)
        found = weighed(conversion, request.calibration, light, size, progress)
        return found, found.most if size is None else size


def _with_types(options: Options, types: dict[str, str]) -> Options:
    from ggq.converters.prepasses import allocation

    pairs = (*options.mixture.tensor_types, *allocation.overrides(types))
    return replace(options, mixture=replace(options.mixture, tensor_types=pairs))


def _plan_not_followed(
    conversion: Conversion, types: dict[str, str], path: str | os.PathLike[str]
) -> list[str]:
    """Name what a plan asks for and the file will not have: tensors that keep their types."""
    planned, fallen = dict(conversion.plan.types), {n for n, _, _ in conversion.plan.fallbacks}
    return [
        f"{printable(path)}: {printable(name)} stays {planned[name]}, {printable(wanted)} is not "
        "for it"
        for name, wanted in types.items()
        if planned[name] != wanted.upper() and name not in fallen
    ]


def _carded(conversion: Conversion, path: Path, passes: Sequence[Pass]) -> HeldBack:
    """Measure the written file and write its card; return what it was made of."""
    card, held = measured(conversion, path, passes)
    write_card(path, card)
    items = [i for i in conversion.items if i.key not in CARD_KEYS]
    conversion.items = items + card.items()  # a report tells them
    return held


def _report(
    conversion: Conversion,
    path: Path,
    passes: Sequence[Pass],
    out: str | os.PathLike[str],
    held: HeldBack | None,
) -> None:
    from ggq.converters.report.findings import findings
    from ggq.converters.report.predictions import held_back
    from ggq.converters.report.write import write_report

    held = held or held_back(conversion, path, passes)
    measured = conversion.imatrix.values if conversion.imatrix else {}
    found = findings(path, conversion.original, {**(held.power if held else {}), **measured})
    facts = {i.key: i.value for i in conversion.items if i.key.startswith("ggq.")}
    facts = {"file": path.name, "type": conversion.plan.file_type.name, **facts}
    write_report(out, found, facts, held)
