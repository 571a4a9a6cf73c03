"""Parameter nodes: what holds for Slicer's own wrapper holds for the stand-in that the panel tests use without it."""
# No postponed annotations here: the wrapper could not look up types that are defined in a test.

import gc
from enum import Enum
from typing import Annotated, Optional, Union

import pytest
import slicer
import vtk
from panel_fixtures import NEEDS_SOURCE


class Mode(Enum):
    QUICK = "q"
    THOROUGH = "t"


@pytest.fixture
def make_class(base_python):
    return lambda: parameter_class(base_python)


def parameter_class(base_python):
    """A class with a parameter of every kind, decorated anew."""
    @base_python.parameterNodeWrapper
    class Parameters:
        flag: bool
        number: int
        share: float
        text: str
        mode: Mode
        image: slicer.vtkMRMLScalarVolumeNode
        either: slicer.vtkMRMLScalarVolumeNode | slicer.vtkMRMLSegmentationNode | None
        one: Optional[slicer.vtkMRMLSegmentationNode]  # noqa: UP045 - other people write it so
        images: list[slicer.vtkMRMLVolumeNode]
        names: list[str]
        isOn: bool = True
        limited: Annotated[int, base_python.WithinRange(1, 10)] = 5
        part: Annotated[float, base_python.WithinRange(0, 1)] = 0.25
        word: str = "automatic"
        chosen: Mode = Mode.THOROUGH

        def both(self):
            return [self.image, self.text]

    return Parameters


@pytest.fixture
def node(scene):
    return scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")


@pytest.fixture
def parameters(make_class, node):
    return make_class()(node)


@pytest.fixture
def nodes(scene):
    """Nodes to choose: an image, a label map (which is also an image) and a segmentation."""
    return [scene.AddNewNodeByClass(f"vtkMRML{kind}Node", kind) for kind in (
        "ScalarVolume", "LabelMapVolume", "Segmentation")]


def count(node):
    events = []
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: events.append("modified"))
    return events


def texts(node):
    """All that a node has been told: its texts and its references."""
    return ({name: node.GetParameter(name) for name in node.GetParameterNames()},
            {node.GetNthNodeReferenceRole(n): node.GetNodeReferenceID(node.GetNthNodeReferenceRole(n))
             for n in range(node.GetNumberOfNodeReferenceRoles())})


def values(parameters):
    """Every value, lists as plain ones."""
    return {name: list(value) if name in ("images", "names") else value
            for name in ("flag", "number", "share", "text", "mode", "image", "either", "one", "images", "names", "isOn",
                         "limited", "part", "word", "chosen")
            for value in [getattr(parameters, name)]}


def fill(parameters, nodes):
    image, labels, segmentation = nodes
    parameters.flag, parameters.number, parameters.share, parameters.text = True, -3, 0.1, "a <b>"
    parameters.mode, parameters.image, parameters.either, parameters.one = Mode.THOROUGH, labels, image, segmentation
    parameters.either = segmentation
    parameters.images, parameters.names = [image, labels, image], ["x", "", "z"]
    parameters.isOn, parameters.limited, parameters.part = False, 10, 1
    parameters.word, parameters.chosen = "", Mode.QUICK


def test_parameters_have_the_defaults_that_are_given_or_those_of_their_type(parameters):
    assert values(parameters) == {
        "flag": False, "number": 0, "share": 0.0, "text": "", "mode": Mode.QUICK, "image": None, "either": None,
        "one": None, "images": [], "names": [], "isOn": True, "limited": 5, "part": 0.25, "word": "automatic",
        "chosen": Mode.THOROUGH}
    assert [type(value) for value in (parameters.number, parameters.share, parameters.flag)] == [int, float, bool]


def test_what_is_written_is_read_there_and_by_others(make_class, parameters, node, nodes):
    fill(parameters, nodes)
    image, labels, segmentation = nodes
    for reader in (parameters, make_class()(node)):
        assert values(reader) == {
            "flag": True, "number": -3, "share": 0.1, "text": "a <b>", "mode": Mode.THOROUGH, "image": labels,
            "either": segmentation, "one": segmentation, "images": [image, labels, image], "names": ["x", "", "z"],
            "isOn": False, "limited": 10, "part": 1.0, "word": "", "chosen": Mode.QUICK}
        assert type(reader.part) is float and type(reader.limited) is int
        assert reader.both() == [labels, "a <b>"], "methods of the class stay"


@pytest.mark.parametrize(("name", "value", "error"), [
    ("flag", 1, TypeError), ("flag", None, ValueError), ("flag", "True", TypeError),
    ("number", 1.0, TypeError), ("number", "1", TypeError), ("number", None, ValueError),
    ("share", "0.5", TypeError), ("share", None, ValueError), ("text", 1, TypeError), ("text", None, ValueError),
    ("mode", "QUICK", TypeError), ("mode", "q", TypeError), ("image", "Segmentation", TypeError),
    ("image", 1, TypeError), ("either", "", TypeError), ("one", "ScalarVolume", TypeError), ("images", None, TypeError),
    ("images", ["ScalarVolume", "Segmentation"], TypeError), ("names", ["a", 1], TypeError),
    ("names", ["a", None], ValueError), ("limited", 0, ValueError), ("limited", 11, ValueError),
    ("limited", 5.0, TypeError), ("part", -0.001, ValueError), ("part", 1.001, ValueError), ("part", "1", TypeError)])
def test_what_does_not_fit_is_refused_and_changes_nothing(parameters, node, nodes, name, value, error):
    fill(parameters, nodes)
    stored, before = texts(node), values(parameters)
    named = {each.GetName(): each for each in nodes}
    value = [named.get(each, each) for each in value] if isinstance(value, list) else named.get(value, value)
    with pytest.raises(error):
        setattr(parameters, name, value)
    assert (texts(node), values(parameters)) == (stored, before)


def test_a_default_outside_of_its_range_is_refused(base_python, node):
    @base_python.parameterNodeWrapper
    class Parameters:
        limited: Annotated[int, base_python.WithinRange(1, 10)]

    with pytest.raises(ValueError, match="1"):
        Parameters(node)


def test_a_union_without_none_has_no_default(base_python, node):
    @base_python.parameterNodeWrapper
    class Parameters:
        either: Union[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode]  # noqa: UP007 - old spelling

    with pytest.raises(TypeError):
        Parameters(node)


@pytest.mark.parametrize(("name", "text"), [("number", "many"), ("share", ""), ("limited", "5.0"), ("mode", "q"),
                                            ("chosen", "SLOW"), ("images.len", "several")])
def test_texts_of_another_version_that_mean_nothing_are_an_error(make_class, node, name, text):
    node.SetParameter(name, text)
    with pytest.raises(ValueError, match=text or "float"):
        make_class()(node)


def test_texts_are_not_held_to_ranges_and_nodes_not_to_kinds_when_they_are_read(make_class, node, nodes):
    for name, text in (("limited", "99"), ("flag", "maybe"), ("share", "3"), ("image", "")):
        node.SetParameter(name, text)
    node.SetNodeReferenceID("image", nodes[2].GetID())
    parameters = make_class()(node)
    assert (parameters.limited, parameters.flag, parameters.share) == (99, False, 3.0)
    assert parameters.image is nodes[2]


def test_a_node_that_is_removed_from_the_scene_is_none(parameters, scene, nodes):
    fill(parameters, nodes)
    image, labels, segmentation = nodes
    scene.RemoveNode(image)
    scene.RemoveNode(segmentation)
    assert parameters.images == [None, labels, None] and parameters.image is labels
    assert parameters.either is None and parameters.one is None


def test_a_union_keeps_one_node_only(parameters, node, nodes):
    for value in (nodes[0], nodes[2], nodes[1], None):
        parameters.either = value
        assert parameters.either is value
        stored, references = texts(node)
        assert len([name for name in stored if name.startswith("either")]) == 1
        assert len([role for role, target in references.items() if role.startswith("either") and target]) == bool(value)


def test_a_list_is_written_whenever_it_is_changed(make_class, parameters, node):
    names = parameters.names
    names.append("b")
    names.extend(["c", "d"])
    names.insert(0, "a")
    names[1] = "B"
    del names[2]
    assert names == ["a", "B", "d"] == list(names) and names[-1] == "d" and len(names) == 3 and "B" in names
    assert make_class()(node).names == ["a", "B", "d"] and parameters.names == ["a", "B", "d"]
    parameters.names += ["e"]
    assert names.pop() == "d" and parameters.names == ["a", "B"], "a list that was held has its own view"
    parameters.names.clear()
    assert list(make_class()(node).names) == []
    assert [name for name in texts(node)[0] if name.startswith("names")] == ["names.len"], "nothing is left over"


def test_an_element_that_does_not_fit_leaves_the_list_as_it_was(parameters, nodes):
    parameters.images = nodes[:2]
    images = parameters.images
    with pytest.raises(TypeError):
        images.append(nodes[2])
    assert images == nodes[:2] == parameters.images


def test_one_change_is_told_once_and_after_it_is_made(parameters, node, nodes):
    seen = []
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: seen.append((parameters.number, len(parameters.names))))
    parameters.number = 7
    parameters.names = ["a", "b", "c"]
    parameters.number, parameters.names = 7, ["a", "b", "c"]  # as they are
    assert seen == [(7, 0), (7, 3)]
    with slicer.util.NodeModify(parameters):
        parameters.number = 8
        parameters.names = ["a"]
    assert seen[2:] == [(8, 1)]
    parameters.image = parameters.either = nodes[0]
    events = count(node)
    parameters.image = nodes[0]
    assert events == []
    parameters.either = nodes[0]
    assert events == ["modified"], "a union is taken out and put in again"


def test_what_others_write_into_the_node_is_seen(make_class, parameters, node, nodes):
    other = make_class()(node)
    fill(other, nodes)
    assert values(parameters) == values(other)
    node.UnsetParameter("word")
    assert parameters.word == "automatic" == node.GetParameter("word")


def test_it_is_observed_as_a_node_is(parameters):
    class Observer(slicer.util.VTKObservationMixin):
        def __init__(self):
            super().__init__()
            self.calls = []

        def update(self, caller=None, event=None):
            self.calls.append(event)

    observer = Observer()
    observer.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, observer.update)
    parameters.number = 1
    parameters.Modified()
    assert observer.calls == ["ModifiedEvent", "ModifiedEvent"]
    observer.removeObserver(parameters, vtk.vtkCommand.ModifiedEvent, observer.update)
    parameters.number = 2
    assert len(observer.calls) == 2


def test_it_does_not_observe_its_node_any_longer_than_it_lives(make_class, node):
    parameters = make_class()(node)
    assert node.HasObserver(vtk.vtkCommand.ModifiedEvent)
    del parameters
    gc.collect()
    assert not node.HasObserver(vtk.vtkCommand.ModifiedEvent)


@pytest.mark.parametrize("name", ["getValue", "setValue", "connectGui", "disconnectGui", "AddObserver", "Modified",
                                  "default", "dataType", "allParameters", "isCached", "connectParametersToGui"])
def test_names_of_its_own_are_refused(base_python, name):
    with pytest.raises(ValueError, match=name):
        base_python.parameterNodeWrapper(type("Parameters", (), {"__annotations__": {name: int}}))


def saved(scene):
    scene.SetSaveToXMLString(1)
    scene.Commit()
    scene.SetSaveToXMLString(0)
    return scene.GetSceneXMLString()


def opened(scene, text):
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(text)
    scene.Import()
    scene.SetLoadFromXMLString(0)


@pytest.mark.parametrize(("writes", "reads"), [
    ("stand-ins", "stand-ins"), *(pytest.param(*pair, marks=NEEDS_SOURCE) for pair in (
        ("Slicer's own", "Slicer's own"), ("Slicer's own", "stand-ins"), ("stand-ins", "Slicer's own")))])
def test_a_saved_scene_brings_every_value_back(base_python_of, application, scene, node, nodes, writes, reads):
    parameters = parameter_class(base_python_of(writes))(node)
    node.SetName("parameters")
    fill(parameters, nodes)
    expected, text = values(parameters), saved(scene)
    application.clear()
    opened(scene, text)
    found = values(parameter_class(base_python_of(reads))(scene.GetFirstNodeByName("parameters")))
    for name, value in expected.items():  # nodes are others now
        inScene = {id(each): scene.GetFirstNodeByName(each.GetName()) for each in nodes}
        plain = [inScene.get(id(each), each) for each in value] if isinstance(value, list) else inScene.get(
            id(value), value)
        assert found[name] == plain, name


@pytest.mark.slicer_source
@NEEDS_SOURCE[1]
def test_both_leave_the_same_in_the_scene_file(base_python_of, scene, nodes):
    left = []
    for which in ("stand-ins", "Slicer's own"):
        node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
        parameters = parameter_class(base_python_of(which))(node)
        left.append([texts(node)])
        fill(parameters, nodes)
        left[-1].append(texts(node))
        parameters.images, parameters.names, parameters.either, parameters.one = nodes[:1], ["a"], None, None
        left[-1].append(texts(node))
    assert left[0] == left[1]
