"""The script that runs a job: ``run.sh``, for this computer and one over SSH, and with a header for Slurm.

It is plain POSIX ``sh``, made from the target and the plan alone, with every value quoted. Whatever happens it leaves
``exit_code`` in the run folder. Signals never reach the run itself: the script turns them into the file ``STOP``, so
that every process stops at the same step, with a checkpoint.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from medmae.jobs.slurm import sbatch_header
from medmae.jobs.target import Target
from medmae.run_folder import Kind

UNDER_TORCHRUN = ("pretrain", "finetune")
FIRST_PORT, PORTS = 20000, 10000  # of a rendezvous: below those that systems hand out by themselves

BEGINNING = """
umask 077
cd -- "$medmae_run" || exit 1
ended() {
    printf '%s\\n' "$1" > "$medmae_work/exit_code"
}
trap 'ended "$?"' EXIT
rm -f -- "$medmae_work/exit_code"
"""

# A run that is only just beginning takes a file STOP for one of an earlier attempt: hence again and again.
STOPPING = """
interrupted= keeper=
stop() {
    interrupted=yes
    [ -z "$keeper" ] || return 0
    (
        while :; do
            for folder in @FOLDERS@; do
                [ ! -d "$folder" ] || : > "$folder/STOP"
            done
            sleep 1
        done
    ) &
    keeper=$!
}
wait_for() {  # the exit code of a process, however often signals interrupt the waiting
    code=127 interrupted=yes
    while [ "$interrupted" ]; do
        interrupted=
        wait "$1"
        status=$?
        [ "$status" -eq 127 ] || code=$status
    done
}
alone() {  # a command that no signal for the whole group or job reaches
    trap '' TERM INT HUP USR1
    exec "$@"
}
"""
ON_SIGNAL = "trap stop TERM INT HUP"

# A STOP that Slurm's signals have made, and REQUEUE says so, is not the user's: the next go removes both.
ON_SLURM_SIGNAL = """
stop_for_slurm() {
    [ -e "$medmae_work/STOP" ] || : > "$medmae_work/REQUEUE"
    stop
}
requeue= terminated=
trap 'requeue=yes; stop_for_slurm' USR1
trap 'terminated=yes; stop_for_slurm' TERM
trap stop INT HUP
if [ -e "$medmae_work/REQUEUE" ]; then
    rm -f -- "$medmae_work/STOP" "$medmae_work/REQUEUE"
elif [ -e "$medmae_work/STOP" ] && [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    echo 'Not started again: a stop was asked for.'
    exit 0
fi
"""
SLURM_END = """
if [ "$requeue" ] && [ -z "$terminated" ] && [ -e "$medmae_work/REQUEUE" ] && [ "$code" -eq 0 ] \\
        && grep -q '"state": "stopped"' "$medmae_work/state.json"; then
    tries=20  # Slurm's controller may be about to come back
    until (alone scontrol requeue "$SLURM_JOB_ID"); do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] && [ -z "$terminated" ] || { rm -f -- "$medmae_work/REQUEUE"; break; }
        sleep 3
    done
fi
"""
PARTS_STAND = """
is_done() {
    grep -q '"state": "done"' "$1/state.json" 2>/dev/null
}
all_ended() {  # by themselves: what is stopped or killed goes on later
    for folder in "$medmae_run"/parts/*; do
        grep -q '"state": "\\(done\\|failed\\)"' "$folder/state.json" 2>/dev/null || return 1
    done
}
"""
IS_FIRST = """
is_first() {  # of several tasks that see all parts at their end; also when it is started again
    ln -s "$SLURM_JOB_ID" "$medmae_run/finishing" 2>/dev/null \\
        || [ "$(readlink "$medmae_run/finishing")" = "$SLURM_JOB_ID" ]
}
"""
# Slurm gives the processes of a step back the signals that this script ignores; and torchrun does not know every name
# and address of the node that it runs on.
ON_EACH_NODE = 'trap "" TERM INT HUP USR1; export PET_RDZV_CONF="is_host=$((SLURM_NODEID == 0))"; exec "$@"'
END = """
[ -z "$keeper" ] || kill "$keeper"
"""


@dataclass(frozen=True)
class LaunchPlan:
    """What to run, where on the target.

    Args:
        run: the run folder there; absolute.
        code: the folder there that holds the package ``medmae``; absolute.
        python: the interpreter there; absolute, or a name that the preamble brings.
        kind: of the run.
        parts: into how many shares the cases are divided, each with a run folder ``RUN/parts/NN``; None: not divided.
        at_once: how many tasks of a Slurm array run at the same time; None: as many as the cluster lets.
    """

    run: str
    code: str
    python: str
    kind: Kind
    parts: int | None = None
    at_once: int | None = None

    def __post_init__(self) -> None:
        for path in (self.run, self.code):
            if not path.startswith("/") or "\0" in path:
                raise ValueError(f"{path!r} is not an absolute path")
        if self.parts is not None and (self.parts < 1 or self.kind in UNDER_TORCHRUN):
            raise ValueError(f"a run of kind {self.kind} cannot have {self.parts} parts")


def launch_script(target: Target, plan: LaunchPlan) -> str:
    """The text of ``run.sh``.

    Raises:
        BadInput: something in the target cannot be given to Slurm.
    """
    slurm = target.kind == "slurm"
    blocks = [
        "#!/bin/sh",
        *([sbatch_header(target, PurePosixPath(plan.run).name, plan.parts, plan.at_once)] if slurm else []),
        "# Written by MedMAE with every start: changes are lost.",
        f"medmae_run={shlex.quote(plan.run)}",
        f'medmae_work="{_work_folder(plan) if slurm else "$medmae_run"}"',
        BEGINNING.strip(),
        *([f'exec >> "$medmae_run/{_output_name(plan)}" 2>&1'] if slurm else []),
        STOPPING.replace("@FOLDERS@", '"$medmae_work"' if slurm else '"$medmae_run" "$medmae_run"/parts/*').strip(),
        ON_SLURM_SIGNAL.strip() if slurm else ON_SIGNAL,
        *target.preamble,
        'cd -- "$medmae_run" || exit 1',
        *_environment(target, plan),
        *(_single(target, plan) if not plan.parts else _task(target, plan) if slurm else _parts(target, plan)),
        END.strip(),
        *([SLURM_END.strip()] if slurm else []),
        'exit "$code"']
    return "\n".join(blocks) + "\n"


def part_name(number: int) -> str:
    """The name of a part's folder in ``RUN/parts``."""
    return f"{number:02d}"


def _work_folder(plan: LaunchPlan) -> str:
    """The run folder of this process; of an array, that of the task."""
    return '$medmae_run/parts/$(printf %02d "$SLURM_ARRAY_TASK_ID")' if plan.parts else "$medmae_run"


def _output_name(plan: LaunchPlan) -> str:
    return ("slurm-${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID.txt" if plan.parts else "slurm-$SLURM_JOB_ID.txt")


def _environment(target: Target, plan: LaunchPlan) -> list[str]:
    lines = [
        f"export PYTHONPATH={shlex.quote(plan.code)}" + '"${PYTHONPATH:+:$PYTHONPATH}"',
        "export PYTHONSAFEPATH=1",  # nothing in a run folder is taken for a module
        f"export MEDMAE_HOME={shlex.quote(str(PurePosixPath(plan.run).parent.parent))}",
        *_threads(target, plan)]
    if plan.kind in UNDER_TORCHRUN:  # torchrun would end its children within 30 seconds of a TERM to the whole job
        lines.append("export TORCHELASTIC_SIGNALS_TO_HANDLE=SIGQUIT PET_SIGNALS_TO_HANDLE=SIGQUIT")
    return lines


def _threads(target: Target, plan: LaunchPlan) -> list[str]:
    """Each of several processes gets its share of the cores; one alone takes all that it may use."""
    if target.kind == "slurm" and plan.parts:
        processes = 1
    else:
        processes = plan.parts or (max(1, target.gpus) if plan.kind in UNDER_TORCHRUN else 1)
    if target.cpus is not None:
        return [f': "${{OMP_NUM_THREADS:={max(1, target.cpus // processes)}}}"', "export OMP_NUM_THREADS"]
    if processes == 1:
        return []
    return ["cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)",
            f': "${{OMP_NUM_THREADS:=$((cores > {processes} ? cores / {processes} : 1))}}"', "export OMP_NUM_THREADS"]


def _single(target: Target, plan: LaunchPlan) -> list[str]:
    if plan.kind not in UNDER_TORCHRUN:
        return _executed(target, plan, "$medmae_work")
    torchrun = [*target.container, plan.python, "-m", "torch.distributed.run",
                f"--nproc-per-node={max(1, target.gpus)}", "--max-restarts=0"]
    if target.nodes == 1:
        return [f'alone {_words([*torchrun, "--standalone"])} --module medmae.run "$medmae_work" &', 'wait_for "$!"']
    srun = ["srun", f"--nodes={target.nodes}", f"--ntasks={target.nodes}", "--ntasks-per-node=1",
            "--kill-on-bad-exit=1", *([f"--cpus-per-task={target.cpus}"] if target.cpus else [])]
    return ['first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            "address=$(scontrol --oneliner show node \"$first\" | sed -n 's/.* NodeAddr=\\([^ ]*\\).*/\\1/p')",
            f"port=$(({FIRST_PORT} + SLURM_JOB_ID % {PORTS}))",
            f"alone {_words([*srun, 'sh', '-c', ON_EACH_NODE, 'sh', *torchrun, f'--nnodes={target.nodes}'])} "
            '--rdzv-backend=c10d --rdzv-endpoint="${address:-$first}:$port" '
            '--rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --module medmae.run "$medmae_work" &',
            'wait_for "$!"']


def _parts(target: Target, plan: LaunchPlan) -> list[str]:
    """All parts at once, each with a graphics card where there are any; those that are done are left out."""
    lines = [PARTS_STAND.strip(),
             "part=0 children= worst=0",
             f'while [ "$part" -lt {plan.parts} ]; do',
             '    folder="$medmae_run/parts/$(printf %02d "$part")" number=$part part=$((part + 1))',
             '    ! is_done "$folder" || continue']
    alone = "    alone"
    if target.gpus:
        cards = ",".join(str(number) for number in range(target.gpus))
        lines += [f'    cards="${{CUDA_VISIBLE_DEVICES:-{cards}}}"',
                  f'    card=$(printf %s "$cards" | cut -d , -f "$((number % {target.gpus} + 1))")']
        alone = '    alone env CUDA_VISIBLE_DEVICES="$card"'
    return [*lines,
            f'{alone} {_words([*target.container, plan.python])} -m medmae.run "$folder" &',
            '    children="$children $!"',
            "done",
            "for child in $children; do",
            '    wait_for "$child"',
            '    [ "$code" -eq 0 ] || worst=$code',
            "done",
            "code=$worst",
            'if all_ended; then',
            *_executed(target, plan, "$medmae_run", indent="    "),
            "fi"]


def _task(target: Target, plan: LaunchPlan) -> list[str]:
    """One part, as a task of an array. The last one to end brings the results together."""
    return [PARTS_STAND.strip(),
            IS_FIRST.strip(),
            "code=0",
            'if ! is_done "$medmae_work"; then',
            *_executed(target, plan, "$medmae_work", indent="    "),
            "fi",
            'if all_ended && is_first; then',
            "    medmae_work=$medmae_run",
            *_executed(target, plan, "$medmae_run", indent="    "),
            "fi"]


def _executed(target: Target, plan: LaunchPlan, folder: str, indent: str = "") -> list[str]:
    return [f'{indent}alone {_words([*target.container, plan.python])} -m medmae.run "{folder}" &',
            f'{indent}wait_for "$!"']


def _words(words: Iterable[str]) -> str:
    return " ".join(shlex.quote(word) for word in words)
