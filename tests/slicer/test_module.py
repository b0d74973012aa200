"""The module as Slicer sees it: the panel does what it says, the tables, the extension's own lists."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="pip install slicer-core, see tests/slicer/README.md")
pytest.importorskip("trame_slicer", reason="pip install trame-slicer slicer-layer-dm, see tests/slicer/README.md")
import MedCLIP
import vtk
from MedCLIP import MedCLIPLogic, MedCLIPWidget
from MedCLIPLib.scores import Case, Score
from MedCLIPLib.tables import fill_cases, fill_scores

import slicer

from .scenes import AXIAL, add_volume, cells, marked

FOLDER = Path(MedCLIP.__file__).parent


def test_tables_show_rows_in_order_and_numbers_as_numbers(scene):
    table = scene.AddNewNodeByClass("vtkMRMLTableNode")
    fill_scores(table, [Score("a", 0.25, -1.0), Score("b", 0.875, 1.946)])
    assert [table.GetColumnName(index) for index in range(3)] == ["Finding", "Probability", "Logit"]
    assert cells(table) == [["b", "0.875", "1.946"], ["a", "0.25", "-1"]]
    assert isinstance(table.GetTable().GetColumn(1), vtk.vtkDoubleArray)  # so that the view sorts by number
    fill_cases(table, [Case("7", 0.91, "A nodule.")])
    assert cells(table) == [["7", "0.91", "A nodule."]]
    fill_cases(table, [])
    assert cells(table) == []


# --- the panel


class Control:
    """A widget of Qt as far as the panel uses it; a misspelled property fails."""

    def __init__(self, kind, properties):
        self.kind, self.slots = kind, {}
        self.text, self.enabled, self.visible = properties.get("text", ""), True, True
        self.value = float(properties.get("value", 0))
        self.items, self.table, self.node = [], None, None

    @property
    def currentText(self):  # noqa: N802
        return self.items[0] if self.items else ""

    def connect(self, signal, slot):
        self.slots[signal] = slot

    def emit(self, signal, *values):
        if self.enabled:
            self.slots[signal](*values)

    def clear(self):
        self.items = []

    def addItems(self, items):  # noqa: N802
        self.items += items

    def setMRMLTableNode(self, node):  # noqa: N802
        self.table = node

    def currentNode(self):  # noqa: N802
        return self.node

    def setCurrentNode(self, node):  # noqa: N802
        self.node = node


def controls():
    """The named widgets of the panel's file."""
    found = {}
    for widget in ET.parse(FOLDER / "Resources/UI/MedCLIP.ui").iter("widget"):
        properties = {entry.get("name"): (entry[0].text or "") for entry in widget.findall("property")}
        assert widget.get("name") not in found, "two widgets of one name"
        found[widget.get("name")] = Control(widget.get("class"), properties)
    return SimpleNamespace(**found)


@pytest.fixture
def panel(scene, server, monkeypatch):
    """The panel on widgets without windows; `told` collects messages, `asked` questions to the reader."""
    told, asked, kept = [], [], {}
    monkeypatch.setattr(slicer, "app", SimpleNamespace(processEvents=lambda: None), raising=False)
    monkeypatch.setattr(slicer.util, "WaitCursor", nullcontext)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, windowTitle: told.append(text))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: asked.append(text) or panel_.consent)
    monkeypatch.setattr(MedCLIP, "_keep_setting", kept.__setitem__)
    panel_ = MedCLIPWidget.__new__(MedCLIPWidget)
    panel_.consent = True
    panel_.start(controls(), scene)
    panel_.ui.addressEdit.text = server.address
    panel_.told, panel_.asked, panel_.kept = told, asked, kept
    return panel_


def click(button):
    button.emit("clicked(bool)", False)


def test_every_slot_of_the_panel_fits_a_signal_of_its_widget(panel):
    signals = {
        "QPushButton": {"clicked(bool)"},
        "QLineEdit": {"returnPressed()"},
        "QCheckBox": {"toggled(bool)"},
        "ctkSliderWidget": {"valueChanged(double)"},
        "qMRMLNodeComboBox": {"currentNodeChanged(vtkMRMLNode*)"},
    }
    used = {name: control for name, control in vars(panel.ui).items() if control.slots}
    assert len(used) == 9  # all but the address, sign-in and method fields, which are only read
    for control in used.values():
        assert set(control.slots) <= signals[control.kind]


def test_nothing_can_be_asked_before_a_server_is_connected(panel):
    buttons = (panel.ui.runButton, panel.ui.findingsButton, panel.ui.similarButton)
    assert not any(button.enabled for button in buttons)
    click(panel.ui.connectButton)
    assert all(button.enabled for button in buttons)
    assert panel.ui.methodBox.items == ["recommended", "grad_cam"]
    assert panel.ui.statusLabel.text == "Connected: demo 0123456789ab. Research use only."
    assert panel.kept == {"MedCLIP/server": panel.ui.addressEdit.text}


def test_run_shows_a_map_that_the_sliders_change(panel, scene):
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    click(panel.ui.connectButton)
    volume = add_volume(scene, marked((6, 5, 4), (5, 1, 3), np.int16), AXIAL)
    panel.ui.inputSelector.node = volume
    panel.ui.promptEdit.text = "nodule"
    panel.ui.thresholdSlider.value = 0.75
    panel.ui.promptEdit.emit("returnPressed()")
    heat = scene.GetNodeByID(view.GetForegroundVolumeID())
    assert view.GetBackgroundVolumeID() == volume.GetID()
    assert (view.GetForegroundOpacity(), heat.GetDisplayNode().GetLowerThreshold()) == (0.65, 6)
    assert cells(panel.ui.scoreView.table) == [["nodule", "0.83", "1.6"]]
    assert "p = 0.83" in panel.ui.statusLabel.text
    panel.ui.opacitySlider.emit("valueChanged(double)", 0.3)
    panel.ui.thresholdSlider.emit("valueChanged(double)", 0.5)
    assert (view.GetForegroundOpacity(), heat.GetDisplayNode().GetLowerThreshold()) == (0.3, 4)
    assert panel.told == []


def test_the_panel_begins_with_the_volume_on_display(panel, scene):
    panel.enter()
    assert panel.ui.inputSelector.node is None  # there is no view yet
    view = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    first, second = (add_volume(scene, marked((6, 5, 4), (5, 1, 3), np.int16), AXIAL) for _ in range(2))
    view.SetBackgroundVolumeID(second.GetID())
    panel.enter()
    assert panel.ui.inputSelector.node is second
    view.SetBackgroundVolumeID(first.GetID())
    panel.enter()
    assert panel.ui.inputSelector.node is second  # the reader's choice stays


def test_findings_and_similar_cases_fill_their_tables(panel, scene):
    click(panel.ui.connectButton)
    panel.ui.inputSelector.node = add_volume(scene, marked((6, 5, 4), (5, 1, 3), np.int16), AXIAL)
    click(panel.ui.findingsButton)
    click(panel.ui.similarButton)
    assert cells(panel.ui.scoreView.table) == [["pleural effusion", "0.88", "2"], ["nodule", "0.27", "-1"]]
    assert cells(panel.ui.caseView.table) == [["case 7", "0.9", "A nodule."], ["case 2", "0.5", "edema"]]
    other = add_volume(scene, marked((6, 5, 4), (5, 1, 3), np.int16), AXIAL)
    panel.ui.inputSelector.emit("currentNodeChanged(vtkMRMLNode*)", other)
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 2
    assert cells(panel.ui.scoreView.table) == cells(panel.ui.caseView.table) == []


def test_nothing_is_sent_without_consent(panel, scene, server):
    click(panel.ui.connectButton)
    panel.ui.inputSelector.node = add_volume(scene, marked((6, 5, 4), (5, 1, 3), np.int16), AXIAL, "DOE^JANE")
    panel.ui.promptEdit.text = "nodule"
    panel.consent = False
    click(panel.ui.runButton)
    assert server.paths("PUT") == server.paths("POST") == []
    assert panel.asked == [f"The voxels of the volume, without any patient data, are sent to {server.address}."]
    assert panel.ui.statusLabel.text == ""
    panel.consent = True
    click(panel.ui.runButton)
    click(panel.ui.runButton)
    assert len(panel.asked) == 2  # the third time the server has it


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda panel, server: setattr(panel.ui.promptEdit, "text", " "), "The prompt is empty"),
        (lambda panel, server: setattr(panel.ui.inputSelector, "node", None), "No volume is chosen"),
        (lambda panel, server: setattr(server, "status", 413), "larger than the server accepts"),
        (lambda panel, server: setattr(server, "token", "x"), "sign in"),
        (lambda panel, server: setattr(server, "maps", "bands"), "not floats"),
    ],
)
def test_what_goes_wrong_is_told_in_words(panel, scene, server, break_it, words):
    click(panel.ui.connectButton)
    panel.ui.inputSelector.node = add_volume(scene, marked((6, 5, 4), (5, 1, 3), np.int16), AXIAL)
    panel.ui.promptEdit.text = "nodule"
    break_it(panel, server)
    click(panel.ui.runButton)
    (message,) = panel.told
    assert words in message
    assert panel.ui.statusLabel.text == message


def test_signing_in_is_offered_when_a_server_wants_it(panel, server):
    assert not panel.ui.signInBox.visible
    server.token = "secret"
    click(panel.ui.connectButton)
    assert panel.ui.signInBox.visible
    assert not panel.ui.runButton.enabled
    panel.ui.userEdit.text, panel.ui.passwordEdit.text = "reader", "p&ss word"
    click(panel.ui.connectButton)
    assert panel.ui.runButton.enabled
    assert panel.kept == {"MedCLIP/server": server.address}  # neither password nor token


def test_our_own_mistakes_are_not_hidden(panel, scene, monkeypatch):
    click(panel.ui.connectButton)
    panel.ui.inputSelector.node = add_volume(scene, marked((6, 5, 4), (5, 1, 3), np.int16), AXIAL)
    monkeypatch.setattr(MedCLIPLogic, "findings", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        click(panel.ui.findingsButton)


def test_a_closed_scene_is_forgotten(panel, scene):
    click(panel.ui.connectButton)
    panel.ui.inputSelector.node = add_volume(scene, marked((6, 5, 4), (5, 1, 3), np.int16), AXIAL)
    panel.ui.promptEdit.text = "nodule"
    click(panel.ui.runButton)
    scene.Clear()
    panel.on_scene_closed()
    panel.ui.opacitySlider.emit("valueChanged(double)", 0.3)
    assert panel.ui.scoreView.table is None
    assert panel.told == []
    panel.ui.inputSelector.node = add_volume(scene, marked((6, 5, 4), (5, 1, 3), np.int16), AXIAL)
    click(panel.ui.findingsButton)
    assert scene.GetFirstNodeByName("MedCLIP scores") is panel.ui.scoreView.table


# --- the extension


def test_the_extension_lists_every_file_of_the_module():
    text = (FOLDER / "CMakeLists.txt").read_text().replace("${MODULE_NAME}", "MedCLIP")
    listed = set(re.findall(r"^\s+(\S+\.(?:py|png|ui))$", text, re.MULTILINE))
    held = {str(file.relative_to(FOLDER)) for kind in ("py", "png", "ui") for file in FOLDER.rglob(f"*.{kind}")}
    assert listed == held


def test_the_module_imports_nothing_of_the_package_nor_anything_that_slicer_lacks():
    allowed = {*sys.stdlib_module_names, "slicer", "vtk", "qt", "numpy", "MedCLIPLib"}
    for file in FOLDER.rglob("*.py"):
        roots = re.findall(r"^\s*(?:from|import)\s+(\w+)", file.read_text(), re.MULTILINE)
        assert set(roots) <= allowed, file.name


def test_the_modules_own_test_passes(scene, monkeypatch):
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    MedCLIP.MedCLIPTest().runTest()
    assert scene.GetFirstNodeByName("heat") is not None
