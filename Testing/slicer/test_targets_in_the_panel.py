"""The dialog "Computers": other computers are added, changed, removed and checked, each failure with its remedy."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest
from panel_fixtures import until

from medmae.jobs import ssh
from medmae.jobs.check import Check
from medmae.jobs.target import Target
from medmae.jobs.targets import add_target, find_target, list_targets, targets_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "remote"))
from ssh_server import HOST, STRANGER, SshServer, find_sshd  # noqa: E402 - lies with the tests of jobs

CLUSTER = Target("cluster", "slurm", "login.example.org", folder="/scratch/me/medmae", gpus=2, nodes=2, cpus=8,
                 partition="gpu", account="ours", time="1-00:00:00", sbatch=("--mem=64G", "--qos=high"),
                 preamble=("module load python/3.11",), container=("apptainer", "exec", "image.sif"))


@pytest.fixture
def dialog(qt_application, user_settings, said):
    """The dialog; `dialog.told` counts how often it says that targets have changed."""
    from MedMAETrainLib.Panel.TargetsDialog import TargetsDialog

    qt_application.completeSlicerApp()
    told = []
    dialog = TargetsDialog(lambda: told.append(1))
    dialog.told = told
    dialog.dialog.show()
    yield dialog
    dialog.check.stop()
    dialog.dialog.hide()
    dialog.dialog.deleteLater()
    qt_application.processDeletions()


@pytest.fixture
def fill(monkeypatch):
    """What the user does in the next form: a function of it; the form is accepted when it says so."""
    from MedMAETrainLib.Panel.TargetForm import TargetForm

    forms = []

    def fill_with(do):
        def ask(form):
            forms.append(form)
            form.dialog.show()
            do(form)
            isAccepted = bool(form.dialog.result())
            form.dialog.hide()
            return isAccepted

        monkeypatch.setattr(TargetForm, "ask", ask)
        return forms

    yield fill_with
    for form in forms:
        form.dialog.deleteLater()


def enter(form, **values):
    for key, value in values.items():
        field = form.fields[key]
        if hasattr(field, "setPlainText"):
            field.setPlainText(value)
        elif hasattr(field, "setCurrentIndex"):
            field.setCurrentIndex(value)
        elif hasattr(field, "setValue"):
            field.setValue(value)
        else:
            field.text = value
    form.okButton.click()


@pytest.fixture
def unchecked(monkeypatch):
    """Checks find nothing, at once."""
    monkeypatch.setattr("MedMAETrainLib.Panel.TargetCheck.findings", lambda target: iter(()))


def test_without_computers_it_says_what_they_are_for(dialog):
    assert dialog.emptyLabel.visible and "Slurm" in dialog.emptyLabel.text and not dialog.list.visible
    assert dialog.addButton.enabled
    assert not any(button.enabled for button in (dialog.editButton, dialog.removeButton, dialog.checkButton,
                                              dialog.cleanButton))


def test_a_workstation_is_added_listed_and_checked_at_once(dialog, fill, unchecked, qt_application):
    fill(lambda form: enter(form, name="gpu-box", host="me@gpu.example.org", gpus=2, preamble=" module load x \n\n"))
    dialog.addButton.click()
    assert find_target("gpu-box") == Target("gpu-box", "ssh", "me@gpu.example.org", gpus=2, preamble=("module load x",))
    assert dialog.list.item(0).text() == "gpu-box:  over SSH, me@gpu.example.org" and dialog.told == [1]
    assert dialog.check.isBusy and dialog.checkButton.text == "Cancel" and not dialog.addButton.enabled
    until(qt_application, lambda: not dialog.check.isBusy)
    assert dialog.check.isReady and dialog.check.label.text == "gpu-box is ready."


def test_everything_of_a_cluster_is_shown_and_changed_and_the_rest_of_it_is_kept(dialog, fill, unchecked):
    add_target(CLUSTER)
    dialog.update()
    seen, expectedTexts = {}, {
        "name": "cluster", "host": "login.example.org", "folder": "/scratch/me/medmae", "python": "python3",
        "partition": "gpu", "account": "ours", "time": "1-00:00:00"}

    def change(form):
        seen.update({key: form.fields[key].text for key in expectedTexts})
        assert form.fields["name"].readOnly and all(form.fields[key].isVisible() for key in ("sbatch", "nodes", "time"))
        enter(form, partition="", gpus=4, cpus=0, sbatch="--mem=64G")

    fill(change)
    dialog.editButton.click()
    assert seen == expectedTexts
    expected = {"partition": None, "gpus": 4, "cpus": None, "sbatch": ("--mem=64G",)}
    assert find_target("cluster") == Target(**{**CLUSTER.__dict__, **expected})


def test_what_belongs_to_clusters_is_asked_for_clusters_alone(dialog, fill, unchecked):
    add_target(CLUSTER)
    dialog.update()

    def make_it_a_workstation(form):
        form.fields["kind"].setCurrentIndex(0)
        assert not form.fields["partition"].isVisible() and form.fields["host"].isVisible()
        form.fields["kind"].setCurrentIndex(2)
        assert not form.fields["host"].isVisible()
        enter(form, kind=0)

    fill(make_it_a_workstation)
    dialog.editButton.click()
    target = find_target("cluster")
    assert (target.kind, target.nodes, target.partition, target.time, target.sbatch) == ("ssh", 1, None, None, ())
    assert target.container == CLUSTER.container


@pytest.mark.parametrize(("values", "problem"), [
    ({"name": "", "host": "a"}, "Give the computer a name."),
    ({"name": "known", "host": "a"}, "There is a computer called known already."),
    ({"name": "two words", "host": "a"}, "cannot be the name of a target"),
    ({"name": "box", "host": ""}, "Give the host"),
    ({"name": "box", "host": "-oProxyCommand=x"}, "cannot be a host"),
    ({"name": "local", "host": "a"}, None),
])
def test_what_cannot_be_a_computer_is_explained_and_the_form_stays_open(dialog, fill, unchecked, said, values, problem):
    add_target(Target("known", "ssh", "elsewhere"))
    dialog.update()
    forms = fill(lambda form: enter(form, **values))
    dialog.addButton.click()
    if problem is None:  # found when it is kept
        assert "local is always this computer" in said[-1]
    else:
        assert problem in forms[0].problemLabel.text and not forms[0].problemLabel.isHidden()
    assert [target.name for target in list_targets()] == ["local", "known"]


def test_a_computer_is_forgotten_only_after_a_yes(dialog, said):
    add_target(CLUSTER)
    dialog.update()
    said.answer = False
    dialog.removeButton.click()
    assert find_target("cluster") is not None and dialog.told == []
    said.answer = True
    dialog.removeButton.click()
    assert "Forget the computer cluster?" in said[-1] and find_target("cluster") is None
    assert dialog.told == [1] and dialog.emptyLabel.visible


def test_a_damaged_list_is_told_and_nothing_is_written_over_it(dialog, fill, unchecked, said):
    targets_file().parent.mkdir(parents=True, exist_ok=True)
    targets_file().write_text("{")
    dialog.update()
    assert str(targets_file().name) in dialog.check.label.text
    fill(lambda form: enter(form, name="gpu-box", host="a"))
    dialog.addButton.click()
    assert "was not changed" in said[-1] and targets_file().read_text() == "{"


@pytest.mark.alone
def test_each_failure_is_shown_with_its_remedy_and_the_loop_is_never_held(dialog, qt_application, monkeypatch):
    def slowly(target):
        yield Check("connection", "ok", "gpu-box answers")
        time.sleep(0.3)
        yield Check("clock", "warning", "is 5 minutes ahead", "Set the clock.")
        yield Check("GPU", "failed", "<b>none</b>", "Install its driver.", "no GPU")

    monkeypatch.setattr("MedMAETrainLib.Panel.TargetCheck.findings", slowly)
    add_target(Target("gpu-box", "ssh", "gpu-box"))
    dialog.update()
    began = time.monotonic()
    dialog.checkButton.click()
    assert time.monotonic() - began < 0.1
    until(qt_application, lambda: "gpu-box answers" in dialog.check.text.toPlainText())
    assert dialog.check.isBusy, "findings come one by one"
    until(qt_application, lambda: not dialog.check.isBusy)
    assert [line for line in dialog.check.text.toPlainText().split("\n") if line] == [
        "✓", "connection", "gpu-box answers", "!", "clock", "is 5 minutes ahead", "To do: Set the clock.", "✗", "GPU",
        "<b>none</b>", "To do: Install its driver."]
    assert dialog.check.isReady is False and "not ready yet" in dialog.check.label.text


def test_a_check_can_be_cancelled_and_the_next_one_shows_its_own_findings_only(dialog, qt_application, monkeypatch):
    release = threading.Event()

    def waiting(target):
        if target.name == "slow":
            release.wait(10)
        yield Check("connection", "ok", target.name)

    monkeypatch.setattr("MedMAETrainLib.Panel.TargetCheck.findings", waiting)
    for name in ("quick", "slow"):
        add_target(Target(name, "ssh", name))
    dialog.update("slow")
    dialog.checkButton.click()
    dialog.checkButton.click()
    assert not dialog.check.isBusy and dialog.check.label.text == "Cancelled."
    dialog.list.setCurrentRow(0)
    dialog.checkButton.click()
    release.set()
    until(qt_application, lambda: not dialog.check.isBusy)
    assert [finding.finding for finding in dialog.check.findings] == ["quick"]


@pytest.fixture
def sshd(tmp_path, monkeypatch):
    if find_sshd() is None:
        pytest.skip("needs sshd; on Debian and Ubuntu: make system, as root")
    server = SshServer(tmp_path, find_sshd())
    server.start()
    monkeypatch.setenv("MEDMAE_SSH_CONFIG", str(server.config))
    yield server
    server.stop()


@pytest.fixture
def stranger(sshd, dialog, tmp_path):
    """A computer whose host key nobody knows; its libraries are not looked at, which takes long."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    add_target(Target("stranger", "ssh", STRANGER, folder=str(tmp_path / "there"), python=sys.executable,
                      wheelhouse=str(wheels), gpus=0))
    dialog.update()
    return sshd


@pytest.mark.remote
def test_an_unknown_host_key_is_shown_and_never_accepted_without_a_yes(dialog, stranger, said, qt_application):
    said.answer = False
    dialog.checkButton.click()
    until(qt_application, lambda: not dialog.check.isBusy, 60)
    assert "SHA256:" in said[-1] and STRANGER in said[-1] and "administrator" in said[-1]
    assert "was not accepted. Nothing was sent." in dialog.check.label.text
    assert not ssh.known_hosts_file().exists() and stranger.logins() == 0
    said.answer = True
    dialog.checkButton.click()
    until(qt_application, lambda: not dialog.check.isBusy, 60)
    assert dialog.check.isReady, [(finding.name, finding.finding) for finding in dialog.check.findings]
    assert "ssh-ed25519" in ssh.known_hosts_file().read_text()
    asked = len(said)
    dialog.checkButton.click()
    until(qt_application, lambda: not dialog.check.isBusy, 60)
    assert dialog.check.isReady and len(said) == asked, "once is enough"


@pytest.mark.remote
def test_images_that_no_run_needs_are_deleted_there_after_a_yes(dialog, sshd, said, tmp_path, qt_application):
    add_target(Target("box", "ssh", HOST, folder=str(tmp_path / "there"), python=sys.executable, gpus=0))
    blob = tmp_path / "there" / "data" / "ab" / ("ab" * 32 + ".nrrd")
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(2_500_000))
    dialog.update()
    said.answer = False
    dialog.cleanButton.click()
    assert "no run there needs" in said[-1] and not dialog.check.isBusy and blob.exists()
    said.answer = True
    dialog.cleanButton.click()
    assert not dialog.cleanButton.enabled
    until(qt_application, lambda: not dialog.check.isBusy, 60)
    assert dialog.check.label.text == "Files deleted there: 1 (3 MB). Still needed by runs: 0 (0 MB)."
    assert not blob.exists()


@pytest.mark.remote
def test_a_computer_that_is_not_there_is_told_with_what_to_do(dialog, sshd, qt_application):
    sshd.stop()
    add_target(Target("off", "ssh", HOST, gpus=0))
    dialog.update()
    dialog.checkButton.click()
    until(qt_application, lambda: not dialog.check.isBusy, 60)
    (finding,) = dialog.check.findings
    assert finding.code == "refused" and finding.remedy in dialog.check.text.toPlainText()
    assert dialog.check.isReady is False
