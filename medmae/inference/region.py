"""The part of an image that is segmented, under the name that inference uses (preparing needs it a layer below)."""

from medmae.volumes.region import BoxMm, Region, region_of_box

__all__ = ["BoxMm", "Region", "region_of_box"]
