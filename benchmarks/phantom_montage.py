"""The README's picture of the phantom: radiographs, the outline of every finding, and the impression of the report.

python benchmarks/phantom_montage.py docs/images/phantoms.png
"""

from __future__ import annotations

import sys
import textwrap
from itertools import count, islice

from matplotlib.figure import Figure

from monai_medclip.data import PhantomPatient

COLORS = {
    "nodule": "#ffd400",
    "mass": "#ff7f0e",
    "pleural effusion": "#17becf",
    "consolidation": "#e377c2",
    "cardiomegaly": "#9acd32",
    "pneumothorax": "#ff4b4b",
}


def main(path: str, *, seed: int = 1, columns: int = 4) -> None:
    """Draw the first patients with at least two findings, as radiograph above and outlined below."""
    patients = (PhantomPatient(seed, index) for index in count())
    chosen = list(islice((patient for patient in patients if len(patient.findings) >= 2), columns))
    figure = Figure(figsize=(3.2 * columns, 8), layout="constrained")
    for column, patient in enumerate(chosen):
        xray = patient.xray(448)
        for row in range(2):
            axes = figure.add_subplot(2, columns, row * columns + column + 1)
            axes.imshow(xray.image, cmap="gray")
            axes.axis("off")
            if row:
                for finding, mask in xray.masks.items():
                    axes.contour(mask, levels=[0.5], colors=COLORS[finding], linewidths=1.2)
                impression = patient.report.split("IMPRESSION:")[1].strip()
                axes.set_title(textwrap.fill(impression, 44), fontsize=8, loc="left", y=-0.02, va="top")
    handles = [figure.axes[0].plot([], [], color=color, label=finding)[0] for finding, color in COLORS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=6, frameon=False)
    notice = "Generated thoraces, free of any patient. Research use only, not a medical device"
    figure.supxlabel(notice, fontsize=8, color="0.4")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main(*sys.argv[1:2])
