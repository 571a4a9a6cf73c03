"""Stand-ins for the widgets of CTK and qMRML that the panels use: same names, same properties, similar looks."""

from __future__ import annotations

from MedMAESegmentLib.Signal import Signal
from PySide6.QtCore import Property, QEvent, QPointF, QRect, Qt
from PySide6.QtGui import QPainter, QPen, QPolygonF
from PySide6.QtWidgets import QComboBox, QPushButton, QWidget

HEADER_HEIGHT = 26


class qMRMLWidget(QWidget):
    """Hands its scene on to every child that takes one, as the connections in the .ui file do in Slicer."""

    def setMRMLScene(self, scene):
        for child in self.findChildren(QWidget):
            if hasattr(child, "setMRMLScene"):
                child.setMRMLScene(scene)


class ctkCollapsibleButton(QWidget):
    """A titled box that folds."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed, self._folded = "", False, []
        self.setContentsMargins(0, HEADER_HEIGHT, 0, 0)

    def _setText(self, text):
        self._text = text

    def _setCollapsed(self, collapsed):
        self._collapsed = collapsed
        self.setMaximumHeight(HEADER_HEIGHT if collapsed else 16777215)
        self._fold()

    def _fold(self):
        """Hide what is in the box, or show it again but for what is hidden in itself."""
        if not self._collapsed:
            for child in self._folded:
                child.show()
            self._folded = []
            return
        for child in self.findChildren(QWidget, options=Qt.FindDirectChildrenOnly):
            if not child.isHidden():
                child.hide()
                self._folded.append(child)

    text = Property(str, lambda self: self._text, _setText)
    collapsed = Property(bool, lambda self: self._collapsed, _setCollapsed)

    def event(self, event):
        if event.type() in (QEvent.Show, QEvent.LayoutRequest) and self._collapsed:
            self._fold()
        return super().event(event)

    def paintEvent(self, event):
        painter = QPainter(self)
        painter.setRenderHint(QPainter.Antialiasing)
        size = self.size
        header = QRect(0, 0, size.width() - 1, HEADER_HEIGHT - 4)
        painter.setPen(QPen(self.palette.mid().color()))
        painter.setBrush(self.palette.button().color().darker(106))
        painter.drawRoundedRect(header, 3, 3)
        painter.setPen(Qt.NoPen)
        painter.setBrush(self.palette.buttonText())
        arrow = [(9, 8), (9, 15), (14, 11.5)] if self._collapsed else [(7, 9), (15, 9), (11, 14)]
        painter.drawPolygon(QPolygonF([QPointF(*point) for point in arrow]))
        painter.setPen(self.palette.buttonText().color())
        painter.drawText(header.adjusted(24, 0, 0, 0), Qt.AlignVCenter | Qt.AlignLeft, self._text)


class qMRMLNodeComboBox(QComboBox):
    """A choice among the nodes of some types in the scene."""

    def __init__(self, parent=None):
        super().__init__(parent)
        # Not a signal of PySide: its emit() (6.12) gives back a True that it does not own, and Python dies at its end.
        self.currentNodeChanged, self.nodeAddedByUser = Signal(), Signal()
        self._scene, self._types, self._none, self._noneDisplay, self._nodes = None, [], False, "None", []
        self._children = self._add = self._remove = self._rename = False
        self.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self.currentIndexChanged.connect(lambda _index: self.currentNodeChanged.emit())

    def _setTypes(self, types):
        self._types = list(types)
        self._update()

    def _setNone(self, enabled):
        self._none = enabled
        self._update()

    def _setNoneDisplay(self, text):
        self._noneDisplay = text
        self._update()

    nodeTypes = Property("QStringList", lambda self: self._types, _setTypes)
    noneEnabled = Property(bool, lambda self: self._none, _setNone)
    noneDisplay = Property(str, lambda self: self._noneDisplay, _setNoneDisplay)
    showChildNodeTypes = Property(bool, lambda self: self._children, lambda self, on: setattr(self, "_children", on))
    addEnabled = Property(bool, lambda self: self._add, lambda self, on: setattr(self, "_add", on))
    removeEnabled = Property(bool, lambda self: self._remove, lambda self, on: setattr(self, "_remove", on))

    renameEnabled = Property(bool, lambda self: self._rename, lambda self, on: setattr(self, "_rename", on))

    def addNode(self):
        """What the entry "Create new ..." of the list does."""
        node = self._scene.AddNewNodeByClass(self._types[0])
        self.nodeAddedByUser.emit(node)
        self.setCurrentNode(node)
        return node

    def setMRMLScene(self, scene):
        self._scene = scene
        tags = [scene.AddObserver(event, lambda *_arguments: self._update())
                for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent)]
        self.destroyed.connect(lambda _widget=None: [scene.RemoveObserver(tag) for tag in tags])
        self._update()

    def currentNode(self):
        index = self.currentIndex
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def setCurrentNode(self, node):
        self._update()
        self.setCurrentIndex(self._nodes.index(node) if node in self._nodes else (0 if self._none else -1))

    def _update(self):
        current = self.currentNode()
        nodes = [None] if self._none else []
        if self._scene is not None:
            everything = (self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes()))
            nodes += [node for node in everything
                      if node.GetClassName() in self._types and not node.GetHideFromEditors()]
        texts = [self._noneDisplay if node is None else node.GetName() for node in nodes]
        if nodes == self._nodes and texts == [self.itemText(index) for index in range(len(nodes))]:
            return
        blocked = self.blockSignals(True)
        self.clear()
        self._nodes = nodes
        self.addItems(texts)
        self.setCurrentIndex(nodes.index(current) if current in nodes else (0 if self._none else -1))
        self.blockSignals(blocked)
        if self.currentNode() is not current:
            self.currentNodeChanged.emit()


class qMRMLSegmentationShow3DButton(QPushButton):
    """Shows the closed surface of a segmentation."""

    def __init__(self, parent=None):
        super().__init__("Show 3D", parent)
        self.segmentationNode = None
        self.clicked.connect(self._show)

    def setSegmentationNode(self, node):
        self.segmentationNode = node

    def _show(self):
        self.segmentationNode.CreateClosedSurfaceRepresentation()


ALL = (qMRMLWidget, ctkCollapsibleButton, qMRMLNodeComboBox, qMRMLSegmentationShow3DButton)
