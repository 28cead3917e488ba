"""Makes an image of a directory: image.py NAME DIRECTORY COMMAND... writes the archive that `docker save` would."""

import hashlib
import io
import json
import sys
import tarfile

name, directory, command = sys.argv[1], sys.argv[2], sys.argv[3:]
layer = io.BytesIO()
with tarfile.open(fileobj=layer, mode="w", format=tarfile.GNU_FORMAT) as tar:
    tar.add(directory, ".")
settings = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Cmd": command, "Env": ["PATH=/bin"]},
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()]},
}
files = {
    "layer.tar": layer.getvalue(),
    "config.json": json.dumps(settings).encode(),
    "manifest.json": json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode(),
}
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
    for path, content in files.items():
        entry = tarfile.TarInfo(path)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
