"""The MONAI Label app: trained bundles in 3D Slicer, OHIF and on a web page.

Its modules need the ``label`` extra; `folder` and `limits` import without it.
"""

__all__: list[str] = []
