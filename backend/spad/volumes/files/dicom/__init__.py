"""DICOM: series, multi-frame objects, pictures and segmentations, by pydicom.

File order is that of ITK and dcm2niix: i is the column index of an image, j its row index, k the
slice, counted along the normal of the image plane (row direction x column direction).
"""
