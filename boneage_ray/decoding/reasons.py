"""What each reason code means, in the words of the pages."""

from __future__ import annotations

MEANINGS = {
    "not_found": "no file was there when it was to be read",
    "permission_denied": "the storage refused access",
    "unreadable": "the bytes could not be read or decoded",
    "truncated": "the file ends too early",
    "unsupported_format": "not a kind of image that is read",
    "unsupported_transfer_syntax": "DICOM in a compression that is not read",
    "no_pixels": "DICOM without an image",
    "multi_frame": "several images in one file",
    "too_large": "more bytes or pixels than are allowed",
    "wrong_modality": "DICOM of a modality that is no radiograph, such as CT, MR or ultrasound",
    "blank": "one shade of grey only",
    "low_contrast": "too few shades of grey to see bones",
    "inverted": "bone is dark and air is bright",
    "too_small": "too few pixels",
    "wrong_aspect": "far too wide or too tall for a radiograph of a hand",
    "wrong_body_part": "DICOM that names another region or view than the model is for",
    "out_of_distribution": "unlike the radiographs that the model was trained on",
    "no_mask": "no hand mask, where the recipe needs one: none was found, or its file is missing, unreadable or of another size",
    "internal_error": "a fault of the program or of the model",
    "no_label": "an image to which no label belongs",
    "no_image": "a label or a row of the metadata to which no image belongs",
    "bad_label": "a label that cannot be used, such as an age that is not a number",
    "duplicate_id": "an id that another input has too",
}
