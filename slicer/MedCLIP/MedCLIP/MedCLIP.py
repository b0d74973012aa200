"""3D Slicer's MedCLIP module: ask a MONAI Label server about the volume on display, see where the answer comes from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from MedCLIPLib.client import ServerError, ServerInfo
from MedCLIPLib.questions import NOT_CLINICAL, Questions, said
from MedCLIPLib.scores import Case, Score
from MedCLIPLib.tables import fill_cases, fill_scores
from MedCLIPLib.volumes import load_heatmap, peak_ras, save_volume, set_opacity, set_threshold, shown_background

import slicer

try:
    import qt
    from slicer.ScriptedLoadableModule import (
        ScriptedLoadableModule,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
        ScriptedLoadableModuleWidget,
    )
except ImportError:  # slicer-core: the scene without windows; the logic and its test run there

    class _Bare:
        """What is left of Slicer's base classes."""

        def __init__(self, parent: Any = None) -> None:
            """Hold what the application would give."""
            super().__init__()  # as Slicer's own do
            self.parent = parent

    ScriptedLoadableModule = ScriptedLoadableModuleLogic = ScriptedLoadableModuleTest = _Bare
    ScriptedLoadableModuleWidget = _Bare

DEFAULT_ADDRESS = "http://127.0.0.1:8000"
_ASKING = "Asking the server ..."


class MedCLIP(ScriptedLoadableModule):
    """What Slicer shows of the module in its menus."""

    def __init__(self, parent: Any) -> None:
        """Name the module."""
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "MedCLIP"
        self.parent.categories = ["Active Learning"]
        self.parent.dependencies = []
        self.parent.contributors = ["monai_medclip maintainers"]
        self.parent.helpText = (
            "Asks a CLIP on a MONAI Label server about the volume on display: free-text prompts, heatmaps, scores of "
            f"findings, similar cases. {NOT_CLINICAL}"
        )
        self.parent.acknowledgementText = "Built on MONAI and MONAI Label."


class MedCLIPLogic(Questions, ScriptedLoadableModuleLogic):
    """Questions about volumes of a scene; needs no window."""

    def __init__(self, scene: Any = None) -> None:
        """Set the scene.

        Args:
            scene: vtkMRMLScene; `None` for the application's.
        """
        ScriptedLoadableModuleLogic.__init__(self)
        Questions.__init__(self, scene or slicer.mrmlScene)


class MedCLIPWidget(ScriptedLoadableModuleWidget, slicer.util.VTKObservationMixin):
    """The panel."""

    def __init__(self, parent: Any = None) -> None:
        """Prepare; `setup` builds the panel."""
        ScriptedLoadableModuleWidget.__init__(self, parent)
        slicer.util.VTKObservationMixin.__init__(self)

    def setup(self) -> None:
        """Build the panel from its file, and connect it."""
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/MedCLIP.ui"))
        self.layout.addWidget(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.start(slicer.util.childWidgetVariables(panel), slicer.mrmlScene)
        self.ui.addressEdit.text = slicer.util.settingsValue("MedCLIP/server", DEFAULT_ADDRESS)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.on_scene_closed)

    def start(self, ui: Any, scene: Any) -> None:
        """Bring the panel's widgets to life.

        Args:
            ui: the named widgets of ``MedCLIP.ui``.
            scene: vtkMRMLScene.
        """
        self.ui = ui
        self.logic = MedCLIPLogic(scene)
        self._heat: Any = None
        self._has_index = False
        self._tables: dict[str, Any] = {}
        ui.signInBox.visible = False  # until a server wants it
        ui.connectButton.connect("clicked(bool)", self.on_connect)
        ui.runButton.connect("clicked(bool)", self.on_run)
        ui.promptEdit.connect("returnPressed()", self.on_run)
        ui.findingsButton.connect("clicked(bool)", self.on_findings)
        ui.similarButton.connect("clicked(bool)", self.on_similar)
        ui.opacitySlider.connect("valueChanged(double)", self.on_opacity)
        ui.thresholdSlider.connect("valueChanged(double)", self.on_threshold)
        ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.on_volume)
        ui.sendCheckBox.connect("toggled(bool)", self.on_always_send)
        self._enable(connected=False)

    def enter(self) -> None:
        """Begin with the volume on display."""
        if self.ui.inputSelector.currentNode() is None:
            self.ui.inputSelector.setCurrentNode(shown_background(self.logic.scene))

    def cleanup(self) -> None:
        """Take the observers back."""
        self.removeObservers()

    def on_scene_closed(self, *_event: Any) -> None:
        """Forget the volumes that are gone."""
        self._heat = None
        for view in (self.ui.scoreView, self.ui.caseView):
            view.setMRMLTableNode(None)
        self.ui.statusLabel.text = ""

    def on_connect(self, *_state: Any) -> None:
        """Connect to the server, and offer its methods."""
        self._enable(connected=False)
        with _Told(self.ui):
            address = self.ui.addressEdit.text
            signing = {"user": self.ui.userEdit.text, "password": self.ui.passwordEdit.text}
            info = self.logic.connect_server(address, token=self.ui.tokenEdit.text.strip(), **signing)
            self._offer(info)
            _keep_setting("MedCLIP/server", address)

    def on_run(self, *_state: Any) -> None:
        """Ask the prompt, and show where the answer comes from."""
        volume = self.ui.inputSelector.currentNode()
        with _Told(self.ui):
            if not self._may_ask(volume):
                return
            asked = {"method": self.ui.methodBox.currentText, "opacity": self.ui.opacitySlider.value}
            with slicer.util.WaitCursor():
                answer = self.logic.run(volume, self.ui.promptEdit.text, **asked)
            self._heat = answer.volume
            set_threshold(self._heat, self.ui.thresholdSlider.value)
            self._show_scores(self.logic.scores(volume))
            self.ui.statusLabel.text = said(answer)

    def on_findings(self, *_state: Any) -> None:
        """Ask for all findings."""
        volume = self.ui.inputSelector.currentNode()
        with _Told(self.ui):
            if self._may_ask(volume):
                with slicer.util.WaitCursor():
                    scores = self.logic.findings(volume)
                self._show_scores(scores)
                self.ui.statusLabel.text = f"{len(scores)} answers. {NOT_CLINICAL}"

    def on_similar(self, *_state: Any) -> None:
        """Ask for similar cases."""
        volume = self.ui.inputSelector.currentNode()
        with _Told(self.ui):
            if self._may_ask(volume):
                with slicer.util.WaitCursor():
                    cases = self.logic.similar_cases(volume)
                self._show_cases(cases)
                self.ui.statusLabel.text = f"{len(cases)} similar cases. {NOT_CLINICAL}"

    def on_opacity(self, opacity: float) -> None:
        """Cover the volume more or less."""
        if self._is_shown():
            set_opacity(self.logic.scene, self._heat, opacity)

    def on_threshold(self, share: float) -> None:
        """Show more or less of the map."""
        if self._is_shown():
            set_threshold(self._heat, share)

    def on_volume(self, volume: Any) -> None:
        """Show what has been answered about the chosen volume."""
        known = bool(volume) and bool(volume.GetImageData())
        self._show_scores(self.logic.scores(volume) if known else [])
        self._show_cases([])

    def on_always_send(self, always: bool) -> None:
        """Send volumes also where the server has them."""
        self.logic.always_send = bool(always)

    def _is_shown(self) -> bool:
        """Whether the last heatmap is still in the scene."""
        return self._heat is not None and self.logic.scene.IsNodePresent(self._heat)

    def _may_ask(self, volume: Any) -> bool:
        """Whether a volume is chosen, and may be sent if it must be."""
        if volume is None:
            raise ValueError("No volume is chosen: load a CT or a radiograph, and choose it.")
        return self.logic.is_known(volume) or slicer.util.confirmOkCancelDisplay(
            f"The voxels of the volume, without any patient data, are sent to {self.logic.client.address}.",
            dontShowAgainSettingsKey="MedCLIP/SendWithoutAsking",
        )

    def _offer(self, info: ServerInfo) -> None:
        """Fill the menu with what the server offers."""
        self.ui.methodBox.clear()
        self.ui.methodBox.addItems(list(info.methods))
        self._has_index = info.has_index
        self._enable(connected=True)
        self.ui.statusLabel.text = f"Connected: {info.model or info.name}. {info.intended_use or NOT_CLINICAL}"

    def _enable(self, *, connected: bool) -> None:
        """Only buttons that can work are enabled."""
        for button in (self.ui.runButton, self.ui.findingsButton):
            button.enabled = connected
        self.ui.similarButton.enabled = connected and self._has_index

    def _fill(self, view: Any, name: str, fill: Callable[[Any, Any], None], rows: list[Any]) -> None:
        """Show rows in a table of the scene, where Slicer's Tables module finds it; it is made when rows come."""
        table = self._tables.get(name)
        if table is None or not self.logic.scene.IsNodePresent(table):
            if not rows:
                return
            table = self._tables[name] = self.logic.scene.AddNewNodeByClass("vtkMRMLTableNode", name)
            view.setMRMLTableNode(table)
        fill(table, rows)

    def _show_scores(self, scores: list[Score]) -> None:
        self._fill(self.ui.scoreView, "MedCLIP scores", fill_scores, scores)

    def _show_cases(self, cases: list[Case]) -> None:
        self._fill(self.ui.caseView, "MedCLIP similar cases", fill_cases, cases)


class _Told:
    """A question in progress: what goes wrong is told in words, in the panel and in a message."""

    def __init__(self, ui: Any) -> None:
        """Set the panel's widgets."""
        self._ui = ui

    def __enter__(self) -> None:
        """Say that it takes time."""
        self._ui.statusLabel.text = _ASKING
        slicer.app.processEvents()

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> bool:
        """Tell the error, if it is one that a reader can mend; others go on to Slicer's log."""
        if self._ui.statusLabel.text == _ASKING:
            self._ui.statusLabel.text = ""
        if not isinstance(error, (ServerError, ValueError)):
            return False
        if getattr(error, "status", 0) == 401:
            self._ui.signInBox.visible = True
        self._ui.statusLabel.text = str(error)
        slicer.util.errorDisplay(str(error), windowTitle="MedCLIP")
        return True


def _keep_setting(key: str, value: str) -> None:
    """Keep a setting for the next start. Tokens and passwords are not kept."""
    qt.QSettings().setValue(key, value)


class MedCLIPTest(ScriptedLoadableModuleTest):
    """Slicer's self-test: no server is needed."""

    def setUp(self) -> None:
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:  # noqa: N802 - Slicer calls it by this name
        """Run all."""
        self.setUp()
        self.test_a_map_lies_on_its_oblique_volume()

    def test_a_map_lies_on_its_oblique_volume(self) -> None:
        """A map in a file comes back on the volume's own grid, and its peak where it was put."""
        affine = np.array([[0.6, -0.8, 0, 12], [0.8, 0.6, 0, -34], [0, 0, 2.5, 56], [0, 0, 0, 1.0]])
        values = np.zeros((4, 5, 6), np.float32)  # (slices, rows, columns)
        values[3, 0, 5] = 2
        volume, source = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode") for _ in range(2))
        for node in (volume, source):
            node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))
            slicer.util.updateVolumeFromArray(node, values)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "map.nii.gz"
            save_volume(source, file)
            heat = load_heatmap(slicer.mrmlScene, file, volume, name="heat")
        peak = affine @ (5, 0, 3, 1)
        if not np.allclose(peak_ras(heat), peak[:3], atol=1e-3):
            raise AssertionError(f"the peak is at {peak_ras(heat)}, not at {peak[:3]}")
        set_threshold(heat, 0.5)
        if heat.GetDisplayNode().GetLowerThreshold() != 1:
            raise AssertionError(f"the threshold is {heat.GetDisplayNode().GetLowerThreshold()}, half of 2 is 1")
