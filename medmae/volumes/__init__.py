"""Images with their place in the patient: reading, writing, orientation, resampling and intensities.

Importing this package needs numpy alone; SimpleITK and scipy are imported where a function needs them.
"""

from medmae.volumes.dicom_series import is_dicom_file, is_dicom_folder
from medmae.volumes.discovery import FoundImage, find_images, output_name
from medmae.volumes.geometry import Geometry
from medmae.volumes.intensity import Intensity, default_intensity
from medmae.volumes.label_resampling import resample_labels
from medmae.volumes.orientation import reorient
from medmae.volumes.pictures import picture_geometry
from medmae.volumes.reading import IMAGE_ENDINGS, read_image, read_label
from medmae.volumes.resampling import resample, resampled_geometry
from medmae.volumes.seg_nrrd import read_segments
from medmae.volumes.segments import Segment, default_color, default_segments
from medmae.volumes.volume import Volume
from medmae.volumes.writing import LABEL_FORMATS, write_label

__all__ = [
    "IMAGE_ENDINGS",
    "FoundImage",
    "Geometry",
    "Intensity",
    "LABEL_FORMATS",
    "Segment",
    "Volume",
    "default_color",
    "default_intensity",
    "default_segments",
    "find_images",
    "is_dicom_file",
    "is_dicom_folder",
    "output_name",
    "picture_geometry",
    "read_image",
    "read_label",
    "read_segments",
    "reorient",
    "resample",
    "resample_labels",
    "resampled_geometry",
    "write_label",
]
