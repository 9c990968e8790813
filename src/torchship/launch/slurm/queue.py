"""Slurm's own programs: a job submitted, asked for, and ended.

Source: ``sbatch(1)``, ``squeue(1)`` ("Job State Codes", "Job Reason Codes"), ``scontrol(1)``,
``scancel(1)``.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from msgspec import Struct

from torchship.amounts import counted
from torchship.engines.client import Client
from torchship.errors import EngineError

_PATIENCE = 60.0
"""Seconds that the controller may take for an answer."""

_UNKNOWN = "UNKNOWN"
_WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "SUSPENDED")
_RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING", "STOPPED")
_HOPELESS = re.compile(
    r"BadConstraints|Partition(NodeLimit|TimeLimit|Inactive)|Invalid(Account|QOS)|"
    r"AccountNotAllowed|QOSNotAllowed|(Assoc|QOS)Max\w*PerJob\w*|JobHeldAdmin|"
    r"launch failed requeued held|DependencyNeverSatisfied"
)
"""Reasons for which a job would wait until somebody changes it, or the cluster."""


_UNCERTAIN = re.compile(r"timed out|Zero Bytes|receive failure|Unexpected message", re.IGNORECASE)
"""What is said of an answer that was lost on its way: the job may have been taken (slurm_errno)."""

_OF_THE_SITE = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_CLUSTERS": "clusters",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_TIMELIMIT": "time",
}
"""Variables that say where a user's jobs go, and the options that they stand for."""


class State(Struct, frozen=True, kw_only=True):
    """What becomes of a job: Slurm's word, its reason, and the nodes that it has."""

    word: str
    reason: str = ""
    nodes: str = ""

    @property
    def unknown(self) -> bool:
        """Tell whether Slurm gave no answer: its controller restarts, or is busy."""
        return self.word == _UNKNOWN

    @property
    def waiting(self) -> bool:
        """Tell whether the job has not begun."""
        return self.word in _WAITING

    @property
    def running(self) -> bool:
        """Tell whether the job has begun, and not ended."""
        return self.word in _RUNNING

    @property
    def hopeless(self) -> bool:
        """Tell whether the job would wait for ever."""
        return self.waiting and _HOPELESS.fullmatch(self.reason) is not None


class Ended(Struct, frozen=True, kw_only=True):
    """How a job ended: Slurm's word, and the exit status of its script."""

    word: str
    status: int
    reason: str = ""


def installed() -> bool:
    """Tell whether this machine can submit a job."""
    return _client("sbatch").installed


def _client(program: str, *, given: Collection[str] = ()) -> Client:
    """Return one of Slurm's programs; ``given`` are options that the user's variables do not undo.

    Of sbatch's options, a variable counts more than a line of the script (``sbatch(1)``, "INPUT
    ENVIRONMENT VARIABLES"), and it may make several jobs of one, or wait for it. What squeue and
    scancel do without a word of ours would be another thing for everyone.
    """
    client = Client(program, health="scontrol ping")
    client.environment = {
        name: value for name, value in client.environment.items() if _is_kept(name, given)
    }
    return client


def _is_kept(variable: str, given: Collection[str]) -> bool:
    if not variable.startswith(("SBATCH_", "SQUEUE_", "SCANCEL_")):
        return True
    option = _OF_THE_SITE.get(variable)
    return option is not None and option not in given


def configuration() -> Path | None:
    """Return where the cluster's configuration is; None where nobody says."""
    answer = _client("scontrol").ask("show", "config", patience=_PATIENCE)
    match = re.search(r"^SLURM_CONF\s*=\s*(/.*?)\s*$", answer.out, re.M)
    return Path(match[1]) if answer.status == 0 and match else None


class Refused(EngineError):
    """Slurm did not take a job."""


def submit(script: str) -> str:
    """Submit a job; return its number. Raises `Refused` with what Slurm objects to.

    After any other error, there may be a job: see `named`.
    """
    given = re.findall(r"^#SBATCH --([a-z-]+)", script, re.MULTILINE)
    sbatch = _client("sbatch", given=given)
    answer = sbatch.ask("--parsable", stdin=script.encode(), patience=_PATIENCE)
    number = answer.out.strip().partition(";")[0]
    if answer.status != 0 or not number.isdecimal():
        raise refused(answer.err)
    return number


def named(name: str) -> str | None:
    """Return the number of a job that has a name, if there is one."""
    answer = _client("squeue").ask(
        "--noheader", f"--name={name}", "--format=%A", patience=_PATIENCE
    )
    return next((word for word in answer.out.split() if word.isdecimal()), None)


def refused(errors: str) -> EngineError:
    """Return what is told of a job that Slurm does not take; ``errors`` is what it printed.

    `Refused`, unless it may have been taken after all.
    """
    lines = [line.partition("error: ")[2] or line for line in errors.splitlines() if line.strip()]
    told = lines[-1].strip() if lines else "it did not say why"
    told = told.removeprefix("Batch job submission failed: ").rstrip(".")
    if "onfiguration source" in errors or "contact slurm controller" in errors.lower():
        return Refused(
            f"no Slurm cluster can be reached from here: {told}",
            hint="run this where `sinfo` lists the nodes, such as a login node",
        )
    if _UNCERTAIN.search(told):
        return EngineError(
            f"Slurm's controller did not say whether it takes the job: {told}",
            hint="try again when `scontrol ping` answers at once",
        )
    return Refused(
        f"Slurm refuses the job: {told}",
        hint="`sinfo` lists partitions and what their nodes have; see --nodes, --gpus, --cpus, "
        "--memory, --time, --partition and --account",
    )


def state(number: str) -> State | None:
    """Return a job's state; None where it has left the queue."""
    try:
        answer = _client("squeue").ask(
            "--noheader", f"--jobs={number}", "--format=%T|%r|%N", patience=_PATIENCE
        )
    except EngineError as error:
        return State(word=_UNKNOWN, reason=error.message)
    if answer.status != 0:
        # a job that ended some minutes ago is forgotten, and its number is none any more
        gone = "Invalid job id" in answer.err
        return None if gone else State(word=_UNKNOWN, reason=answer.complaint)
    word, _, rest = answer.out.strip().partition("|")
    reason, _, nodes = rest.partition("|")
    found = State(word=word, reason=reason, nodes=nodes)
    return found if found.waiting or found.running else None


def ended(number: str) -> Ended | None:
    """Return how a job ended; None where Slurm does not remember it, or it has not."""
    answer = _client("scontrol").ask("show", "job", number, patience=_PATIENCE)
    fields = dict(re.findall(r"(JobState|Reason|ExitCode)=(\S+)", answer.out))
    word = fields.get("JobState", "")
    if answer.status != 0 or not word or word in (*_WAITING, *_RUNNING):
        return None
    code = fields.get("ExitCode", "0:0").partition(":")[0]
    return Ended(
        word=word,
        status=int(code) if code.isdecimal() else 1,
        reason=fields.get("Reason", "None").replace("_", " "),
    )


def cancel(number: str) -> None:
    """End a job, wherever it is; raise `EngineError` where Slurm does not."""
    answer = _client("scancel").ask(number, patience=_PATIENCE)
    if answer.status != 0 and state(number) is not None:
        raise EngineError(
            f"Slurm does not end job {number}: {answer.complaint}",
            hint=f"end it yourself: scancel {number}",
        )


def why(number: str, found: Ended | None, *, time_limit: int | None) -> EngineError:
    """Return what is told of a job that ended before its work was done."""
    if found is None:
        return EngineError(
            f"job {number} is gone, and Slurm does not say why",
            hint=f"`sacct -j {number}` may know",
        )
    if found.word == "TIMEOUT":
        limit = "" if time_limit is None else f" of {counted(time_limit, 'second')}"
        return EngineError(
            f"Slurm ended job {number}: it took longer than its time limit{limit}",
            hint="allow more with --time",
        )
    if found.word == "OUT_OF_MEMORY":
        return out_of_memory(number)
    if found.word == "CANCELLED":
        return EngineError(f"job {number} was cancelled by somebody else than this torchship")
    if found.word in ("NODE_FAIL", "BOOT_FAIL"):
        return EngineError(f"a node of job {number} failed", hint="launch it again")
    if found.word == "PREEMPTED":
        return EngineError(f"job {number} had to give way to another one", hint="launch it again")
    reason = "" if found.reason in ("", "None") else f", {found.reason}"
    return EngineError(f"job {number} ended before its work was done ({found.word}{reason})")


def out_of_memory(number: str) -> EngineError:
    """Return what is told where a program needed more memory than its job had."""
    return EngineError(
        f"Slurm ended job {number}: the program needed more memory than it had on a node",
        hint="ask for more with --memory, or for more nodes",
    )
