"""The dialog in which series of Slicer's DICOM database are chosen."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any

import qt
from MedMAESegmentLib.Application import newTimer
from slicer.i18n import tr as _

from MedMAETrainLib.Panel.Form import FormDialog
from MedMAETrainLib.ProjectSource import database

NO_IMAGES = {"SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "PR", "KO", "REG", "RWV", "FID", "DOC", "ECG",
             "HD", "AU", "PLAN"}
_AT_ONCE_S = 0.03  # of listing, before the application may react again


def whyNoDicom() -> str:
    """Why no series can be chosen; "" where they can."""
    dicom = database()
    if dicom is None:
        return _("Slicer's DICOM database is not open. Open the module DICOM once, then choose series here.")
    return "" if list(dicom.patients()) else _(
        "Slicer's DICOM database is empty. Import DICOM files with the module DICOM, then choose series here; or add "
        "the folder with the files.")


class DicomDialog(FormDialog):
    """Patients with their studies and series; the list is filled in little by little, and can be searched.

    >>> dialog = DicomDialog(known={"1.2.3"})
    >>> dialog.chosen if dialog.show() else []
    """

    def __init__(self, known: Collection[str]) -> None:
        """`known` are the series that are cases already."""
        super().__init__(_("Series of the DICOM database"), _("Add"), 560, 460)
        self._known = known
        self._series: list[tuple[str, Any, str]] = []  # UID, item, what is searched
        self.searchEdit = qt.QLineEdit()
        self.searchEdit.placeholderText = _("Search patients, studies, series")
        self.searchEdit.clearButtonEnabled = True
        self.tree = qt.QTreeWidget()
        self.tree.setHeaderLabels([_("Patient, study, series"), _("Modality"), _("Images")])
        header = self.tree.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        self.layout.addWidget(self.searchEdit)
        self.layout.addWidget(self.tree, 1)
        self.countLabel = self.addText("")
        self.searchEdit.textChanged.connect(self.onSearch)
        self.tree.itemChanged.connect(self._onItemChanged)
        self._rows = self._listed(database())
        self._timer = newTimer()
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._fill)
        self._timer.start()
        self._fill()

    @property
    def chosen(self) -> list[str]:
        """The UIDs of the series that are checked and in view."""
        return [uid for uid, item, _searched in self._series
                if item.checkState(0) == qt.Qt.Checked and not item.isHidden()]

    def show(self) -> bool:
        """Ask; whether the user wants the series."""
        isWanted = super().show()
        self._timer.stop()
        return isWanted

    def onSearch(self, text: str = "") -> None:
        """Show the series that have every word of the text in their names or in those of their study or patient."""
        words = str(self.searchEdit.text).casefold().split()
        for _uid, item, searched in self._series:
            item.setHidden(not all(word in searched for word in words))
        for row in range(self.tree.topLevelItemCount):
            patient = self.tree.topLevelItem(row)
            studies = [patient.child(number) for number in range(patient.childCount())]
            for study in studies:
                study.setHidden(all(study.child(number).isHidden() for number in range(study.childCount())))
            patient.setHidden(all(study.isHidden() for study in studies))
        self._count()

    def _fill(self) -> None:
        end = time.monotonic() + _AT_ONCE_S
        wasBlocked = self.tree.blockSignals(True)
        isAll = True
        for _series in self._rows:
            if time.monotonic() > end:
                isAll = False
                break
        self.tree.blockSignals(wasBlocked)
        if isAll:
            self._timer.stop()
        self.onSearch()

    def _listed(self, dicom: Any) -> Iterator[str]:
        """Add one series after the other to the tree."""
        for patientId in dicom.patients():
            patient = _item([dicom.nameForPatient(patientId) or _("Patient without a name"), "", ""])
            self.tree.addTopLevelItem(patient)
            for studyUID in dicom.studiesForPatient(patientId):
                title = " ".join(part for part in (dicom.fieldForStudy("StudyDate", studyUID),
                                                   dicom.descriptionForStudy(studyUID)) if part)
                study = _item([title or _("Study without a name"), "", ""])
                patient.addChild(study)
                for uid in dicom.seriesForStudy(studyUID):
                    self._addSeries(dicom, uid, study, f"{patient.text(0)} {study.text(0)}")
                    yield uid
                if not study.childCount():
                    patient.removeChild(study)
            if not patient.childCount():
                self.tree.takeTopLevelItem(self.tree.indexOfTopLevelItem(patient))
            elif patient.childCount() == 1:
                patient.setExpanded(True)
                patient.child(0).setExpanded(True)

    def _addSeries(self, dicom: Any, uid: str, study: Any, above: str) -> None:
        modality = dicom.fieldForSeries("Modality", uid) or ""
        if modality.upper() in NO_IMAGES:
            return
        title = dicom.descriptionForSeries(uid) or _("Series without a name")
        isKnown = uid in self._known
        shown = _("{series} (in the project)").format(series=title) if isKnown else title
        item = _item([shown, modality, str(len(dicom.filesForSeries(uid)))])
        if isKnown:
            item.setFlags(qt.Qt.NoItemFlags)
        study.addChild(item)
        self._series.append((uid, item, f"{above} {title} {modality}".casefold()))

    def _onItemChanged(self, item: Any, column: int) -> None:
        """A patient or study that is checked checks the series in view below it."""
        wasBlocked = self.tree.blockSignals(True)
        for each in _below(item):
            if not each.isHidden() and each.flags() & qt.Qt.ItemIsEnabled:
                each.setCheckState(0, item.checkState(0))
        self.tree.blockSignals(wasBlocked)
        self._count()

    def _count(self) -> None:
        self._showGroups()
        count = len(self.chosen)
        self.countLabel.text = _("{count} series chosen. Segmentations, reports and plans are not listed.").format(
            count=count)
        self.okButton.enabled = count > 0

    def _showGroups(self) -> None:
        wasBlocked = self.tree.blockSignals(True)
        for row in range(self.tree.topLevelItemCount):
            patient = self.tree.topLevelItem(row)
            for number in range(patient.childCount()):
                _showGroup(patient.child(number))
            _showGroup(patient)
        self.tree.blockSignals(wasBlocked)


def _showGroup(item: Any) -> None:
    """A group is checked when all that is in view below it is, and partly when some is."""
    states = {item.child(number).checkState(0) for number in range(item.childCount())
              if not item.child(number).isHidden() and item.child(number).flags() & qt.Qt.ItemIsEnabled}
    item.setCheckState(0, states.pop() if len(states) == 1 else (
        qt.Qt.PartiallyChecked if states else qt.Qt.Unchecked))


def _below(item: Any) -> Iterator[Any]:
    for number in range(item.childCount()):
        yield item.child(number)
        yield from _below(item.child(number))


def _item(texts: list[str]) -> Any:
    item = qt.QTreeWidgetItem()
    for column, text in enumerate(texts):
        item.setText(column, text)
    item.setTextAlignment(2, qt.Qt.AlignRight | qt.Qt.AlignVCenter)
    item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
    item.setCheckState(0, qt.Qt.Unchecked)
    return item
