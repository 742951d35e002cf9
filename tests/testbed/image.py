#!/usr/bin/env python3
"""Writes an OCI image archive of one layer from plain files: no Docker, no root file system. The same input gives the same bytes."""

import argparse
import gzip
import hashlib
import io
import json
import os
import tarfile


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("archive", help="file to write")
    p.add_argument("name", help="name with tag, as registry/path/name:tag")
    p.add_argument("entrypoint", help="program in the image")
    p.add_argument(
        "files",
        nargs="+",
        metavar="DEST=SOURCE",
        help="a file of the image and where it comes from; DEST=->TARGET makes a symbolic link",
    )
    p.add_argument("--user", default="", help="UID:GID that the entrypoint runs as")
    p.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    p.add_argument("--compress", choices=["gzip"], help="compress the layer")
    a = p.parse_args()
    plain = layer([f.split("=", 1) for f in a.files])
    blob = gzip.compress(plain, 9, mtime=0) if a.compress else plain
    config = as_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest(plain)]},
            "config": {
                "Entrypoint": [a.entrypoint],
                "User": a.user,
                "Labels": dict(l.split("=", 1) for l in a.label),
                "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
        }
    )
    oci = "application/vnd.oci.image."
    manifest = as_json(
        {
            "schemaVersion": 2,
            "mediaType": oci + "manifest.v1+json",
            "config": described(oci + "config.v1+json", config),
            "layers": [described(oci + "layer.v1.tar" + ("+gzip" if a.compress else ""), blob)],
        }
    )
    entry = described(oci + "manifest.v1+json", manifest)
    entry["platform"] = {"architecture": "amd64", "os": "linux"}
    entry["annotations"] = {
        "io.containerd.image.name": a.name,
        "org.opencontainers.image.ref.name": a.name.rsplit(":", 1)[1],
    }
    index = as_json({"schemaVersion": 2, "mediaType": oci + "index.v1+json", "manifests": [entry]})
    parts = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index)]
    parts += [("blobs/" + digest(b).replace(":", "/"), b) for b in (blob, config, manifest)]
    with tarfile.open(a.archive, "w") as t:
        for name, content in parts:
            add(t, name, 0o644, content)


def layer(files):
    buffer, seen = io.BytesIO(), set()
    with tarfile.open(fileobj=buffer, mode="w") as t:

        def directory(path, mode=0o755):
            if path and path not in seen:
                directory(os.path.dirname(path))
                seen.add(path)
                info = tarfile.TarInfo(path)
                info.type, info.mode = tarfile.DIRTYPE, mode
                t.addfile(info)

        directory("tmp", 0o1777)
        for dest, source in sorted(files):
            dest = dest.lstrip("/")
            directory(os.path.dirname(dest))
            if source.startswith("->"):
                info = tarfile.TarInfo(dest)
                info.type, info.linkname = tarfile.SYMTYPE, source[2:]
                t.addfile(info)
            else:
                with open(source, "rb") as f:
                    add(t, dest, 0o755, f.read())
    return buffer.getvalue()


def add(tar, name, mode, content):
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))


def digest(b):
    return "sha256:" + hashlib.sha256(b).hexdigest()


def described(media_type, b):
    return {"mediaType": media_type, "digest": digest(b), "size": len(b)}


def as_json(value):
    return json.dumps(value, sort_keys=True).encode()


main()
