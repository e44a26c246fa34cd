"""Files that Sensorium doesn't read: their formats, by content, and what would read or convert them."""

from __future__ import annotations

from sensorium.media.formats import EXTRA_PACKAGES, archive, frame_name, is_image, media_type, named, unpacked

RAW = "camera raw", "rawpy (LibRaw), or a raw converter, makes TIFF or JPEG of it"
JXL = "JPEG XL", "a Pillow with JPEG XL reads it; djxl makes PNG of it"
JP2 = "JPEG 2000", "a Pillow with OpenJPEG reads it; opj_decompress makes PNG of it"
PICKLED = (
    "pickled Python objects",
    "never read, for unpickling can run code; save tensors as safetensors, arrays as lists in Parquet",
)
OFFICE = "an Office document", "save it as CSV, Parquet or plain text"
SLICES = "its slices as pictures or lists of numbers"

CONVERTERS = {
    "DICOM": f"pydicom reads it; save {SLICES}",
    "NIfTI": f"nibabel reads it; save {SLICES}",
    "EDF": "MNE or pyedflib reads it; save its channels as lists of numbers",
    "BDF": "MNE or pyedflib reads it; save its channels as lists of numbers",
    "PCD": "Open3D reads it; save its points as lists of lists of numbers",
    "LAS": "laspy reads it; save its points as lists of lists of numbers",
    "LAZ": "laspy with lazrs reads it; save its points as lists of lists of numbers",
    "PLY": "Open3D or plyfile reads it; save its points as lists of lists of numbers",
    "HDF5": "h5py reads it; save its arrays as columns of a Parquet file",
    "MATLAB": "scipy.io.loadmat reads it; save its arrays as columns of a Parquet file",
    "NetCDF": "xarray reads it; save its arrays as columns of a Parquet file",
    "FITS": "astropy reads it; save its arrays as TIFF or lists of numbers",
    "OpenEXR": "OpenEXR or ImageMagick reads it; save it as a TIFF",
    "Radiance HDR": "ImageMagick reads it; save it as a TIFF",
    "PSD": "psd-tools or ImageMagick reads it; save it as a PNG",
    "SVG": "resvg or CairoSVG draws it; save it as a PNG",
    "EPS": "Ghostscript draws it; save it as a PNG or PDF",
    "DjVu": "ddjvu (DjVuLibre) draws it; save it as a TIFF or PDF",
    "MIDI": "FluidSynth plays it; save it as a WAV",
    "NumPy": "numpy.load reads it; save arrays as lists of numbers in Parquet",
    "GGUF": "weights of a model, which are no cells",
    "safetensors": "weights of a model, which are no cells",
    "ZIP": "unpack it; of archives only those of frames are read, as clips",
    "7z": "unpack it with 7-Zip",
    "RAR": "unpack it with unrar",
    "gzip": "unpack it with gunzip",
    "xz": "unpack it with xz",
    "bzip2": "unpack it with bunzip2",
    "Zstandard": "unpack it with zstd",
    "SQLite": "a database: save its table as Parquet or CSV",
    "an ELF program": "a program, which is no cell",
    "a Windows program": "a program, which is no cell",
    "icons": "ImageMagick reads it; save it as a PNG",
}

MAGIC_NUMBERS = (
    (b"LASF", "LAS"), (b"# .PCD", "PCD"), (b"ply\n", "PLY"), (b"ply\r", "PLY"), (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"MATLAB 5.0 MAT-file", "MATLAB"), (b"CDF\x01", "NetCDF"), (b"CDF\x02", "NetCDF"), (b"CDF\x05", "NetCDF"),
    (b"SIMPLE  =", "FITS"),
    (b"\x76\x2f\x31\x01", "OpenEXR"), (b"#?RADIANCE", "Radiance HDR"), (b"8BPS", "PSD"), (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"AT&TFORM", "DjVu"), (b"MThd", "MIDI"), (b"\x93NUMPY", "NumPy"), (b"GGUF", "GGUF"),
    (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07", "RAR"),
    (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "Zstandard"), (b"SQLite format 3\0", "SQLite"),
    (b"\x7fELF", "an ELF program"),
    (b"\xffBIOSEMI", "BDF"), (b"\0\0\x01\0", "icons"), (b"icns", "icons"),
)  # fmt: skip
CAMERA_STARTS = b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"II\x1a\0\0\0HEAPCCDR", b"FOVb"

ENDINGS = {
    "DICOM": ("dcm", "dicom", "ima"), "NIfTI": ("nii", "nii.gz"), "EDF": ("edf",), "BDF": ("bdf",), "PCD": ("pcd",),
    "LAS": ("las",), "LAZ": ("laz",),
    "PLY": ("ply",), "HDF5": ("h5", "hdf5", "hdf"), "MATLAB": ("mat",), "NetCDF": ("nc",), "FITS": ("fits",),
    "OpenEXR": ("exr",),
    "PSD": ("psd",), "SVG": ("svg", "svgz"), "EPS": ("eps", "ps"), "DjVu": ("djvu", "djv"), "MIDI": ("mid", "midi"),
    "NumPy": ("npy", "npz"), "safetensors": ("safetensors",), "GGUF": ("gguf",), "ZIP": ("zip",), "7z": ("7z",),
    "RAR": ("rar",), "xz": ("xz",),
    "gzip": ("gz", "tgz"), "bzip2": ("bz2",), "Zstandard": ("zst",), "SQLite": ("sqlite", "sqlite3", "db"),
    "an ELF program": ("so",), "a Windows program": ("exe", "dll"),
    "icons": ("ico", "icns"),
    RAW[0]: ("cr2", "cr3", "crw", "nef", "nrw", "dng", "arw", "orf", "rw2", "raf", "pef", "srw"),
    PICKLED[0]: ("pkl", "pickle", "pt", "pth", "ckpt", "joblib"),
    OFFICE[0]: ("doc", "docx", "xls", "xlsx", "ppt", "pptx", "odt", "ods", "odp"),
}  # fmt: skip
BY_ENDING = {ending: name for name, endings in ENDINGS.items() for ending in endings}
ADVICE = {**CONVERTERS, **dict([RAW, PICKLED, OFFICE, JXL, JP2])}


def unread_format(head: bytes, path: str | None = None) -> tuple[str, str] | None:
    """Name of a format that isn't read here, and the way to read or convert it, in words; None for what is read, and
    for what isn't known.

    Args:
        head: a file's first bytes, best 1,024 of them. Where there are none the ending of its name decides.
        path: the file's name.
    """
    if head:
        return by_content(head)
    if not path or named(path) not in (None, "image"):
        return None
    name = path.lower()
    if named(path) == "image":
        return by_media(
            {
                "heic": "image/heic",
                "heif": "image/heic",
                "hif": "image/heic",
                "pdf": "application/pdf",
                "jxl": "image/jxl",
                **dict.fromkeys(("jp2", "j2k", "jpx", "jpf"), "image/jp2"),
            }.get(name.rpartition(".")[2], "image/png")
        )
    found = "NIfTI" if name.endswith(".nii.gz") else BY_ENDING.get(name.rpartition(".")[2]) if "." in name else None
    return (found, ADVICE[found]) if found else None


MEDIA_EXAMPLES = {
    "image/heic": b"\0\0\0\x18ftypheic",
    "application/pdf": b"%PDF-",
    "image/jxl": b"\xff\x0a",
    "image/jp2": b"\xff\x4f\xff\x51",
    "image/avif": b"\0\0\0\x18ftypavif",
}
"""Shortest beginning of each format that takes more than is always there."""


def by_media(kind: str) -> tuple[str, str] | None:
    """Name and advice, as of ``unread_format``, by a media type."""
    match kind:
        case "application/dicom":
            return "DICOM", CONVERTERS["DICOM"]
        case "image/x-raw":
            return RAW
    if kind in MEDIA_EXAMPLES and not is_image(MEDIA_EXAMPLES[kind]):
        if kind in EXTRA_PACKAGES:
            return EXTRA_PACKAGES[kind][2], f"pip install 'sensorium[{EXTRA_PACKAGES[kind][1]}]' reads it"
        return {"image/jxl": JXL, "image/jp2": JP2}.get(kind, ("AVIF", "a Pillow with AVIF reads it"))
    return None


def by_content(head: bytes) -> tuple[str, str] | None:
    """Name and advice, as of ``unread_format``, by a file's first bytes."""
    if kind := media_type(head):
        return by_media(kind)
    if head.startswith(CAMERA_STARTS):
        return RAW
    if head.startswith(b"PK\x03\x04"):
        return zipped(head)
    if head.startswith(b"\x1f\x8b"):
        inner = unpacked(head)
        return ("NIfTI", CONVERTERS["NIfTI"]) if volume(inner) else ("gzip", CONVERTERS["gzip"])
    if volume(head):
        return "NIfTI", CONVERTERS["NIfTI"]
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return OFFICE
    if pickled(head):
        return PICKLED
    if head.startswith(b"LASF") and len(head) > 104 and head[104] & 0x80:
        return "LAZ", CONVERTERS["LAZ"]
    found = next((name for start, name in MAGIC_NUMBERS if head.startswith(start)), None) or by_text(head)
    return (found, CONVERTERS[found]) if found else None


def by_text(head: bytes) -> str | None:
    """Name of a format whose beginning takes more than a comparison."""
    if head[:8] == b"0       " and len(head) >= 256 and head[184:192].strip().isdigit():
        return "EDF"
    if head[:2] == b"MZ" and len(head) > 64 and head[int.from_bytes(head[60:64], "little") :][:4] in (b"PE\0\0", b""):
        return "a Windows program"
    if head[:3] == b"BZh" and head[4:10] == b"1AY&SY":
        return "bzip2"
    if head[8:16] == b'{"__meta' or (
        head[8:10] == b'{"' and b'"dtype"' in head and int.from_bytes(head[:8], "little") < 1 << 27
    ):
        return "safetensors"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in text):
        return "SVG"
    if text.startswith(b"version ") and b"\nfields " in text:
        return "PCD"
    return None


def volume(head: bytes) -> bool:
    """True where a file begins as a NIfTI volume does, of the first version or the second."""
    if head[344:348] in (b"n+1\0", b"ni1\0"):
        return head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c")
    return head[4:8] in (b"n+2\0", b"ni2\0") and head[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")


def pickled(head: bytes) -> bool:
    """True where a file begins as pickled objects of the second to fifth protocol do, with an opcode that may come
    first there."""
    return (
        len(head) > 2
        and head[0] == 0x80
        and 2 <= head[1] <= 5
        and head[2:3] in b"\x95}](c\x8c\x8aXGKNJM)\x8b\x8eCBu\x88\x89\x8f"
    )


def zipped(head: bytes) -> tuple[str, str] | None:
    """Name and advice of an archive, by the name of its first file; None for frames, which are read."""
    if archive(head, frame_name):
        return None
    if archive(
        head,
        lambda name: name.endswith(
            ("data.pkl", "/.data/serialization_id", "/version", "/byteorder", "/.format_version")
        ),
    ):
        return PICKLED
    if archive(head, lambda name: name.endswith(".npy")):
        return "NumPy", CONVERTERS["NumPy"]
    if archive(
        head,
        lambda name: (
            name == "[Content_Types].xml"
            or name.startswith(("word/", "xl/", "ppt/", "_rels/", "docProps/"))
            or (name == "mimetype" and b"application/vnd.oasis" in head)
        ),
    ):
        return OFFICE
    return "ZIP", CONVERTERS["ZIP"]
