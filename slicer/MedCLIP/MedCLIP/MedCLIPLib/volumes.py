"""A float map as a colored, thresholded volume over the volume that it explains, and that volume as a file to send."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import vtk

import slicer

__all__ = [
    "fingerprint",
    "heat_colors",
    "heat_maximum",
    "is_heatmap",
    "jump_to_peak",
    "load_heatmap",
    "peak_ras",
    "remove_layer",
    "save_volume",
    "set_opacity",
    "set_threshold",
    "show_layers",
    "shown_background",
]

BACKGROUND_ROLE = "MedCLIP.Background"  # node reference of a heatmap: the volume that it explains
COLORS_NAME = "MedCLIP heat"
# Matplotlib's plasma (CC0), 16 even steps: between them linear, off by less than 0.02. Equal steps look equal.
_PLASMA = (
    *("0d0887", "330597", "5002a2", "6a00a8", "8405a7", "9c179e", "b12a90", "c33d80"),
    *("d35171", "e16462", "ed7953", "f68f44", "fca636", "fec029", "f9dc24", "f0f921"),
)
_COLORS = 256


def heat_colors(scene):
    """The color node of heatmaps, one a scene: plasma, more opaque where the value is higher.

    Args:
        scene: vtkMRMLScene.

    Returns:
        vtkMRMLColorTableNode with 256 colors; alpha rises from 0 to 1 in proportion to the value.
    """
    found = scene.GetFirstNodeByName(COLORS_NAME)
    if found:
        return found
    anchors = np.array([[int(code[at : at + 2], 16) / 255 for at in (0, 2, 4)] for code in _PLASMA])
    share = np.linspace(0, 1, _COLORS)
    red, green, blue = (np.interp(share, np.linspace(0, 1, len(anchors)), channel) for channel in anchors.T)
    colors = slicer.vtkMRMLColorTableNode()
    colors.SetName(COLORS_NAME)
    colors.SetTypeToUser()
    colors.SetNumberOfColors(_COLORS)
    for index, rgba in enumerate(zip(red, green, blue, share)):
        colors.SetColor(index, f"{100 * share[index]:.0f} % of the maximum", *map(float, rgba))
    colors.SetHideFromEditors(False)
    return scene.AddNode(colors)


def load_heatmap(scene, file: Path, background, *, name: str):
    """Read a map into the scene, replacing the one that this volume had before.

    Args:
        scene: vtkMRMLScene.
        file: NRRD or NIfTI with floats.
        background: vtkMRMLScalarVolumeNode that was asked about.
        name: of the new node.

    Returns:
        vtkMRMLScalarVolumeNode at the same place in the patient, under the same transform, colored, with nothing
        tinted below a quarter of its maximum.

    Raises:
        ValueError: the file cannot be read, holds no floats, or is no map of this volume.
    """
    volume = _read(file)
    volume.SetName(name)
    scene.AddNode(volume)
    try:
        _place(volume, background)
    except ValueError:
        scene.RemoveNode(volume)
        raise
    remove_layer(scene, background)
    volume.SetNodeReferenceID(BACKGROUND_ROLE, background.GetID())
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID(heat_colors(scene).GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, max(heat_maximum(volume), np.finfo(np.float32).tiny))
    set_threshold(volume, 0.25)
    return volume


def _read(file: Path):
    """The file as a volume outside any scene. Its storage node is dropped: the file is a temporary one."""
    volume = slicer.vtkMRMLScalarVolumeNode()
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(file))
    storage.SetSingleFile(True)
    if not storage.ReadData(volume) or not volume.GetImageData():
        raise ValueError("The server's map cannot be read as NRRD: see Slicer's error log.")
    if volume.GetImageData().GetScalarType() not in (vtk.VTK_FLOAT, vtk.VTK_DOUBLE):
        kind = volume.GetImageData().GetScalarTypeAsString()
        raise ValueError(f"The server's map holds {kind}, not floats: it does not know the option map=float.")
    if not np.isfinite(slicer.util.arrayFromVolume(volume)).all():
        raise ValueError("The server's map has NaN or infinity: nothing honest can be shown from that.")
    return volume


def _place(volume, background) -> None:
    """Put the map where its volume is, under the same transform.

    A film has no place in a patient, so every reader invents one: the volume's own is taken over. A CT has one, and in
    whatever order axes and slices are stored, a map of the same patient space fills the same box.
    """
    mine, its = (node.GetImageData().GetDimensions() for node in (volume, background))
    volume.SetAndObserveTransformNodeID(background.GetTransformNodeID())
    if its[2] > 1:
        slack = 0.5 * max(background.GetSpacing())
        if not np.allclose(_bounds(volume), _bounds(background), rtol=0, atol=slack):
            raise ValueError(
                "The server's map lies elsewhere in the patient than this volume: it is a map of another one. "
                "Tick 'Always send the volume' and run again."
            )
    elif mine == its:
        volume.CopyOrientation(background)
    else:
        raise ValueError(
            f"The server's map has {mine[0]} x {mine[1]} pixels, the film {its[0]} x {its[1]}: it is a map of another "
            "image. Tick 'Always send the volume' and run again."
        )


def _bounds(volume) -> list[float]:
    """Least and greatest R, A and S of a volume, mm in the world (6,)."""
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    return bounds


def _affine(volume) -> np.ndarray:
    """Voxel indices to RAS (4, 4)."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def remove_layer(scene, background) -> None:
    """Take a volume's heatmap out of the scene, with its display node."""
    for index in reversed(range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"))):
        node = scene.GetNthNodeByClass(index, "vtkMRMLScalarVolumeNode")
        if node.GetNodeReferenceID(BACKGROUND_ROLE) == background.GetID():
            scene.RemoveNode(node.GetDisplayNode())
            scene.RemoveNode(node)


def heat_maximum(volume) -> float:
    """The largest value of a map, in its own units."""
    return float(slicer.util.arrayFromVolume(volume).max())


def peak_ras(volume) -> tuple[float, float, float]:
    """Where a map is highest, mm RAS in the world; the first such voxel."""
    values = slicer.util.arrayFromVolume(volume)  # (slices, rows, columns)
    k, j, i = np.unravel_index(int(values.argmax()), values.shape)
    local = _affine(volume) @ (i, j, k, 1)
    world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(volume.GetParentTransformNode(), None, world)
    right, anterior, superior = world.TransformPoint(*local[:3])
    return right, anterior, superior


def jump_to_peak(scene, volume) -> None:
    """Move all slice views through the voxel where a map is highest."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(scene, *peak_ras(volume))


def is_heatmap(volume) -> bool:
    """Whether a volume is a map of ours."""
    return bool(volume.GetNodeReferenceID(BACKGROUND_ROLE))


def fingerprint(volume) -> tuple[str, int, bytes]:
    """What changes when a volume's voxels or its place change; ids alone come again after a scene is closed."""
    return volume.GetID(), volume.GetImageData().GetMTime(), _affine(volume).tobytes()


def set_threshold(volume, share: float) -> None:
    """Show only what is at least a share of the map's maximum.

    Args:
        volume: a heatmap.
        share: 0 to 1. What speaks against the prompt (below 0) never shows, nor anything of a map without support.

    Raises:
        ValueError: the share is outside its range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"threshold={share} must be from 0 to 1: it is a share of the map's maximum.")
    maximum = heat_maximum(volume)
    display = volume.GetDisplayNode()
    modifying = display.StartModify()
    display.SetAutoThreshold(False)
    if maximum > 0:
        display.SetThreshold(share * maximum, maximum)
    else:
        display.SetThreshold(maximum + 1, maximum + 2)
    display.SetApplyThreshold(True)
    display.EndModify(modifying)


def show_layers(scene, background, heatmap, *, opacity: float) -> None:
    """Put the volume and its map into all slice views.

    Args:
        scene: vtkMRMLScene.
        background: the volume.
        heatmap: its map.
        opacity: of the map at its maximum, 0 to 1.
    """
    for view in _slice_views(scene):
        view.SetBackgroundVolumeID(background.GetID())
        view.SetForegroundVolumeID(heatmap.GetID())
    set_opacity(scene, heatmap, opacity)


def shown_background(scene):
    """The volume that the first slice view shows, or `None`."""
    shown = [view.GetBackgroundVolumeID() for view in _slice_views(scene)]
    return scene.GetNodeByID(shown[0]) if shown and shown[0] else None


def set_opacity(scene, heatmap, opacity: float) -> None:
    """Set how strongly a map covers its volume, in the slice views that show it.

    Args:
        scene: vtkMRMLScene.
        heatmap: the map.
        opacity: at the map's maximum, 0 to 1; in proportion to the value below it.

    Raises:
        ValueError: the opacity is outside its range.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity={opacity} must be from 0 to 1.")
    for view in _slice_views(scene):
        if view.GetForegroundVolumeID() == heatmap.GetID():
            view.SetForegroundOpacity(opacity)


def _slice_views(scene) -> list:
    """What the slice views show, one composite node a view."""
    kind = "vtkMRMLSliceCompositeNode"
    return [scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind))]


def save_volume(volume, file: Path) -> None:
    """Write a volume as the server's readers want it: gzip NIfTI, without its transform, name or any header of DICOM.

    A film that is stored inverted (MONOCHROME1) needs no care: ITK, which reads DICOM for Slicer, has turned it.

    Args:
        volume: vtkMRMLScalarVolumeNode with voxels.
        file: ``*.nii.gz``.

    Raises:
        ValueError: the file cannot be written.
    """
    sent = slicer.vtkMRMLScalarVolumeNode()
    sent.CopyOrientation(volume)
    sent.SetAndObserveImageData(volume.GetImageData())
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(file))
    if not storage.WriteData(sent):
        raise ValueError("The volume cannot be written as NIfTI: see Slicer's error log.")
