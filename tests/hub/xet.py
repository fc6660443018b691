"""The storage behind the Hub's newer uploads, Xet: the client's own code writes and reads it in a folder, without a server.

hf_xet 1.8.0 takes `local:///folder` as the address of a storage. A commit names a file by its sha256 and the storage by a hash of
its own; the shards that the client has written tell which belongs to which.
"""

from __future__ import annotations

import struct
from pathlib import Path

RECORD = 48  # bytes of the header of a shard and of each record after it
VERIFIED, HAS_SHA256 = (
    0x80000000,
    0x40000000,
)  # flags of a file: a record more for each of its segments, one with the sha256


def xet_hashes(storage: Path) -> dict[str, str]:
    """The storage's hash of each file, by its sha256."""
    found = {}
    for shard in storage.rglob("*.mdb"):
        data, at = shard.read_bytes(), RECORD
        while (name := data[at : at + 32]) != b"\xff" * 32:  # the last record of the files
            flags, segments = struct.unpack_from("<II", data, at + 32)
            at += RECORD * (1 + segments * (2 if flags & VERIFIED else 1))
            if flags & HAS_SHA256:
                found[as_hex(data[at : at + 32])] = as_hex(name)
                at += RECORD
    return found


def as_hex(digest: bytes) -> str:
    """As it is written: four numbers of eight bytes, whose lowest byte is stored first."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))
