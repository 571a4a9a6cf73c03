"""A Slurm cluster for the tests, two nodes on this machine: own daemons, key and ports, nothing of the system's."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from medmae.jobs.target import Target

PROGRAMS = ("/usr/sbin", "/usr/local/sbin")
NODE, OTHER_NODE = "n1", "n2"
PAIR = "pair"  # the partition with both nodes; the default one has the first alone
KILL_WAIT_SECONDS = 10
ENDS_WITHIN_SECONDS = 15

CONFIGURATION = """\
ClusterName=medmae
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
ReturnToService=2
KillWait={kill_wait}
MessageTimeout=5
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports[0]} {hardware} Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={node_ports[1]} {hardware}
PartitionName=main Nodes=n1 Default=YES MaxTime=1-00:00:00 PriorityTier=1
PartitionName=pair Nodes=n1,n2 MaxTime=1-00:00:00 PriorityTier=1
PartitionName=urgent Nodes=n1 MaxTime=1-00:00:00 PriorityTier=9
"""


class SlurmCluster:
    """One cluster.

    Attributes:
        folder: everything of it; a short path, because it holds sockets.
        preamble: what a target says before everything, so that Slurm's commands find this cluster.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.configuration), "OMP_NUM_THREADS": "1",
                            "PATH": os.pathsep.join((os.environ.get("PATH", os.defpath), *PROGRAMS))}
        self.preamble = (f"export SLURM_CONF={self.configuration} OMP_NUM_THREADS=1", 'PATH="$PATH:/usr/sbin"')
        folder.chmod(0o711)  # munged insists
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", f"spool-{NODE}", f"spool-{OTHER_NODE}"):
            (folder / name).mkdir()
        hardware = re.search(r"CPUs=.*", self._said("slurmd", "-C"))
        assert hardware is not None
        controller_port, *node_ports = _free_ports(3)
        self.configuration.write_text(CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0], user=getpass.getuser(), folder=folder,
            controller_port=controller_port, node_ports=node_ports, kill_wait=KILL_WAIT_SECONDS,
            hardware=re.sub(r"RealMemory=(\d+)", lambda match: f"RealMemory={int(match[1]) // 2}", hardware[0])))
        # With Count= instead of a file the node would be invalid; any device file does.
        (folder / "gres.conf").write_text(f"NodeName={NODE} Name=gpu File=/dev/null\n")

    def start(self) -> None:
        """Start the daemons; returns when the node takes jobs."""
        self._said("mungekey", "--create", f"--keyfile={self.folder}/munge.key")
        self._daemon("munged", "--foreground", "--num-threads=2", f"--key-file={self.folder}/munge.key",
                     *(f"--{what}-file={self.folder}/munge.{what}" for what in ("pid", "log", "seed")),
                     f"--socket={self.folder}/munge")
        _wait(lambda: (self.folder / "munge").exists(), 10, lambda: f"munged does not start: {self.log()}")
        self.start_controller()
        self._daemon("slurmd", "-D", "-N", OTHER_NODE, known_as=OTHER_NODE)
        self.start_node()

    def start_controller(self) -> None:
        """Start slurmctld."""
        self._daemon("slurmctld", "-D")

    def stop_controller(self) -> None:
        """End slurmctld, as for maintenance; jobs run on."""
        self._end("slurmctld", signal.SIGTERM)

    def start_node(self) -> None:
        """Start slurmd of the first node where it does not run; returns when it takes jobs."""
        if NODE in self._daemons:
            return
        self._daemon("slurmd", "-D", "-N", NODE, known_as=NODE)
        _wait(lambda: self.node_state() in ("idle", "mixed", "allocated"), 20,
              lambda: f"the node does not come up: {self.node_state()}; {self.log()}")
        # Not earlier: jobs would be sent to a node that does not answer yet.
        self.run("scontrol", "update", f"nodename={NODE}", "state=resume", check=False)

    def crash_node(self) -> None:
        """End slurmd of the first node and every process of every job, as when it loses its power."""
        self._end(NODE)
        lost = set(self._processes()) - {daemon.pid for daemon in self._daemons.values()}
        for how in (signal.SIGSTOP, signal.SIGKILL):  # all at once: none may report that another died
            for pid in lost:
                _send(pid, how)

    def kill_job(self, job: str) -> None:
        """Kill every process of a job at once, as the kernel does where memory runs out."""
        for pid in self._processes(f"SLURM_JOB_ID={job}"):
            _send(pid)

    def script_of(self, job: str) -> int:
        """The process of a job's batch script."""
        return next(pid for pid in self._processes(f"SLURM_JOB_ID={job}")
                    if b"slurm_script" in Path(f"/proc/{pid}/cmdline").read_bytes())

    def node_state(self) -> str:
        """As sinfo gives it."""
        done = self.run("sinfo", "--noheader", f"--nodes={NODE}", "--format=%T", check=False)
        return done.stdout.split("\n")[0].strip()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of Slurm's, on this cluster."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=check)

    def show(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says."""
        return dict(re.findall(r"([\w:/]+)=(\S*)", self.run("scontrol", "--oneliner", "show", "job", job).stdout))

    def wait_for(self, job: str, *states: str, within_s: float = 240) -> None:
        """Wait until a job is in one of `states`; of one that Slurm holds after a requeue the waiting is cut short."""
        def arrived() -> bool:
            facts = self.show(job)
            held = facts["JobState"] == "PENDING" and facts["Reason"] == "BeginTime" and "PENDING" not in states
            begin = facts["EligibleTime"]
            if held and begin != "Unknown" and datetime.fromisoformat(begin) > datetime.now() + timedelta(seconds=10):
                # Not at once: within the second of its requeue, slurmd refuses a job as one that it has just ended.
                self.run("scontrol", "update", f"jobid={job}", "StartTime=now+2", check=False)
            return facts["JobState"] in states
        _wait(arrived, within_s, lambda: f"{self.show(job)}; {self.log()}")

    def target(self, **changes: Any) -> Target:
        """A target on this cluster, for whoever sits at its login node."""
        return Target(**{"name": "cluster", "kind": "slurm", "environment": "python", "gpus": 0, "cpus": 1,
                         "preamble": self.preamble, **changes})

    def log(self) -> str:
        """The ends of what the daemons say."""
        return "\n".join(file.read_text(errors="replace")[-1000:] for file in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        """End all jobs and daemons, whatever state they are in."""
        for name in reversed([*self._daemons]):
            self._end(name)
        _wait(lambda: not [_send(pid) for pid in self._processes()], 10, lambda: "processes of the cluster are left")

    def _daemon(self, name: str, *arguments: str, known_as: str | None = None) -> None:
        with open(self.folder / f"{known_as or name}.out.log", "ab") as output:
            self._daemons[known_as or name] = subprocess.Popen(
                [_program(name), *arguments], env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True)

    def _end(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon is not None:
            daemon.send_signal(how)
            try:
                daemon.wait(timeout=ENDS_WITHIN_SECONDS)
            except subprocess.TimeoutExpired:  # slurmctld sometimes hangs after a TERM; its state is on disk by then
                daemon.kill()
                daemon.wait()

    def _processes(self, *further: str) -> Iterator[int]:
        """Processes of this cluster (daemons, steps, jobs) that have `further` in their environment."""
        marks = {mark.encode() for mark in (f"SLURM_CONF={self.configuration}", *further)}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:  # it has ended, or is somebody else's
                continue
            if marks <= set(environment):
                yield int(entry.name)

    def _said(self, program: str, *arguments: str) -> str:
        return subprocess.run([_program(program), *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def slurm_of_the_run() -> Iterator[SlurmCluster]:
    if not all(_find(name) for name in ("munged", "mungekey", "slurmctld", "slurmd", "sbatch")):
        pytest.skip("needs Slurm and munge; on Debian and Ubuntu: make system, as root")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        cluster = SlurmCluster(Path(folder).resolve())
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def slurm(slurm_of_the_run: SlurmCluster) -> Iterator[SlurmCluster]:
    """The cluster of this test run, its node up and free; jobs that a test leaves are cancelled."""
    cluster = slurm_of_the_run
    cluster.start_node()  # a test that failed may have left it down
    yield cluster
    jobs = cluster.run("squeue", "--noheader", "--format=%A").stdout.split()
    if jobs:
        cluster.run("scancel", "--signal=KILL", "--full", *jobs, check=False)
        cluster.run("scancel", *jobs, check=False)
    _wait(lambda: not cluster.run("squeue", "--noheader").stdout, 30, cluster.log)


def _find(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *PROGRAMS)))


def _program(name: str) -> str:
    found = _find(name)
    assert found is not None, f"{name} is not installed"
    return found


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _wait(condition: Callable[[], bool], within_s: float, otherwise: Callable[[], str]) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise())
        time.sleep(0.1)


def _send(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return
