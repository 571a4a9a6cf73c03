"""Widgets bound to parameters, base classes of modules, translation: what holds for Slicer's own and the stand-ins."""
# No postponed annotations here: the wrapper could not look up types that are defined in a test.

import gc
import sys
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated

import pytest
import slicer
import vtk


class Size(Enum):
    S = 1
    L = 2

    def label(self):
        return {"S": "small", "L": "large"}[self.name]


class Plain(Enum):
    FIRST = 1
    SECOND = 2


@pytest.fixture
def parameters(base_python, scene):
    """Parameters that widgets can show."""
    @base_python.parameterNodeWrapper
    class Parameters:
        flag: bool
        number: int
        limited: Annotated[int, base_python.WithinRange(1, 10)] = 5
        share: float
        part: Annotated[float, base_python.WithinRange(0, 1)] = 0.25
        text: str
        size: Size
        plain: Plain = Plain.SECOND
        image: slicer.vtkMRMLScalarVolumeNode
        either: slicer.vtkMRMLScalarVolumeNode | slicer.vtkMRMLSegmentationNode | None

    return Parameters(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))


@pytest.fixture
def ui(qt_application, scene):
    """A widget for each of them, and one that shows none."""
    import qt

    classes = {"flag": qt.QCheckBox, "number": qt.QSpinBox, "limited": qt.QSpinBox, "share": qt.QDoubleSpinBox,
               "part": qt.QDoubleSpinBox, "text": qt.QLineEdit, "size": qt.QComboBox, "plain": qt.QComboBox,
               "image": slicer.qMRMLNodeComboBox, "either": slicer.qMRMLNodeComboBox}
    ui = SimpleNamespace(unbound=qt.QLabel(), **{name: cls() for name, cls in classes.items()})
    for name in classes:
        getattr(ui, name).setProperty("SlicerParameterName", name)
    for box in (ui.image, ui.either):
        box.noneEnabled = True
        box.setMRMLScene(scene)
    return ui


@pytest.fixture
def image(scene):
    return scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "an image")


def shown(ui):
    return (ui.flag.checked, ui.number.value, ui.limited.value, ui.share.value, ui.part.value, ui.text.text,
            ui.size.currentText, ui.plain.currentText, ui.image.currentNode(), ui.either.currentNode())


def test_widgets_show_their_parameters_and_what_is_written_later(parameters, ui, image):
    parameters.text = "before"
    parameters.connectGui(ui)
    assert shown(ui) == (False, 0, 5, 0.0, 0.25, "before", "small", "SECOND", None, None)
    parameters.flag, parameters.number, parameters.limited, parameters.share = True, -7, 1, -0.5
    parameters.part, parameters.text, parameters.size, parameters.plain = 1.0, "after", Size.L, Plain.FIRST
    parameters.image = parameters.either = image
    assert shown(ui) == (True, -7, 1, -0.5, 1.0, "after", "large", "FIRST", image, image)


def test_what_is_entered_is_written(parameters, ui, image):
    parameters.connectGui(ui)
    ui.flag.click()
    ui.number.setValue(-4)
    ui.limited.setValue(99)
    ui.share.setValue(2.5)
    ui.part.setValue(-1.0)
    ui.text.setText("typed")
    ui.size.setCurrentIndex(1)
    ui.plain.setCurrentIndex(0)
    ui.image.setCurrentNode(image)
    ui.either.setCurrentNode(image)
    assert (parameters.flag, parameters.number, parameters.limited, parameters.share, parameters.part) == (
        True, -4, 10, 2.5, 0.0)
    assert (parameters.text, parameters.size, parameters.plain) == ("typed", Size.L, Plain.FIRST)
    assert parameters.image is image and parameters.either is image
    ui.either.setCurrentNode(None)
    assert parameters.either is None and parameters.image is image


def test_entering_a_value_is_told_once(parameters, ui):
    parameters.connectGui(ui)
    seen = []
    parameters.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: seen.append(parameters.number))
    ui.number.setValue(3)
    assert seen == [3]


def test_after_disconnecting_neither_follows_the_other(parameters, ui, image):
    tag = parameters.connectGui(ui)
    parameters.disconnectGui(tag)
    before = shown(ui)
    parameters.number, parameters.text, parameters.image = 9, "new", image
    assert shown(ui) == before
    ui.flag.click()
    ui.text.setText("typed")
    assert (parameters.flag, parameters.text) == (False, "new")
    parameters.disconnectGui(tag)  # once more does no harm


def test_it_can_be_connected_again(parameters, ui):
    for _ in range(2):
        tag = parameters.connectGui(ui)
        parameters.disconnectGui(tag)
    parameters.connectGui(ui)
    ui.number.setValue(3)
    assert parameters.number == 3


def test_what_a_widget_rounds_is_kept_as_it_is(parameters, ui):
    parameters.connectGui(ui)
    parameters.share = 0.12345
    assert ui.share.value == 0.12 and parameters.share == 0.12345


def test_nothing_is_left_at_the_node_after_disconnecting(base_python, scene, ui):
    @base_python.parameterNodeWrapper
    class Parameters:
        flag: bool

    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    parameters = Parameters(node)
    parameters.disconnectGui(parameters.connectGui(SimpleNamespace(flag=ui.flag)))
    del parameters
    gc.collect()
    assert not node.HasObserver(vtk.vtkCommand.ModifiedEvent)


def test_widgets_get_the_range_of_their_parameter(parameters, ui):
    parameters.connectGui(ui)
    assert (ui.limited.minimum, ui.limited.maximum, ui.part.minimum, ui.part.maximum) == (1, 10, 0, 1)
    assert (ui.number.minimum, ui.number.maximum) == (-2**31, 2**31 - 1)
    assert ui.share.maximum > 1e300 and ui.share.minimum < -1e300


def test_node_selectors_offer_the_kinds_of_their_parameter(parameters, ui):
    parameters.connectGui(ui)
    assert list(ui.image.nodeTypes) == ["vtkMRMLScalarVolumeNode"]
    assert list(ui.either.nodeTypes) == ["vtkMRMLScalarVolumeNode", "vtkMRMLSegmentationNode"]


def test_the_cursor_stays_where_somebody_types(parameters, ui):
    parameters.connectGui(ui)
    ui.text.setText("abc")
    ui.text.setCursorPosition(1)
    ui.text.insert("x")
    assert parameters.text == "axbc" and ui.text.cursorPosition == 2


def test_a_widget_of_an_unknown_parameter_is_refused(parameters, ui):
    ui.flag.setProperty("SlicerParameterName", "speed")
    with pytest.raises(ValueError, match="speed"):
        parameters.connectGui(ui)


@pytest.mark.parametrize(("widget", "parameter"), [
    ("flag", "text"), ("number", "share"), ("text", "number"), ("size", "text"), ("image", "text"), ("text", "flag"),
    ("number", "flag"), ("unbound", "flag")])
def test_a_widget_that_cannot_show_its_parameter_is_refused(parameters, ui, widget, parameter):
    getattr(ui, widget).setProperty("SlicerParameterName", parameter)
    with pytest.raises((RuntimeError, TypeError)):  # Slicer asks some of its connectors whether str is an Enum
        parameters.connectGui(SimpleNamespace(widget=getattr(ui, widget)))


@pytest.fixture
def module(base_python, qt_application, monkeypatch, tmp_path, application):
    """A scripted module as Slicer finds it in a file, with an icon."""
    import qt

    (tmp_path / "Resources" / "Icons").mkdir(parents=True)
    picture = qt.QImage(4, 4, qt.QImage.Format_RGB32)
    picture.fill(qt.Qt.red)
    assert picture.save(str(tmp_path / "Resources" / "Icons" / "Small.png"))
    slots = {}
    monkeypatch.setattr(slicer.app, "moduleManager", lambda: SimpleNamespace(
        connect=slots.__setitem__, disconnect=lambda signal, slot: slots.pop(signal)))
    monkeypatch.setattr(slicer, "selfTests", {}, raising=False)

    class Small(base_python.ScriptedLoadableModule):
        pass

    class SmallWidget(base_python.ScriptedLoadableModuleWidget, slicer.util.VTKObservationMixin):
        isClosed = False

        def cleanup(self):
            self.isClosed = True

    class SmallLogic(base_python.ScriptedLoadableModuleLogic):
        pass

    class SmallTest(base_python.ScriptedLoadableModuleTest):
        ran = []

        def setUp(self):
            self.ran.append("setUp")

        def tearDown(self):
            self.ran.append("tearDown")

        def test_one(self):
            self.ran.append("one")

        def test_two(self):
            self.ran.append("two")
            self.delayDisplay("done")

    python = ModuleType("Small")
    for cls in (Small, SmallWidget, SmallLogic, SmallTest):
        cls.__module__ = "Small"
        setattr(python, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "Small", python)
    SmallTest.ran = []
    descriptor = SimpleNamespace(path=str(tmp_path / "Small.py"))
    monkeypatch.setattr(slicer.modules, "small", descriptor, raising=False)
    return SimpleNamespace(descriptor=descriptor, slots=slots, folder=tmp_path, module=Small(descriptor), python=python)


def test_a_module_begins_with_an_empty_description_its_icon_and_its_self_test(module):
    descriptor = module.descriptor
    assert (descriptor.title, descriptor.categories, descriptor.dependencies) == ("", [], [])
    assert module.module.moduleName == "Small" and module.module.parent is descriptor
    assert not descriptor.icon.isNull()
    assert module.module.resourcePath("UI/Small.ui") == str(module.folder / "Resources" / "UI" / "Small.ui")
    slicer.selfTests["Small"]()
    assert module.python.SmallTest.ran == ["setUp", "one", "tearDown", "setUp", "two", "tearDown"]


def test_a_message_of_the_self_test_is_shown_for_the_time_that_the_caller_gives(module, monkeypatch):
    delays = []
    monkeypatch.setattr(slicer.util, "delayDisplay", lambda message, milliseconds: delays.append(milliseconds))
    test = module.python.SmallTest()
    test.delayDisplay("a")
    test.delayDisplay("b", 7)
    test.delayDisplay("c", 7, 8)
    module.module.runTest()
    module.module.runTest(msec=9)
    assert delays == [100, 7, 8, 100, 9]


def test_a_panel_lies_in_the_widget_that_it_is_given_and_is_closed_with_its_module(module, qt_application):
    import qt

    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    panel = module.python.SmallWidget(parent)
    panel.setup()
    assert panel.parent is parent and panel.layout is parent.layout() and panel.layout.count() == 0
    assert panel.moduleName == "Small" and panel.developerMode is False
    assert panel.resourcePath("UI/Small.ui") == str(module.folder / "Resources" / "UI" / "Small.ui")
    assert panel.Observations == [], "mixins are set up as well"
    (aboutToBeUnloaded,) = module.slots.values()
    aboutToBeUnloaded("Another")
    assert not panel.isClosed and module.slots
    aboutToBeUnloaded("Small")
    assert panel.isClosed and not module.slots


def test_the_scene_has_one_parameter_node_of_a_module(module, scene, application):
    logic = module.python.SmallLogic()
    node = logic.getParameterNode()
    assert node.GetScene() is scene and node.GetClassName() == "vtkMRMLScriptedModuleNode"
    assert (node.GetSingletonTag(), node.GetAttribute("ModuleName"), node.GetName()) == ("Small", "Small", "Small")
    assert logic.getParameterNode() is node is module.python.SmallLogic().getParameterNode()
    node.RemoveAttribute("ModuleName")
    assert logic.getParameterNode().GetAttribute("ModuleName") == "Small"
    node.SetParameter("speed", "fast")
    application.clear()
    assert not logic.getParameterNode().HasParameter("speed")
    assert logic.getParameterNode().GetAttribute("ModuleName") == "Small"


def test_a_parameter_node_that_nobody_takes_goes_away(module):
    node = module.python.SmallLogic().createParameterNode()
    assert node.GetScene() is None and node.GetReferenceCount() == 1


@pytest.fixture
def translator(qt_application, monkeypatch):
    """What the translator of the application gives: translator["text"] = "Text"; and which contexts it is asked for."""
    known, contexts = {}, []

    def translate(context, text):
        contexts.append(context)
        return known.get(text, text)

    monkeypatch.setattr(slicer.app, "translate", translate, raising=False)
    return SimpleNamespace(known=known, contexts=contexts)


def test_texts_are_translated_in_the_context_of_their_file(base_python, translator, tmp_path):
    translator.known["Idle"] = "Untätig"
    assert base_python.tr("Idle") == base_python.translate("Other", "Idle") == "Untätig"
    assert base_python.tr("unknown") == "unknown"
    (tmp_path / "Panel").mkdir()
    for name in ("__init__.py", "Page.py"):
        (tmp_path / "Panel" / name).write_text("text = tr('Idle')")
    page = tmp_path / "Panel" / "Page.py"
    exec(compile(page.read_text(), str(page), "exec"), {"tr": base_python.tr})
    assert translator.contexts == [Path(__file__).stem, "Other", Path(__file__).stem, "Panel.Page"]


@pytest.mark.parametrize(("translation", "isTaken"), [
    ("{count} Dateien löschen", True), ("{zahl} Dateien löschen", False), ("Dateien löschen", False),
    ("{count} von {all} Dateien", False)])
def test_a_translation_that_has_lost_what_is_filled_in_is_not_taken(base_python, translator, translation, isTaken):
    translator.known["Delete {count} files"] = translation
    assert base_python.tr("Delete {count} files") == (translation if isTaken else "Delete {count} files")
