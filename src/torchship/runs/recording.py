"""Running an image with several seeds, and writing down what that gave."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Literal

from msgspec.structs import replace

from torchship import __version__
from torchship.amounts import counted
from torchship.digest import Digest
from torchship.engines.request import Engine, Request
from torchship.errors import EngineError, MetricsError, RunError, TorchshipError
from torchship.progress import Progress
from torchship.project.project import Metric
from torchship.project.revision import Revision
from torchship.project.seeds import seeded
from torchship.runs import capacity, failure, profile
from torchship.runs.claims import claims
from torchship.runs.execution import Declared, Execution, execute, source, used
from torchship.runs.inside import TENSORS, Facts, check_data, tensors
from torchship.runs.interruption import interruptible
from torchship.runs.legible import legible
from torchship.runs.metrics import DEFAULT, collect
from torchship.runs.parameters import parameters, workers
from torchship.runs.record import DataUsed, Determinism, Record, Repeat, Run
from torchship.runs.run import RecordDirectory, RunDirectory, folder_of
from torchship.runs.verdict import run_differences

_DECLARE = (
    "write metrics.json to the output directory, or give a `pattern` on stdout in "
    "[tool.torchship.metrics.NAME]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to run: ``request`` without seed and output, once for each of ``seeds``.

    A seed of None is a run without one. ``repeat`` runs the first seed once more. ``afresh``: every
    container is made anew of the image's digest, maybe elsewhere, so that to look at its data after
    the runs would say nothing of those that were used.
    """

    request: Request
    seeds: tuple[int | None, ...]
    profile: Literal["default", "strict"] = "default"
    repeat: bool = False
    afresh: bool = False
    name: str
    index: Digest | None = None
    revision: Revision | None = None


def record(
    plan: Plan,
    engine: Engine,
    *,
    declared: Declared,
    directory: RecordDirectory,
    progress: Progress,
    first: Callable[[Execution, Declared, RunDirectory], None] | None = None,
) -> Record:
    """Run everything that is planned, and return the record; the caller writes it.

    Stops at the first run that fails: its exit status is in the record. ``first`` is shown the
    first run that did not, and may raise. Raises `RunError` where the image's data are not what
    it declares, before or after the runs, and `RecordError` where no record can hold what the
    runs gave: after the first of them, if that shows it. Where Ctrl-C ends it, ``progress`` is told
    what there is.
    """
    done: list[Execution] = []
    try:
        return _recorded(plan, engine, declared, directory, progress, first, done)
    except KeyboardInterrupt:
        directory.discard()
        told = f"stopped after {len(done)} of {counted(len(plan.seeds), 'run')}: no record was made"
        where = f"; what there is of them is in {directory.path}"
        progress.say(told + where if directory.path.exists() else told)
        raise


def _recorded(
    plan: Plan,
    engine: Engine,
    declared: Declared,
    directory: RecordDirectory,
    progress: Progress,
    first: Callable[[Execution, Declared, RunDirectory], None] | None,
    done: list[Execution],
) -> Record:
    """Do what `record` does; ``done`` gets every run that came to its end."""
    progress.say("looking at the machine from inside the container")
    try:
        found, before = check_data(plan.request, engine, declared.data)
    except TorchshipError:
        directory.discard()
        raise
    folders = []
    for place, seed in enumerate(plan.seeds, start=1):
        folder = directory.run(seed, place)
        done.append(_once(plan, engine, declared, seed, folder, directory))
        folders.append(folder)
        progress.say(_told(done[-1], place, len(plan.seeds)))
        if done[-1].run.status != 0:
            break
        if place > 1:
            continue
        if first is not None:
            first(done[0], declared, folder)
        alone = _record(plan, engine, declared, found, before, done, [_expected(done[0].run)], None)
        capacity.check(alone, len(plan.seeds))
    again = None
    if plan.repeat and all(each.run.status == 0 for each in done):
        folder = directory.repeat()
        again = _once(plan, engine, declared, plan.seeds[0], folder, directory)
        folders.append(folder)
        progress.say(f"once more: {_told(again, 1, 1)}")
    if before and not plan.afresh:
        _check_again(plan, engine, declared, progress)
    digests = tensors(plan.request, engine, [folder.output for folder in folders])
    runs = [
        dataclasses.replace(each.run, tensors=inside)
        for each, inside in zip(done, digests, strict=False)
    ]
    repeat = None
    if again is not None:
        repeat = _repeat(runs[0], dataclasses.replace(again.run, tensors=digests[-1]))
    return capacity.fitted(_record(plan, engine, declared, found, before, done, runs, repeat))


def _expected(run: Run) -> Run:
    """Return a run with as many digests of tensors as may be found in its outputs."""
    suffixes = {name: PurePosixPath(name).suffix for name in run.outputs}
    return dataclasses.replace(
        run,
        tensors={name: run.outputs[name] for name in suffixes if suffixes[name] in TENSORS},
    )


def _check_again(
    plan: Plan,
    engine: Engine,
    declared: Declared,
    progress: Progress,
) -> None:
    """Raise `RunError` where the image's data are no more what they were before the runs.

    Where they cannot be looked at any more (a cluster has no more time for us), it is told: hours
    of training are not given up for that.
    """
    try:
        check_data(plan.request, engine, declared.data)
    except EngineError as error:
        progress.say(f"after the runs, {error.message}")
    except RunError as error:
        raise RunError(
            f"after the runs, {error.message}",
            hint="the program writes to its own data: let it write to $TORCHSHIP_OUTPUT",
        ) from error


def with_seed(request: Request, declared: Declared, seed: int | None) -> Request:
    """Return the request of one run: the command, or a variable, has the seed."""
    given = seeded(request.command or request.image.command, declared.seed, seed)
    return replace(
        request,
        command=given.command,
        environment={**request.environment, **given.environment},
    )


def _once(
    plan: Plan,
    engine: Engine,
    declared: Declared,
    seed: int | None,
    folder: RunDirectory,
    directory: RecordDirectory,
) -> Execution:
    request = replace(with_seed(plan.request, declared, seed), output=folder.output, log=folder.log)
    try:
        with interruptible():
            return execute(
                request,
                engine,
                metrics_of=declared.metrics,
                output=folder.output,
                log=folder.log,
                seed=seed,
                runs=len(plan.seeds),
            )
    except TorchshipError:
        folder.discard()
        directory.discard()  # unless others have run before it
        raise


def _told(execution: Execution, place: int, count: int) -> str:
    run = execution.run
    what = (
        f"run {place} of {count}" if run.seed is None else f"seed {run.seed} ({place} of {count})"
    )
    if run.status != 0:
        return f"{what}: exit status {run.status} after {run.seconds:.1f} s"
    named = {metric.name for metric in execution.metrics}
    shown = [
        f"{name} {value:g}" for name, value in run.metrics.items() if name in named or not named
    ]
    told = f"{what}: {', '.join(shown) or 'no metrics'} in {run.seconds:.1f} s"
    if execution.fault is None:
        return told
    return f"{told}: {legible(execution.fault.message)}"  # names in it may be a stranger's


def _repeat(first: Run, again: Run) -> Repeat:
    if again.status != first.status:
        return Repeat(seed=first.seed, identical=False, differs=("exit status",))
    differs = run_differences(first, again)
    return Repeat(seed=first.seed, identical=not differs, differs=differs)


def _record(
    plan: Plan,
    engine: Engine,
    declared: Declared,
    found: Facts,
    data: tuple[DataUsed, ...],
    done: Sequence[Execution],
    runs: Sequence[Run],
    repeat: Repeat | None,
) -> Record:
    image = plan.request.image
    command = plan.request.command or image.command
    options = parameters(command)
    code = source(image)
    if code is not None and plan.revision is not None:
        code = dataclasses.replace(code, commit=plan.revision.commit, dirty=plan.revision.dirty)
    return Record(
        image=used(image, plan.name, plan.index),
        command=command,
        parameters=options,
        seed=declared.seed,
        runs=tuple(runs),
        recorded=datetime.now(UTC).replace(microsecond=0),
        torchship=__version__,
        engine=engine.name,
        network=plan.request.network,
        variables=_set_by_the_caller(plan),
        mounts=tuple(sorted(mount.target for mount in plan.request.mounts)),
        source=code,
        data=data,
        determinism=Determinism(
            profile=plan.profile,
            environment=found.environment,
            threads=found.threads,
            interop_threads=found.interop_threads,
            workers=workers(options),
            repeat=repeat,
        ),
        hardware=found.hardware,
        software=found.software,
        claims=claims(runs, done[0].metrics),
    )


def _set_by_the_caller(plan: Plan) -> tuple[str, ...]:
    pinned = profile.NAMES if plan.profile == "strict" else frozenset()
    return tuple(sorted(name for name in plan.request.environment if name not in pinned))


def measured(execution: Execution, declared: Declared, folder: RunDirectory) -> None:
    """Raise `MetricsError` where a run gave nothing, or not all, that a record could claim.

    To be told after the first of many runs, with where it was looked for.
    """
    if execution.fault is not None:
        raise execution.fault
    given = execution.run.metrics
    for metric in declared.metrics:
        if metric.name in execution.run.diverged:
            raise MetricsError(
                f"the run's {metric.name} is not a number, or infinite",
                hint=f"the training diverged: see what it printed in {folder.log}",
            )
        if metric.name not in given:
            raise _lacking(metric, folder)
    if not given and not execution.run.diverged:
        raise MetricsError(
            f"the run gave no metrics: {folder.output / DEFAULT} is not there, or holds no "
            "numbers, and no `pattern` is declared for what it prints",
            hint=_DECLARE,
        )


def _lacking(metric: Metric, folder: RunDirectory) -> MetricsError:
    if metric.pattern is not None:
        return MetricsError(
            f"the run gave no {metric.name}: nothing in {folder.log} matches its pattern "
            f"{metric.pattern}",
            hint=f"correct `pattern` in [tool.torchship.metrics.{metric.name}]",
        )
    file = folder.output / (metric.file or DEFAULT)
    what = f"holds no number of that name in {file}" if file.is_file() else f"left no {file}"
    return MetricsError(
        f"the run gave no {metric.name}: it {what}",
        hint=f'write {{"{metric.name}": 0.99}} there, or correct `file` in '
        f"[tool.torchship.metrics.{metric.name}]",
    )


def check(made: Record, declared: Declared, done_in: RecordDirectory) -> None:
    """Raise `RunError` or `MetricsError` where a record is nothing that an author can publish."""
    for place, run in enumerate(made.runs, start=1):
        if run.status != 0:
            seed = "a run" if run.seed is None else f"the run with seed {run.seed}"
            log = RunDirectory(path=folder_of(done_in.path, run.seed, place)).log
            hint = f"see what it printed in {done_in.path}; no record is made of failed runs"
            if why := failure.hint(log, network=made.network):
                hint = f"{why}; see what it printed in {log}"
            raise RunError(f"{seed} ended with exit status {run.status}", hint=hint)
    claimed = {claim.name for claim in made.claims}
    missing = [metric.name for metric in declared.metrics if metric.name not in claimed]
    if missing:
        lacking = f"not every run gave a value of {', '.join(missing)}"
        hint = "[tool.torchship.metrics] says where it is looked for"
    elif not claimed:
        lacking = "the runs gave no metrics that a reproduction could be judged by"
        hint = _DECLARE
    else:
        return
    fault = _unread(made, declared, done_in)
    if fault is None:
        raise MetricsError(lacking, hint=hint)
    raise MetricsError(f"{lacking}: {fault.message}", hint=fault.hint or hint)


def _unread(made: Record, declared: Declared, done_in: RecordDirectory) -> MetricsError | None:
    """Return why the metrics of a run, the first such one, could not be read: its files tell."""
    for place, run in enumerate(made.runs, start=1):
        folder = RunDirectory(path=folder_of(done_in.path, run.seed, place))
        if run.metrics or run.diverged or not folder.log.is_file():
            continue
        try:
            collect(declared.metrics, output=folder.output, log=folder.log)
        except MetricsError as fault:
            return fault
    return None
