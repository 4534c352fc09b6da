"""Mask files of one video, as `precomputed` reads them: npz, COCO run lengths, PNG per frame."""
