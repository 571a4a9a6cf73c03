"""Reports: what the pictures show, which way up, at what proportions; and that hostile names stay text."""

import html.parser
import io
import json
import struct

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from medmae.demo.abdomen import LABELS, make_ct
from medmae.errors import BadInput
from medmae.files import write_json
from medmae.metrics import ClassificationCase, classification_scores
from medmae.models import ModelInfo
from medmae.reports import charts, pictures, write_run_report
from medmae.reports.cases import displayed, telling_cases, worst_to_best
from medmae.reports.classification_scores import add_classification_scores
from medmae.reports.drawing import Sheet, distinct, smoothed
from medmae.reports.page import Page, flat
from medmae.reports.score_tables import add_segmentation_scores
from medmae.run_folder import RunFolder
from medmae.volumes import Geometry, Volume

HOSTILE = "<script>alert('x')</script>\"&\u202e$\\frac{1}{0}$/../case"
COLORS = {1: (1.0, 0.0, 0.0), 2: (0.0, 1.0, 0.0)}


class Parsed(html.parser.HTMLParser):
    """The tags, pictures and visible text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.images, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, data):
        self.text += data


def size_of(png):
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


def pixels_of(png):
    from matplotlib.image import imread

    return imread(io.BytesIO(png), format="png")


def result_of(dice):
    cases = [{"image": name, "dice": {"liver": value, "spleen": None}} for name, value in dice]
    return {"task": "segmentation", "mean_dice": 0.5, "dice": {"liver": 0.5, "spleen": None},
            "hd95_mm": {"liver": 3.0, "spleen": None}, "cases": cases}


def test_names_of_any_kind_stay_text_everywhere_on_a_page():
    page = Page(HOSTILE, HOSTILE)
    page.section(HOSTILE)
    page.subsection(HOSTILE)
    page.paragraph(HOSTILE)
    page.warning(HOSTILE)
    page.commands([HOSTILE])
    page.facts({HOSTILE: HOSTILE})
    page.table([HOSTILE], [[HOSTILE]], HOSTILE)
    page.figure(b"png", HOSTILE, HOSTILE, 10)
    page.legend({HOSTILE: (0.1, 0.2, 2.0)}, HOSTILE)
    page.details(HOSTILE, {HOSTILE: {HOSTILE: [HOSTILE]}})
    parsed = Parsed(page.html(HOSTILE))
    assert "script" not in parsed.tags
    assert parsed.images == [{"src": "data:image/png;base64,cG5n", "alt": HOSTILE, "width": "10"}]
    assert parsed.text.count(HOSTILE) >= 16


def test_a_page_loads_nothing_from_elsewhere():
    content = Page("title").html("footer")
    assert "default-src 'none'" in content
    assert "http" not in content.replace("http-equiv", "")


def test_hostile_names_do_not_break_charts_or_overlays():
    assert size_of(charts.dice_boxes({HOSTILE: [0.5, 0.7], "empty": []}, {}).png)
    assert size_of(charts.compared_arms([HOSTILE, "b"], [0.1, None], [0.2, 0.3], "Dice").png)
    image = np.random.default_rng(0).normal(size=(1, 1, 20, 30))
    case = pictures.Compared(HOSTILE, image, None, None, (1, 1, 1), True, "DX", HOSTILE)
    assert size_of(pictures.overlays([case], COLORS).png)


def test_an_axial_plane_shows_anterior_up_and_the_patients_right_on_the_left():
    ras = np.zeros((3, 4, 5))
    ras[1, 3, 4] = 1  # most anterior, most right
    plane = pictures.plane_of(ras, (5.0, 2.0, 1.0), "axial", 1)
    assert plane.values[0, 0] == 1
    assert plane.aspect == 2.0


def test_coronal_and_sagittal_planes_show_superior_up_right_and_anterior_on_the_left():
    ras = np.zeros((3, 4, 5))
    ras[2, 3, 4] = 1  # most superior, anterior, right
    coronal = pictures.plane_of(ras, (5.0, 2.0, 1.0), "coronal", 3)
    sagittal = pictures.plane_of(ras, (5.0, 2.0, 1.0), "sagittal", 4)
    assert coronal.values.shape == (3, 5)
    assert coronal.values[0, 0] == 1
    assert coronal.aspect == 5.0
    assert sagittal.values.shape == (3, 4)
    assert sagittal.values[0, 0] == 1
    assert sagittal.aspect == 2.5


@pytest.mark.parametrize("index", [0, 2, 4, 6])
def test_the_liver_is_shown_on_the_left_whatever_the_storage_order(index):
    case = make_ct(0, index)
    volume = Volume(case.image[None], Geometry(case.image.shape, case.affine))
    shown = displayed("x", volume, case.label, None, "CT")
    k = pictures.best_index(np.where(shown.reference == LABELS["liver"], shown.reference, 0), "axial")
    liver = pictures.plane_of(shown.reference == LABELS["liver"], shown.spacing_mm, "axial", k).values
    column = (shown.reference == LABELS["vertebra"]).any(axis=0, keepdims=True)
    spine = pictures.plane_of(column, shown.spacing_mm, "axial", 0).values
    assert np.argwhere(liver)[:, 1].mean() < liver.shape[1] / 2 - 8
    assert np.argwhere(spine)[:, 0].mean() > spine.shape[0] / 2


def test_the_shown_slice_is_the_one_with_most_labels():
    labels = np.zeros((6, 8, 8), np.uint8)
    labels[1, 1:7, 1:7] = 1
    labels[4, 1:5, 1:5] = 1
    labels[4, 5:7, 5:7] = 2
    assert pictures.best_index(labels, "axial") == 4
    assert pictures.best_index(np.zeros((6, 8, 8)), "axial") == 3


def test_overlays_keep_the_proportions_of_the_patient_and_tint_the_reference():
    image = np.full((1, 10, 40, 40), 0.5)
    image[0, :, ::2] = 0.6
    reference = np.zeros((10, 40, 40), np.uint8)
    reference[2:8, 10:30, 10:30] = 1
    case = pictures.Compared("case", image, reference, None, (5.0, 1.0, 1.0), False)
    sheet = pictures.overlays([case], COLORS)
    red = pixels_of(sheet.png)
    tinted = (red[..., 0] - red[..., 1] > 0.2)
    columns = np.flatnonzero(tinted.any(axis=0))
    blocks = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    assert len(blocks) == 3
    shapes = []
    for block in blocks:
        rows = np.flatnonzero(tinted[:, block].any(axis=1))
        shapes.append(len(block) / (rows[-1] - rows[0] + 1))
    assert shapes[0] == pytest.approx(20 / 20, rel=0.06)
    assert shapes[1] == pytest.approx(20 / 30, rel=0.06)  # 20 mm wide, 6 slices of 5 mm high
    assert shapes[2] == pytest.approx(20 / 30, rel=0.06)


def test_a_reconstruction_shows_the_image_where_it_was_seen_and_the_network_where_it_was_hidden():
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8)
    masked = np.zeros((8, 8), bool)
    masked[:, 4:] = True
    shown, seen, whole = pictures._triplet(image, masked, np.zeros((1, 8, 8)), None)
    assert np.array_equal(whole.values[:, :4], shown.values[:, :4])
    assert np.all(whole.values[:, 4:] == 0)
    assert np.allclose(seen.values[:, 4:], pictures.HIDDEN_GREY)


@pytest.mark.parametrize("shape", [(2, 1, 16, 24), (2, 3, 16, 16), (1, 1, 8, 16, 16)])
def test_reconstructions_of_pictures_colours_and_volumes_are_drawn(shape):
    random = np.random.default_rng(0)
    sheet = pictures.reconstructions(random.random(shape), random.random((shape[0], *shape[2:])) < 0.75,
                                     random.random(shape), (5.0, 1.0, 1.0))
    width, height = size_of(sheet.png)
    assert width > 300
    assert height > 300


def test_curves_leave_out_preparation_and_bookkeeping_and_put_the_loss_first():
    records = [{"stage": "validate", "step": 3, "total": 4},
               {"step": 1, "total": 2, "lr": 0.1, "part": 2.0, "loss": 1.0, "seconds": 1.0, "eta_s": 1.0},
               {"step": 2, "total": 2, "lr": 0.2, "part": 1.0, "loss": 0.5, "seconds": 2.0, "eta_s": 0.0,
                "validation_dice": 0.7}]
    curves = charts.curves_of(records)
    assert list(curves) == ["loss", "part", "validation_dice", "lr"]
    assert curves["loss"] == ([1.0, 2.0], [1.0, 0.5])
    assert curves["validation_dice"] == ([2.0], [0.7])


def test_smoothing_keeps_straight_lines_and_does_not_lag():
    assert smoothed([2.0 * n for n in range(20)], 5) == pytest.approx([2.0 * n for n in range(20)])


def test_colours_too_much_alike_are_told_apart_and_others_kept():
    liver, kidney, bone = (0.87, 0.51, 0.40), (0.85, 0.45, 0.38), (0.95, 0.84, 0.57)
    shown = distinct([liver, kidney, bone])
    assert (shown[0], shown[2]) == (liver, bone)
    assert min(np.linalg.norm(np.subtract(a, b)) for a, b in [shown[:2], shown[1:], shown[::2]]) > 0.3


def test_cases_are_ranked_by_mean_dice_and_those_without_a_score_are_left_out():
    scores = result_of([("b", 0.9), ("none", None), ("a", 0.1), ("c", 0.5)])
    assert [case["image"] for case in worst_to_best(scores)] == ["a", "c", "b"]


def test_score_tables_list_the_worst_case_first_and_show_missing_values_as_a_dash():
    page = Page("scores")
    add_segmentation_scores(page, result_of([("good", 0.9), (HOSTILE, 0.1), ("absent", None)]), {})
    text = Parsed(page.html("")).text
    assert text.index(HOSTILE) < text.index("good") < text.index("absent")
    assert "–" in text


def test_classification_scores_of_one_class_only_are_shown_without_a_curve():
    page = Page("scores")
    cases = [{"image": "a", "label": "sick", "predicted": "well", "probabilities": {"well": 0.6, "sick": 0.4}}]
    add_classification_scores(page, {"task": "classification", "auc": None, "cases": cases})
    parsed = Parsed(page.html(""))
    assert "0.600" in parsed.text
    assert not parsed.images


@pytest.mark.parametrize(("classes", "several"), [(2, False), (9, False), (40, False), (1, True), (14, True)])
def test_classifications_of_any_number_of_classes_are_shown(classes, several):
    generator = np.random.default_rng(0)
    names = [HOSTILE, *(f"class {number}" for number in range(1, classes))]
    cases = []
    for number in range(30):
        target = int(generator.integers(max(classes - 1, 1)))  # the last class has no case
        chances = generator.dirichlet(np.ones(max(classes, 2)))[:classes]
        cases.append(ClassificationCase(f"image {number}", f"s{number // 2}", (target,) if several else target,
                                        tuple(chances), tuple(chances[::-1])))
    scores = classification_scores(cases, names)
    page = Page("scores")
    add_classification_scores(page, scores)
    parsed = Parsed(page.html(""))
    assert "script" not in parsed.tags and HOSTILE in parsed.text
    assert len(parsed.images) == (1 if classes == 40 else 2)
    told = " ".join(image["alt"] for image in parsed.images)
    assert "without the temperature" in told and "reliability" in told.lower()
    if not several and classes == 2:
        assert f"Confusion matrix. {HOSTILE}: {scores['confusion'][0][0]} as {HOSTILE}" in told
    if classes == 40:
        assert "The most frequent confusions" in parsed.text
    if several:
        assert "Two-by-two tables of " in told


def test_a_finetuned_classifier_is_told_by_its_temperature_or_the_lack_of_one(tmp_path):
    from medmae.reports.finetune_report import _add_calibration

    def told(calibration):
        info = ModelInfo(name="x", task="classification", method="vis-mae", preset="tiny", spatial_dims=2,
                         architecture={"name": "n", "arguments": {"channels": 1, "classes": 2}},
                         channels=[{"name": "US", "modality": "US"}], input_size=[8, 8], calibration=calibration,
                         labels=[{"name": "a", "value": 0}, {"name": "b", "value": 1}])
        page = Page("scores")
        _add_calibration(page, info, "none")
        return Parsed(page.html("")).text

    assert "not calibrated: there were no validation cases" in told(
        {"temperature": 1.0, "cases": 0, "note": "there were no validation cases"})
    text = told({"temperature": 1.52, "cases": 38, "nll_before": 0.7, "nll_after": 0.6, "ece_before": 0.2,
                 "ece_after": 0.1, "note": "all 38 validation cases are of the same class"})
    assert "temperature 1.52" in text and "0.700 to 0.600" in text and "says little" in text


def test_nested_settings_are_flattened():
    assert flat({"a": {"b": [1, 2]}, "c": {}, "d": None}) == {"a.b": "1, 2", "c": {}, "d": None}


def test_telling_cases_of_an_empty_result_are_none():
    assert telling_cases({"cases": []}, None, ()) == []


def test_a_pretraining_run_without_a_model_yet_has_a_report(tmp_path):
    run = RunFolder.create(tmp_path / "run <b>", "pretrain", {"method": "gl-mae"}, {"images": [HOSTILE]})
    for step in range(1, 60):
        run.append_progress({"step": step, "total": 60, "loss": 1 / step, "reconstruction": 2 / step, "lr": 1e-3,
                             "seconds": step * 1.0, "eta_s": 1.0})
    random = np.random.default_rng(0)
    np.savez(run.path / "reconstructions.npz", images=random.random((2, 1, 8, 16, 16)),
             masked=random.random((2, 8, 16, 16)) < 0.7, reconstructions=random.random((2, 1, 8, 16, 16)))
    parsed = Parsed(write_run_report(run).read_text(encoding="utf-8"))
    assert len(parsed.images) == 2
    assert all(len(image["alt"]) > 20 for image in parsed.images)
    assert "b" not in parsed.tags or "run <b>" in parsed.text
    assert HOSTILE in parsed.text


def test_a_finetuning_run_whose_images_are_gone_has_a_report_of_its_scores(tmp_path):
    inputs = {"dataset": "gone.json", "encoder": "none"}
    run = RunFolder.create(tmp_path / "run", "finetune", {"method": "gl-mae"}, inputs)
    run.append_progress({"step": 1, "total": 1, "loss": 1.0, "seconds": 1.0})
    write_json(run.path / "validation.json", result_of([("a", 0.5), ("b", 0.25)]))
    parsed = Parsed(write_run_report(run).read_text(encoding="utf-8"))
    assert "from scratch" in parsed.text
    assert "0.250" in parsed.text
    assert len(parsed.images) == 2


def test_a_run_of_another_kind_has_no_report(tmp_path):
    run = RunFolder.create(tmp_path / "run", "segment", {}, {})
    with pytest.raises(BadInput, match="has no report"):
        write_run_report(run)


def test_matplotlib_being_absent_is_said_plainly(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BadInput, match=r"medmae\[report\]"):
        Sheet(1, 1)


def test_importing_reports_needs_neither_matplotlib_nor_torch():
    import subprocess
    import sys

    code = ("import json, sys, medmae.reports, medmae.demo.run\n"
            "print(json.dumps([name for name in ('torch', 'matplotlib') if name in sys.modules]))")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout) == []
