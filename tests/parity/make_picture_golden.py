"""Writes tests/parity/golden/pictures: small pictures of many kinds made with Pillow, and pictures.jsonl, what
Pillow's convert("RGB") and Transformers' Qwen2VLImageProcessorPil make of them and of the shared pictures.

Each line: file (beside the list, or below build/data where "shared" is true), settings (keys of
preprocessor_config.json), width, height, rgb (XXH3-128 of the bytes), grid, patches (XXH3-128 of pixel_values), and
sample, every SAMPLE-th of pixel_values of a JPEG, which is compared by it: another libjpeg may round differently.

    python tests/parity/make_picture_golden.py build/data     (torch, transformers, pillow < 13, xxhash)

With torchvision it also prints how far Qwen2VLImageProcessor, which resamples with torchvision, is from it.
"""
import json
import pathlib
import random
import struct
import sys
import zlib

import numpy
import xxhash
import PIL
from PIL import Image, ImageOps
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

HERE = pathlib.Path(__file__).parent / "golden" / "pictures"
PUBLISHED = {"min_pixels": 3136, "max_pixels": 12845056}
SMALL = {"min_pixels": 3136, "max_pixels": 50176}
OTHER = {"size": {"shortest_edge": 20000, "longest_edge": 60000}, "patch_size": 7, "merge_size": 3,
         "temporal_patch_size": 1, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
SAMPLE = 997


def drawing(width, height, seed):
    """A gradient with rectangles: smooth parts and edges in every channel."""
    rng = random.Random(seed)
    y, x = numpy.mgrid[0:height, 0:width]
    rgb = numpy.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], -1).astype(numpy.uint8)
    for _ in range(6):
        left, top = rng.randrange(width), rng.randrange(height)
        rgb[top : top + height // 3, left : left + width // 3] = [rng.randrange(256) for _ in range(3)]
    return Image.fromarray(rgb)


def write_png(path, size, depth, interlace, data):
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", *size, depth, 2, 0, 0, interlace)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def png16(path, rgb):
    """Pillow writes no 16-bit colour: rows by hand."""
    a = numpy.asarray(rgb).astype(">u2") * 257 + 13
    a = numpy.minimum(a, 65535).astype(">u2")
    write_png(path, rgb.size, 16, 0, b"".join(b"\0" + row.tobytes() for row in a))


def adam7(path, rgb):
    """Nor interlaced ones: the seven passes of the specification."""
    a, data = numpy.asarray(rgb), b""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        part = a[y0::dy, x0::dx]
        if part.size:
            data += b"".join(b"\0" + row.tobytes() for row in part)
    write_png(path, rgb.size, 8, 1, data)


def make_pictures():
    HERE.mkdir(parents=True, exist_ok=True)
    rgb = drawing(61, 40, 1)
    rgba = rgb.copy()
    rgba.putalpha(rgb.convert("L"))
    rgb.save(HERE / "rgb.png")
    rgba.save(HERE / "rgba.png")
    rgb.convert("L").save(HERE / "grey.png")
    rgb.convert("LA").save(HERE / "grey_alpha.png")
    rgb.convert("1").save(HERE / "grey1.png")
    rgb.convert("L").quantize(4).save(HERE / "palette2.png", bits=2)
    rgb.quantize(16).save(HERE / "palette4.png", bits=4)
    rgb.quantize(200).save(HERE / "palette8_transparent.png", transparency=3)
    rgb.save(HERE / "transparent_colour.png", transparency=(10, 20, 30))
    png16(HERE / "rgb16.png", rgb)
    adam7(HERE / "interlaced.png", rgb)
    for turned in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = turned
        drawing(45, 30, turned).save(HERE / f"exif{turned}.png", exif=exif)
    exif = Image.Exif()
    exif[0x112] = 6
    rgb.save(HERE / "exif6.jpg", exif=exif, quality=90)
    rgb.save(HERE / "baseline.jpg", quality=75)
    rgb.save(HERE / "progressive.jpg", quality=75, progressive=True)
    rgb.save(HERE / "full_chroma.jpg", quality=95, subsampling=0)
    rgb.convert("L").save(HERE / "grey.jpg")
    # Refused ones.
    rgb.convert("CMYK").save(HERE / "cmyk.jpg")
    rgb.convert("I;16").save(HERE / "grey16.png")
    rgb.save(HERE / "animated.png", save_all=True, append_images=[drawing(61, 40, 2)])
    rgb.resize((16, 16)).save(HERE / "picture.webp")
    rgb.resize((300, 1)).save(HERE / "thin.png")


def opened(path):
    """As load_image of Transformers, without Pillow's note that there was transparency: the processor would put white
    behind a palette's, but not behind the alpha that load_image has dropped."""
    return Image.fromarray(numpy.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")))


def describe(path, name, shared, settings):
    picture = opened(path)
    out = Qwen2VLImageProcessorPil(**settings)(picture, return_tensors="np")
    values = numpy.ascontiguousarray(out["pixel_values"], numpy.float32)
    flat = values.reshape(-1)
    return {"file": name, "shared": shared, "settings": settings, "width": picture.width, "height": picture.height,
            "rgb": xxhash.xxh3_128_hexdigest(picture.tobytes()), "grid": out["image_grid_thw"][0].tolist(),
            "patches": xxhash.xxh3_128_hexdigest(flat.tobytes()),
            "sample": [float(v) for v in flat[::SAMPLE][:40]] if name.endswith(".jpg") else None}


def distance(path, settings):
    """Levels by which torchvision's processor differs from Pillow's: share of values, and the most."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

    picture = opened(path)
    a = Qwen2VLImageProcessorPil(**settings)(picture, return_tensors="np")["pixel_values"]
    b = Qwen2VLImageProcessor(**settings)(picture, return_tensors="pt")["pixel_values"].numpy()
    levels = numpy.abs(a - b) * 0.27 * 255
    return float((levels > 0.5).mean()), float(levels.max())


def main(data):
    assert int(PIL.__version__.split(".")[0]) < 13, "Pillow 13 may resample columns first: other bytes"
    make_pictures()
    refused = {"cmyk.jpg", "grey16.png", "animated.png", "thin.png"}
    own = [p for p in sorted(HERE.iterdir()) if p.suffix in (".png", ".jpg") and p.name not in refused]
    lines = [describe(p, p.name, False, PUBLISHED) for p in own]
    lines += [describe(HERE / "rgb.png", "rgb.png", False, s) for s in (SMALL, OTHER, {})]
    names = [json.loads(line)["image"] for line in open(data / "vision/tuxpaint/captions.jsonl")]
    shared = [("vision/tuxpaint/" + n, [PUBLISHED, SMALL, OTHER][i % 3]) for i, n in enumerate(names) if i % 4 == 0]
    shared += [(f"datasets/llamafactory/mllm_demo_data/{i}.jpg", PUBLISHED) for i in (1, 2, 3)]
    lines += [describe(data / name, name, True, settings) for name, settings in shared]
    with open(HERE / "pictures.jsonl", "w") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    far = [distance(data / name, settings) for name, settings in shared if settings is not OTHER]
    print(f"torchvision: {100 * sum(f[0] for f in far) / len(far):.2f} % of values differ, by {max(f[1] for f in far):.2f} levels at most")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
