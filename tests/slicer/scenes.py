"""Volumes with known voxels and places, and Slicer's slice views drawn off the screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import vtk
from MedCLIPLib.volumes import jump_to_peak, show_layers
from trame_slicer.core import SlicerApp
from trame_slicer.views import ViewLayoutDefinition
from vtk.util.numpy_support import vtk_to_numpy

import slicer

TURN = np.array([[0.6, -0.8, 0.0], [0.48, 0.36, 0.8], [-0.64, -0.48, 0.6]])  # a rotation about no axis of the patient
OBLIQUE = np.vstack([np.c_[TURN @ np.diag([0.7, 0.8, 2.5]), [12.0, -34.0, 56.0]], [0, 0, 0, 1]])
AXIAL = np.diag([-1.0, -1.0, 2.0, 1.0])
FILM = np.diag([-0.14, -0.14, 1.0, 1.0])


def add_volume(scene: Any, values: np.ndarray, affine: np.ndarray, name: str = "volume") -> Any:
    """A volume of the scene: values (x, y, z), affine to RAS."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(affine))
    slicer.util.updateVolumeFromArray(node, np.ascontiguousarray(values.transpose(2, 1, 0)))
    node.CreateDefaultDisplayNodes()
    return node


def voxels(node: Any) -> np.ndarray:
    """Its values (x, y, z)."""
    return slicer.util.arrayFromVolume(node).transpose(2, 1, 0)


def marked(shape: tuple[int, int, int], corner: tuple[int, int, int], kind: Any = np.float32) -> np.ndarray:
    """Zeros with one voxel at 8."""
    values = np.zeros(shape, kind)
    values[corner] = 8
    return values


def cells(table: Any) -> list[list[str]]:
    """The rows of a table."""
    return [
        [table.GetTable().GetValue(row, column).ToString() for column in range(table.GetNumberOfColumns())]
        for row in range(table.GetNumberOfRows())
    ]


def affine_of(volume: Any) -> np.ndarray:
    """Voxel indices to RAS (4, 4)."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def drawn(app: SlicerApp, background: Any, heat: Any, opacity: float, *, size: int = 200) -> np.ndarray:
    """An axial view through the map's peak, RGB (rows, columns, 3) from the upper left, as Slicer draws it."""
    view = app.view_manager.get_view("Red") or app.view_manager.create_view(ViewLayoutDefinition.axial_view())
    app.view_manager.set_current_view_ids(["Red"])
    view.render_window().SetSize(size, size)
    show_layers(app.scene, background, heat, opacity=opacity)
    view.fit_view_to_content()
    jump_to_peak(app.scene, heat)
    view.render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(view.render_window())
    grab.ReadFrontBufferOff()
    grab.Update()
    columns, rows, _ = grab.GetOutput().GetDimensions()
    flat = vtk_to_numpy(grab.GetOutput().GetPointData().GetScalars())
    return flat.reshape(rows, columns, -1)[::-1, :, :3].astype(int)


def inverted_film(file: Path, stored: np.ndarray) -> Path:
    """A radiograph of 12 bits whose low values are white."""
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    header.SOPInstanceUID, header.SeriesInstanceUID = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    header.Modality, header.PhotometricInterpretation = "DX", "MONOCHROME1"
    header.Rows, header.Columns, header.SamplesPerPixel, header.PixelRepresentation = *stored.shape, 1, 0
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
    header.PixelData = stored.tobytes()
    header.save_as(file, enforce_file_format=True)
    return file
