"""The sample data of the tutorial in Slicer's module Sample Data; comes with the extension, so no network is needed."""

from __future__ import annotations

from pathlib import Path

from slicer.i18n import tr as _

CATEGORY = "MedMAE"
RESOURCES = Path(__file__).resolve().parents[1] / "Resources"
# SHA-256, as printed by Resources/make_sample_data.py
CHECKSUMS = {
    "MedMAE-CT-1.nrrd": "27a6d9c4f43fa32f05a4ef3ed2397f13dc9db2c85ebd45e1ec565f4157239762",
    "MedMAE-CT-1.seg.nrrd": "9f2144a55fcb17d3dd629cdf50e654532ae32b4e56793f39cc5247c4130a1549",
    "MedMAE-CT-2.nrrd": "8f1d219131e29a2115584b5c1e20285b9736fdb58f2703a8fe16ad07f0a1c1d4",
    "MedMAE-CT-2.seg.nrrd": "007bf77c29a58869b4ec7035b508ccb81e21ae4d8d02eba7d7f2474753214dca",
    "MedMAE-CT-3.nrrd": "895ef041f1ae6f01af9998dd61db4e22ed7ef72707bbbd3bc748777bab57564f",
    "MedMAE-CT-3.seg.nrrd": "37870007b2ac7754f332342030a6d9a94e8dd4cd6cfcbd762e84ec8ff73aab72",
    "MedMAE-CT-4.nrrd": "506a575c294342f4644eb2e9e19e5d41d6bbde571191f204460809b347443841",
}


def registerSampleData() -> None:
    """Add the annotated cases and the new one to the module Sample Data."""
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # Slicer 5.12 and newer
        logic.registerCustomSampleDataCategory(CATEGORY, title=_("MedMAE"))
    _register(logic, "MedMAEAnnotatedCT", "SampleAnnotatedCT.png", [name for name in CHECKSUMS if "-4" not in name])
    _register(logic, "MedMAENewCT", "SampleNewCT.png", ["MedMAE-CT-4.nrrd"])


def _register(logic: type, sampleName: str, thumbnail: str, files: list[str]) -> None:
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=sampleName,
        thumbnailFileName=str(RESOURCES / "Icons" / thumbnail),
        uris=[(RESOURCES / "SampleData" / name).as_uri() for name in files],
        fileNames=files,
        nodeNames=[_nodeName(name) for name in files],
        loadFileTypes=["SegmentationFile" if name.endswith(".seg.nrrd") else "VolumeFile" for name in files],
        checksums=[f"SHA256:{CHECKSUMS[name]}" for name in files],
    )


def _nodeName(file: str) -> str:
    name = file.partition(".")[0].replace("-", " ")
    return f"{name} segmentation" if file.endswith(".seg.nrrd") else name
